// Protocol v4 client: one request frame out, one response frame back, events in between. It reconnects by itself;
// what the page does about hello, events, gaps and refusals is told through callbacks.

export const PROTOCOL = 4;
const FIRST_DELAY = 1000;
const LAST_DELAY = 30000;
const REQUEST_TIMEOUT = 30000;
const CHALLENGE_TIMEOUT = 15000;

/** Works outside secure contexts too (a phone on the local network over plain http has no crypto.randomUUID). */
export function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 15) | 64;
  bytes[8] = (bytes[8] & 63) | 128;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  return [8, 12, 16, 20].reduce((text, cut, index) => `${text.slice(0, cut + index)}-${text.slice(cut + index)}`, hex);
}

export class GatewayError extends Error {
  constructor({ code, message, details, retryable, retryAfterMs }) {
    super(message);
    Object.assign(this, { name: 'GatewayError', code, details: details ?? {}, retryable: retryable ?? false, retryAfterMs });
  }
}

/** The connection went away before an answer came: the request may or may not have been taken. */
export class Unanswered extends Error {}

export function isCredentialError(error) {
  const code = error.details?.code ?? '';
  return error.code === 'INVALID_REQUEST' && /^AUTH_|DEVICE_IDENTITY_REQUIRED$/.test(code) && code !== 'AUTH_RATE_LIMITED';
}

function isFinalRefusal(error) {
  const code = error.details?.code ?? '';
  return /^(AUTH_|CONTROL_UI_|DEVICE_)/.test(code) || code === 'PROTOCOL_MISMATCH' || error.code === 'NOT_PAIRED'
    || (error.code === 'INVALID_REQUEST' && !error.retryable);
}

export class Gateway {
  /**
   * handlers: onHello(hello), onEvent(name, payload), onGap(), onStatus(status, {delay, code}), onRefused(GatewayError).
   * status: connecting, open, waiting (for the next try), stopped. Clock and socket can be replaced for tests.
   */
  constructor(url, params, handlers, { WebSocket = globalThis.WebSocket, clock = globalThis } = {}) {
    Object.assign(this, { url, params, handlers, WebSocket, clock });
    this.pending = new Map();
    this.counter = 0;
    this.delay = FIRST_DELAY;
    this.socket = null;
    this.open = false;
    this.stopped = true;
    this.timers = {};
  }

  start() {
    this.stopped = false;
    this.delay = FIRST_DELAY;
    this.#connect();
  }

  stop() {
    this.stopped = true;
    this.#clear('retry');
    this.socket?.close(1000);
    this.handlers.onStatus('stopped', {});
  }

  /** Tries at once instead of after the rest of the back-off (network is back, page is visible again). */
  hurry() {
    if (!this.stopped && !this.socket) { this.#clear('retry'); this.#connect(); }
  }

  request(method, params = {}, timeout = REQUEST_TIMEOUT) {
    if (!this.open) return Promise.reject(new Unanswered('not connected'));
    return this.#request(method, params, timeout);
  }

  #request(method, params, timeout) {
    const id = String((this.counter += 1));
    return new Promise((resolve, reject) => {
      const timer = this.clock.setTimeout(() => {
        this.pending.delete(id);
        reject(new Unanswered(`no answer to ${method} within ${timeout / 1000} s`));
      }, timeout);
      this.pending.set(id, { resolve, reject, timer });
      this.socket.send(JSON.stringify({ type: 'req', id, method, params }));
    });
  }

  #connect() {
    this.handlers.onStatus('connecting', {});
    const socket = new this.WebSocket(this.url);
    this.socket = socket;
    this.open = false;
    this.lastSeq = null;
    this.tickInterval = null;
    this.#set('watch', () => socket.close(4000, 'connect timeout'), CHALLENGE_TIMEOUT);
    socket.onmessage = ({ data }) => { if (socket === this.socket) this.#frame(JSON.parse(data)); };
    socket.onclose = ({ code, reason }) => { if (socket === this.socket) this.#closed(code, reason); };
  }

  #frame(frame) {
    if (this.tickInterval) this.#watch();
    if (frame.type === 'res') this.#response(frame);
    else if (frame.type === 'event') this.#event(frame);
  }

  #event({ event, payload, seq }) {
    if (event === 'connect.challenge') { this.#hello(payload); return; }
    if (Number.isInteger(seq)) {
      const gap = this.lastSeq !== null && seq > this.lastSeq + 1;
      this.lastSeq = seq;
      if (gap) this.handlers.onGap();
    }
    this.handlers.onEvent(event, payload ?? {});
  }

  async #hello(challenge) {
    const socket = this.socket;
    const params = { minProtocol: PROTOCOL, maxProtocol: PROTOCOL, ...this.params };
    try {
      const hello = await this.#request('connect', params, CHALLENGE_TIMEOUT);
      this.open = true;
      this.delay = FIRST_DELAY;
      this.tickInterval = hello.policy.tickIntervalMs;
      this.#watch();
      this.handlers.onStatus('open', {});
      this.handlers.onHello(hello, challenge);
    } catch (error) {
      if (error instanceof Unanswered) { socket.close(4000, 'connect timeout'); return; }
      if (!(error instanceof GatewayError)) throw error;
      if (error.retryAfterMs) this.delay = Math.max(this.delay, error.retryAfterMs);
      if (isFinalRefusal(error)) { this.stop(); this.handlers.onRefused(error); }
      else socket.close(1000);
    }
  }

  #response({ id, ok, payload, error }) {
    const waiting = this.pending.get(id);
    if (!waiting) return;
    this.pending.delete(id);
    this.clock.clearTimeout(waiting.timer);
    if (ok) waiting.resolve(payload ?? {});
    else waiting.reject(new GatewayError(error));
  }

  #closed(code, reason) {
    const wasOpen = this.open;
    this.socket = null;
    this.open = false;
    this.#clear('watch');
    for (const { reject, timer } of this.pending.values()) {
      this.clock.clearTimeout(timer);
      reject(new Unanswered(`connection closed (${code}${reason ? ` ${reason}` : ''})`));
    }
    this.pending.clear();
    if (this.stopped) return;
    const delay = this.delay;
    this.delay = Math.min(LAST_DELAY, delay * 2);
    this.#set('retry', () => this.#connect(), delay);
    this.handlers.onStatus('waiting', { delay, code, reason, wasOpen });
  }

  // A half-open connection says nothing: two ticks without any frame end it.
  #watch() {
    this.#set('watch', () => {
      const socket = this.socket;
      socket.close(4000, 'tick timeout');
      // close() waits for a peer that may be gone; go on without it.
      this.#closed(4000, 'tick timeout');
    }, this.tickInterval * 2);
  }

  #set(name, action, delay) {
    this.#clear(name);
    this.timers[name] = this.clock.setTimeout(action, delay);
  }

  #clear(name) {
    this.clock.clearTimeout(this.timers[name]);
  }
}
