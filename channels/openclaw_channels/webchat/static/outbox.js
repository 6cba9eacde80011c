// The one message on its way. It is sent under one idempotency key until the gateway has answered, over lost connections
// and reloads of the page, so it is neither lost nor doubled.
import { GatewayError, Unanswered, uuid } from './gateway.js';
import { sameSession } from './state.js';

const RETRY_AFTER = 1000;

export class Outbox {
  /**
   * page: dispatch(action), state(), request(method, params), isOpen(), tell(text), changed(), run(promise).
   * store: a Storage that outlives a reload of the tab; clock: setTimeout.
   */
  constructor(page, store, clock = globalThis) {
    Object.assign(this, { page, store, clock, pending: null, refused: new Map() });
  }

  /** Takes a message for the session shown; false while an earlier one has not been taken by the gateway. */
  add(text, attachments, at) {
    if (this.pending) return false;
    this.#become({ key: uuid(), text, attachments, sessionKey: this.page.state().sessionKey, at, attempted: false });
    this.show();
    return true;
  }

  /** What an earlier life of this page left behind, or null. */
  restore() {
    const kept = this.store.getItem('pending');
    this.pending = kept ? JSON.parse(kept) : null;
    return this.pending;
  }

  /** Puts the message on the page if it belongs there and is not there yet. */
  show() {
    const { pending, page } = this;
    if (!pending || !sameSession(pending.sessionKey, page.state().sessionKey) || this.#shown()) return;
    const { key, text, attachments, at, attempted } = pending;
    const images = attachments.filter(({ type }) => type === 'image').map(({ mimeType, content, fileName }) => ({ url: `data:${mimeType};base64,${content}`, alt: fileName }));
    const files = attachments.filter(({ type }) => type !== 'image').map(({ fileName }) => ({ name: fileName }));
    page.dispatch({ type: 'compose', key, text, images, files, at, status: 'queued' });
    if (attempted) page.dispatch({ type: 'sending', key, status: 'sending' });
  }

  /** The connection is gone. */
  wait() {
    if (this.pending) this.page.dispatch({ type: 'sending', key: this.pending.key, status: 'queued' });
  }

  /** After a reconnect and a fresh history: a message tried before that the history holds by now needs no repeating. */
  async resume() {
    const { pending, page } = this;
    if (!pending) return;
    const isStored = sameSession(pending.sessionKey, page.state().sessionKey) && !/^(queued|sending)$/.test(this.#shown()?.status);
    if (pending.attempted && isStored) this.#become(null);
    else await this.deliver();
  }

  async deliver() {
    const { pending, page } = this;
    if (!page.isOpen()) { this.wait(); return; }
    const { key, text, attachments, sessionKey } = pending;
    this.#become({ ...pending, attempted: true });
    page.dispatch({ type: 'sending', key, status: 'sending' });
    try {
      const answer = await page.request('chat.send', { sessionKey, message: text, idempotencyKey: key, ...(attachments.length ? { attachments } : {}) });
      page.dispatch({ type: 'accepted', key, runId: answer.runId ?? key, started: /^(started|in_flight)$/.test(answer.status) });
      this.#become(null);
    } catch (error) {
      this.#failed(error, key);
    }
  }

  #failed(error, key) {
    if (error instanceof Unanswered) {
      // A closed connection is taken up again by resume(); an open one that says nothing is asked again.
      if (this.page.isOpen()) this.#again(key, RETRY_AFTER);
    } else if (!(error instanceof GatewayError)) throw error;
    else if (error.retryable) {
      this.page.tell(error.message);
      this.#again(key, error.retryAfterMs ?? RETRY_AFTER);
    } else {
      this.refused.set(key, this.pending);
      this.page.dispatch({ type: 'refused', key, error: error.message });
      this.#become(null);
    }
  }

  #again(key, delay) {
    this.clock.setTimeout(() => { if (this.pending?.key === key) this.page.run(this.deliver()); }, delay);
  }

  #shown() {
    return this.page.state().items.find(({ id }) => id === `user:${this.pending.key}`);
  }

  #become(pending) {
    this.pending = pending;
    // Files are too large for this store; the page asks before it is left with them.
    this.store.setItem('pending', pending && !pending.attachments.length ? JSON.stringify(pending) : '');
    this.page.changed();
  }
}
