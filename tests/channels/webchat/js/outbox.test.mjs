import assert from 'node:assert/strict';
import test from 'node:test';
import { GatewayError, Unanswered } from '../../../../channels/openclaw_channels/webchat/static/gateway.js';
import { Outbox } from '../../../../channels/openclaw_channels/webchat/static/outbox.js';
import { initialState, reduce } from '../../../../channels/openclaw_channels/webchat/static/state.js';
import { FakeClock } from './fakes.mjs';

const KEY = 'agent:main:main';

/** A page with an outbox. answers: functions tried in turn, each for one chat.send. */
function open(answers = [], store = new Map()) {
  const page = { state: reduce(initialState, { type: 'open', sessionKey: KEY }), open: true, sent: [], told: [] };
  page.clock = new FakeClock();
  page.outbox = new Outbox({
    dispatch: (action) => { page.state = reduce(page.state, action); }, state: () => page.state, isOpen: () => page.open,
    request: async (method, params) => { page.sent.push(params); return answers.shift()(params); },
    tell: (text) => page.told.push(text), changed: () => {}, run: (promise) => { page.running = promise; },
  }, { getItem: (name) => store.get(name) ?? null, setItem: (name, value) => store.set(name, value) }, page.clock);
  page.own = () => page.state.items.map(({ text, status }) => [text, status]);
  page.history = (messages) => { page.state = reduce(page.state, { type: 'history', payload: { messages } }); };
  return page;
}

const taken = ({ idempotencyKey }) => ({ runId: idempotencyKey, status: 'started' });
const lost = () => { throw new Unanswered('connection closed'); };
const refused = (error) => () => { throw new GatewayError(error); };

test('a message goes out once, with its key, and the next may follow', async () => {
  const page = open([taken]);
  assert.ok(page.outbox.add('hi', [], 1000));
  await page.outbox.deliver();
  const [{ idempotencyKey, ...params }] = page.sent;
  assert.deepEqual(params, { sessionKey: KEY, message: 'hi' });
  assert.match(idempotencyKey, /^[0-9a-f-]{36}$/);
  assert.deepEqual(page.own(), [['hi', 'sent']]);
  assert.ok(page.outbox.add('again', [], 1001));
});

test('a second message is not taken before the first has an answer', () => {
  const page = open();
  assert.ok(page.outbox.add('one', [], 1000));
  assert.ok(!page.outbox.add('two', [], 1000));
  assert.deepEqual(page.own(), [['one', 'queued']]);
});

test('without a connection it waits, and goes out when there is one', async () => {
  const page = open([taken]);
  page.open = false;
  page.outbox.add('hi', [], 1000);
  await page.outbox.deliver();
  assert.deepEqual([page.sent.length, page.own()[0][1]], [0, 'queued']);
  page.open = true;
  page.history([]);
  await page.outbox.resume();
  assert.deepEqual([page.sent.length, page.own()], [1, [['hi', 'sent']]]);
});

test('an answer lost with the connection is asked for again under the same key', async () => {
  const page = open([() => { page.open = false; return lost(); }, ({ idempotencyKey }) => ({ runId: idempotencyKey, status: 'in_flight' })]);
  page.outbox.add('hi', [], 1000);
  await page.outbox.deliver();
  page.outbox.wait();
  page.open = true;
  page.history([]);
  await page.outbox.resume();
  assert.equal(page.sent.length, 2);
  assert.equal(page.sent[0].idempotencyKey, page.sent[1].idempotencyKey);
  assert.deepEqual(page.own(), [['hi', 'sent']]);
});

test('what the history holds after the reconnect is not sent again', async () => {
  const page = open([() => { page.open = false; return lost(); }]);
  page.outbox.add('hi', [], 1000);
  await page.outbox.deliver();
  page.outbox.wait();
  page.open = true;
  page.history([{ role: 'user', content: [{ type: 'text', text: 'hi' }], timestamp: 1200, __openclaw: { id: 'm1' } }]);
  await page.outbox.resume();
  assert.equal(page.sent.length, 1);
  assert.equal(page.outbox.pending, null);
  assert.deepEqual(page.own(), [['hi', 'sent']]);
});

test('an open connection that does not answer is asked again after a second', async () => {
  const page = open([lost, taken]);
  page.outbox.add('hi', [], 1000);
  await page.outbox.deliver();
  page.clock.advance(1000);
  await page.running;
  assert.equal(page.sent[0].idempotencyKey, page.sent[1].idempotencyKey);
  assert.deepEqual(page.own(), [['hi', 'sent']]);
});

test('a busy gateway is asked again when it says', async () => {
  const page = open([refused({ code: 'UNAVAILABLE', message: 'draining', retryable: true, retryAfterMs: 4000 }), taken]);
  page.outbox.add('hi', [], 1000);
  await page.outbox.deliver();
  assert.deepEqual(page.told, ['draining']);
  page.clock.advance(3999);
  assert.equal(page.sent.length, 1);
  page.clock.advance(1);
  await page.running;
  assert.deepEqual(page.own(), [['hi', 'sent']]);
});

test('a refusal is shown with its words, which are kept for another try', async () => {
  const attachment = { type: 'image', mimeType: 'image/png', fileName: 'a.png', content: 'AAAA' };
  const page = open([refused({ code: 'INVALID_REQUEST', message: 'too long' })]);
  page.outbox.add('hi', [attachment], 1000);
  await page.outbox.deliver();
  const [{ status, error, images }] = page.state.items;
  assert.deepEqual([status, error, images[0].url], ['failed', 'too long', 'data:image/png;base64,AAAA']);
  assert.deepEqual(page.outbox.refused.get(page.sent[0].idempotencyKey).attachments, [attachment]);
  assert.equal(page.outbox.pending, null);
});

test('a reload finds the message again, under its key', async () => {
  const store = new Map();
  const before = open([() => new Promise(() => {})], store);
  before.outbox.add('hi', [], 1000);
  before.outbox.deliver();
  const after = open([taken], store);
  const kept = after.outbox.restore();
  assert.deepEqual([kept.text, kept.sessionKey, kept.attempted], ['hi', KEY, true]);
  after.outbox.show();
  after.history([]);
  await after.outbox.resume();
  assert.equal(after.sent[0].idempotencyKey, before.sent[0].idempotencyKey);
  assert.equal(open([], store).outbox.restore(), null);
});

test('a mistake in the page is not taken for a lost connection', async () => {
  const page = open([() => { throw new TypeError('a bug'); }]);
  page.outbox.add('hi', [], 1000);
  await assert.rejects(page.outbox.deliver(), TypeError);
});
