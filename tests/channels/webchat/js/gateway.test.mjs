import assert from 'node:assert/strict';
import test from 'node:test';
import { Gateway, GatewayError, Unanswered, isCredentialError, uuid } from '../../../../channels/openclaw_channels/webchat/static/gateway.js';
import { FakeClock, fakeSockets } from './fakes.mjs';

const HELLO = { policy: { tickIntervalMs: 30000 }, snapshot: {} };
const settled = () => new Promise((resolve) => { setImmediate(resolve); });

function start() {
  const seen = [];
  const note = (name) => (...values) => { seen.push([name, ...values]); };
  const clock = new FakeClock();
  const WebSocket = fakeSockets();
  const handlers = { onHello: note('hello'), onEvent: note('event'), onGap: note('gap'), onStatus: note('status'), onRefused: note('refused') };
  const gateway = new Gateway('ws://here/ws', { client: { id: 'webchat-ui' } }, handlers, { WebSocket, clock });
  gateway.start();
  return { gateway, clock, seen, sockets: WebSocket.all, named: (name) => seen.filter(([first]) => first === name) };
}

async function greet(page) {
  const socket = page.sockets.at(-1);
  socket.receive({ type: 'event', event: 'connect.challenge', payload: { nonce: 'n', ts: 1 } });
  socket.receive({ type: 'res', id: socket.sent[0].id, ok: true, payload: HELLO });
  await settled();
  return socket;
}

test('it waits for the challenge, then connects with protocol 4 and no credential', async () => {
  const page = start();
  assert.equal(page.sockets[0].sent.length, 0);
  const socket = await greet(page);
  const { method, params } = socket.sent[0];
  assert.equal(method, 'connect');
  assert.deepEqual(params, { minProtocol: 4, maxProtocol: 4, client: { id: 'webchat-ui' } });
  assert.deepEqual(page.named('hello')[0][1], HELLO);
});

test('answers find their request in any order, refusals carry code and details', async () => {
  const page = start();
  const socket = await greet(page);
  const first = page.gateway.request('a');
  const second = page.gateway.request('b');
  const [, a, b] = socket.sent;
  socket.receive({ type: 'res', id: b.id, ok: false, error: { code: 'UNAVAILABLE', message: 'busy', retryable: true, retryAfterMs: 5, details: { reason: 'x' } } });
  socket.receive({ type: 'res', id: a.id, ok: true, payload: { n: 1 } });
  assert.deepEqual(await first, { n: 1 });
  await assert.rejects(second, (error) => error instanceof GatewayError && error.retryable && error.details.reason === 'x');
});

test('a request without an answer fails after 30 s, one before hello at once', async () => {
  const page = start();
  await assert.rejects(page.gateway.request('a'), Unanswered);
  await greet(page);
  const request = page.gateway.request('slow');
  page.clock.advance(29999);
  page.sockets[0].receive({ type: 'event', event: 'tick', payload: {}, seq: 1 });
  page.clock.advance(1);
  await assert.rejects(request, Unanswered);
});

test('a lost connection fails what is open and is tried again after 1 s, doubling to 30 s', async () => {
  const page = start();
  const socket = await greet(page);
  const request = page.gateway.request('a');
  socket.lose(1012, 'service restart');
  await assert.rejects(request, /service restart/);
  const delays = [];
  for (let count = 0; count < 7; count += 1) {
    const { delay } = page.named('status').at(-1)[2];
    delays.push(delay);
    page.clock.advance(delay - 1);
    const before = page.sockets.length;
    page.clock.advance(1);
    assert.equal(page.sockets.length, before + 1);
    page.sockets.at(-1).lose();
  }
  assert.deepEqual(delays, [1000, 2000, 4000, 8000, 16000, 30000, 30000]);
});

test('a hello sets the back-off back, and hurry skips it', async () => {
  const page = start();
  page.sockets[0].lose();
  page.clock.advance(1000);
  page.sockets[1].lose();
  page.gateway.hurry();
  assert.equal(page.sockets.length, 3);
  const socket = await greet(page);
  socket.lose();
  assert.equal(page.named('status').at(-1)[2].delay, 1000);
});

test('two silent ticks end the connection, any frame counts as life', async () => {
  const page = start();
  const socket = await greet(page);
  page.clock.advance(59000);
  socket.receive({ type: 'event', event: 'presence', payload: {}, seq: 1 });
  page.clock.advance(59000);
  assert.equal(socket.closedWith, null);
  page.clock.advance(1000);
  assert.deepEqual(socket.closedWith, [4000, 'tick timeout']);
  page.clock.advance(1000);
  assert.equal(page.sockets.length, 2);
});

test('a jump in seq is a gap; targeted events without seq and a fresh connection are none', async () => {
  const page = start();
  const socket = await greet(page);
  const event = (seq) => socket.receive({ type: 'event', event: 'chat', payload: {}, ...(seq ? { seq } : {}) });
  event(4); event(5); event(); event(6);
  assert.equal(page.named('gap').length, 0);
  event(8);
  assert.equal(page.named('gap').length, 1);
  assert.equal(page.named('event').length, 5);
  socket.lose();
  page.clock.advance(1000);
  (await greet(page)).receive({ type: 'event', event: 'chat', payload: {}, seq: 1 });
  assert.equal(page.named('gap').length, 1);
});

test('a refused credential ends the tries, a starting gateway does not', async () => {
  for (const [error, tries] of [
    [{ code: 'INVALID_REQUEST', message: 'unauthorized', details: { code: 'AUTH_TOKEN_MISSING' } }, 1],
    [{ code: 'INVALID_REQUEST', message: 'slow down', details: { code: 'AUTH_RATE_LIMITED' }, retryable: true }, 1],
    [{ code: 'UNAVAILABLE', message: 'starting', details: { reason: 'startup-sidecars' }, retryable: true, retryAfterMs: 500 }, 2],
  ]) {
    const page = start();
    const socket = page.sockets[0];
    socket.receive({ type: 'event', event: 'connect.challenge', payload: { nonce: 'n', ts: 1 } });
    socket.receive({ type: 'res', id: socket.sent[0].id, ok: false, error });
    await settled();
    socket.lose(1008);
    page.clock.advance(60000);
    assert.equal(page.sockets.length >= 2 ? 2 : 1, tries, error.details.code ?? error.details.reason);
    assert.equal(page.named('refused').length, tries === 1 ? 1 : 0);
  }
});

test('only a missing or wrong credential asks for a new code', () => {
  const error = (code) => new GatewayError({ code: 'INVALID_REQUEST', message: '', details: { code } });
  assert.ok(isCredentialError(error('AUTH_REQUIRED')) && isCredentialError(error('AUTH_TOKEN_MISMATCH')));
  assert.ok(!isCredentialError(error('AUTH_RATE_LIMITED')) && !isCredentialError(error('PROTOCOL_MISMATCH')));
});

test('without a secure context a key is a uuid all the same', () => {
  Object.defineProperty(crypto, 'randomUUID', { value: undefined, configurable: true });
  assert.match(uuid(), /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  delete crypto.randomUUID; // uncovers the one of the prototype again
});
