import assert from 'node:assert/strict';
import test from 'node:test';
import { activeRuns, initialState, isStored, isThinking, reduce } from '../../../../channels/openclaw_channels/webchat/static/state.js';

const KEY = 'agent:main:main';
const fold = (actions, from = reduce(initialState, { type: 'open', sessionKey: KEY })) => actions.reduce(reduce, from);
const words = (text, role = 'assistant') => ({ role, content: [{ type: 'text', text }], timestamp: 5000 });
const chat = (state, extra = {}, runId = 'r1') => ({ type: 'chat', payload: { runId, sessionKey: KEY, state, ...extra } });
const delta = (text, seq, runId) => chat('delta', { seq, deltaText: text, message: words(text) }, runId);
const final = (text, runId) => chat('final', text === undefined ? {} : { message: words(text) }, runId);
const tool = (data, runId = 'r1') => ({ type: 'agent', payload: { runId, sessionKey: KEY, stream: 'tool', data } });
const compose = (key, text, at = 4000) => ({ type: 'compose', key, text, images: [], files: [], at, status: 'queued' });
const accepted = (key) => ({ type: 'accepted', key, runId: key, started: true });
const history = (messages, extra = {}) => ({ type: 'history', payload: { messages, ...extra } });
const stored = (message, id) => ({ ...message, __openclaw: { id, seq: 1 } });
const outline = (state) => state.items.map((item) => [item.role ?? item.kind, item.text ?? item.name, item.status]);

test('cumulative deltas make one answer that grows, and the final closes it', () => {
  const state = fold([compose('r1', 'hi'), accepted('r1'), delta('Good', 1), delta('Good day', 2)]);
  assert.deepEqual(outline(state), [['user', 'hi', 'sent'], ['assistant', 'Good day', 'streaming']]);
  assert.deepEqual(activeRuns(state), ['r1']);
  const ended = fold([final('Good day!')], state);
  assert.deepEqual(outline(ended)[1], ['assistant', 'Good day!', 'done']);
  assert.deepEqual(activeRuns(ended), []);
});

test('an older or repeated delta changes nothing, nor does one after the end', () => {
  const state = fold([delta('ab', 2), delta('a', 1), delta('zz', 2)]);
  assert.equal(state.items[0].text, 'ab');
  const ended = fold([final('abc')], state);
  assert.equal(fold([delta('late', 9), final('again'), chat('error', { errorMessage: 'x' })], ended), ended);
});

test('a delta without message adds, or replaces when it says so', () => {
  const bare = (deltaText, seq, replace) => chat('delta', { seq, deltaText, ...(replace ? { replace } : {}) });
  assert.equal(fold([bare('a', 1), bare('b', 2)]).items[0].text, 'ab');
  assert.equal(fold([bare('a', 1), bare('b', 2, true)]).items[0].text, 'b');
});

test('a step stands between the words before and after it', () => {
  const state = fold([
    delta('Let me look.', 1), tool({ phase: 'start', name: 'fetch', toolCallId: 't', args: { url: 'u' } }),
    tool({ phase: 'update', toolCallId: 't', partialResult: 'half' }), tool({ phase: 'result', toolCallId: 't', result: { content: [{ type: 'text', text: 'whole' }] } }),
    delta('Let me look.\n\nIt is Paris.', 2), final('Let me look.\n\nIt is Paris.'),
  ]);
  assert.deepEqual(outline(state), [['assistant', 'Let me look.', 'done'], ['tool', 'fetch', 'done'], ['assistant', 'It is Paris.', 'done']]);
  assert.equal(state.items[1].result, 'whole');
  assert.match(state.items[1].args, /"url": "u"/);
});

test('a final that holds only the last words leaves the earlier ones', () => {
  const state = fold([delta('First.', 1), tool({ phase: 'start', name: 'x', toolCallId: 't' }), tool({ phase: 'result', toolCallId: 't', result: 'boom', isError: true }), final('Second.')]);
  assert.deepEqual(outline(state), [['assistant', 'First.', 'done'], ['tool', 'x', 'error'], ['assistant', 'Second.', 'done']]);
});

test('a message that begins anew after a step is shown whole, even if it begins like the one before', () => {
  const state = fold([
    delta('Again.', 1), tool({ phase: 'start', name: 'x', toolCallId: 't' }), tool({ phase: 'result', toolCallId: 't', result: 'y' }),
    chat('delta', { seq: 2, replace: true, deltaText: 'Again. And more.', message: words('Again. And more.') }), final('Again. And more.'),
  ]);
  assert.deepEqual(outline(state).map(([, text]) => text), ['Again.', 'x', 'Again. And more.']);
});

test('the agent is thinking until something moves, and again between steps', () => {
  const waiting = fold([compose('r1', 'hi'), accepted('r1')]);
  assert.ok(isThinking(waiting));
  const running = fold([tool({ phase: 'start', name: 'x', toolCallId: 't' })], waiting);
  assert.ok(!isThinking(running));
  assert.ok(isThinking(fold([tool({ phase: 'result', toolCallId: 't', result: '' })], running)));
  assert.ok(!isThinking(fold([final('done')], running)));
});

test('stopping keeps what was said, says so when nothing was, and stops the running step', () => {
  assert.deepEqual(outline(fold([delta('half', 1), chat('aborted', { message: words('half a') })])), [['assistant', 'half a', 'aborted']]);
  assert.deepEqual(outline(fold([compose('r1', 'x'), accepted('r1'), chat('aborted')]))[1], ['assistant', '', 'aborted']);
  assert.equal(fold([tool({ phase: 'start', name: 'x', toolCallId: 't' }), chat('aborted')]).items[0].status, 'stopped');
});

test('a failed run keeps its words and adds the error with its kind', () => {
  const state = fold([delta('half', 1), chat('error', { errorMessage: 'too many', errorKind: 'rate_limit' })]);
  assert.deepEqual(outline(state), [['assistant', 'half', 'done'], ['error', 'too many', undefined]]);
  assert.equal(state.items[1].errorKind, 'rate_limit');
});

test('a silent final shows nothing', () => {
  assert.deepEqual(fold([compose('r1', 'x'), accepted('r1'), final()]).items.length, 1);
});

test('events of another session, and tool steps of unknown runs without a session, are not ours', () => {
  const state = fold([]);
  assert.equal(fold([chat('delta', { sessionKey: 'agent:main:other', deltaText: 'a', seq: 1 })], state), state);
  assert.equal(fold([{ type: 'agent', payload: { runId: 'q', stream: 'tool', data: { phase: 'start', name: 'x', toolCallId: 't' } } }], state), state);
});

test('what is still waiting stays below the answer being written', () => {
  const state = fold([compose('r1', 'one'), accepted('r1'), compose('r2', 'two'), delta('answer', 1)]);
  assert.deepEqual(outline(state).map(([, text]) => text), ['one', 'answer', 'two']);
});

test('all that a run does stands between its words and the next ones, even those already taken', () => {
  const state = fold([
    compose('r1', 'one'), accepted('r1'), delta('Look.', 1), compose('r2', 'two'), accepted('r2'),
    tool({ phase: 'start', name: 'x', toolCallId: 't' }), tool({ phase: 'result', toolCallId: 't', result: '' }), final('First.'), delta('Second.', 1, 'r2'), final('Second.', 'r2'),
  ]);
  assert.deepEqual(outline(state).map(([, text]) => text), ['one', 'Look.', 'x', 'First.', 'two', 'Second.']);
});

test('own words coming back as session.message are recognised, by run or by text', () => {
  const message = (runId) => ({ type: 'message', payload: { sessionKey: KEY, message: words('hi', 'user'), messageId: 'm1', ...(runId ? { runId } : {}) } });
  for (const runId of ['r1', undefined]) {
    const state = fold([compose('r1', 'hi'), { type: 'sending', key: 'r1', status: 'sending' }, message(runId), message(runId)]);
    assert.equal(state.items.length, 1);
    assert.equal(state.items[0].messageId, 'm1');
  }
});

test('words from elsewhere appear once, before the answer they caused', () => {
  const said = (message, messageId, runId) => ({ type: 'message', payload: { sessionKey: KEY, message, messageId, runId } });
  const state = fold([
    delta('answer', 1, 'far'), said(words('from my phone', 'user'), 'm1', 'far'), final('answer', 'far'), said(words('answer'), 'm2', 'far'),
    said(words('by the way'), 'm3'), said(words('by the way'), 'm3'),
  ]);
  assert.deepEqual(outline(state).map(([, text]) => text), ['from my phone', 'answer', 'by the way']);
});

test('history shows words, steps with their results, images and errors', () => {
  const call = { role: 'assistant', content: [{ type: 'text', text: 'Look.' }, { type: 'toolCall', id: 't', name: 'fetch', arguments: { a: 1 } }] };
  const picture = { role: 'user', content: [{ type: 'text', text: 'see' }, { type: 'image', mimeType: 'image/png', data: 'AAAA' }, { type: 'image', mimeType: 'image/svg+xml', data: 'AAAA' }] };
  const state = fold([history([
    stored(picture, 'm1'), stored(call, 'm2'), stored({ role: 'toolResult', toolCallId: 't', toolName: 'fetch', content: [{ type: 'text', text: 'got' }] }, 'm3'),
    stored({ role: 'assistant', content: [], stopReason: 'error', errorMessage: 'no key' }, 'm4'),
  ])]);
  assert.deepEqual(outline(state), [['user', 'see', 'sent'], ['assistant', 'Look.', 'done'], ['tool', 'fetch', 'done'], ['error', 'no key', undefined]]);
  assert.equal(state.items[2].result, 'got');
  assert.deepEqual(state.items[0].images.map(({ url }) => url), ['data:image/png;base64,AAAA']);
});

test('history after a gap keeps unsent words, drops what it already holds, and keeps identities', () => {
  const before = fold([history([stored(words('old'), 'm1')]), compose('r1', 'sent already', 4000), { type: 'sending', key: 'r1', status: 'sending' }, compose('r2', 'not sent', 4500)]);
  const after = fold([history([stored(words('old'), 'm1'), stored({ ...words('sent already', 'user'), timestamp: 4100 }, 'm2')])], before);
  assert.deepEqual(outline(after), [['assistant', 'old', 'done'], ['user', 'sent already', 'sent'], ['user', 'not sent', 'queued']]);
  assert.equal(after.items[0], before.items[0]);
});

test('words equal to older ones are not taken for them', () => {
  const own = { id: 'user:k', text: 'yes', at: 9000, attempted: true };
  const other = { role: 'user', text: 'yes', at: 3000, messageId: 'm' };
  assert.ok(!isStored(own, [other]));
  assert.ok(!isStored({ ...own, attempted: false }, [{ ...other, at: 9500 }]));
  assert.ok(isStored(own, [{ ...other, at: 9500 }]));
  assert.ok(isStored(own, [{ ...other, key: 'k' }]));
  assert.ok(!isStored(own, [{ ...other, at: 9500, key: 'another' }]));
});

test('a run in flight goes on after a reload, behind the steps that are stored', () => {
  const call = { role: 'assistant', content: [{ type: 'text', text: 'Look.' }, { type: 'toolCall', id: 't', name: 'fetch', arguments: {} }] };
  const state = fold([history([stored(words('q', 'user'), 'm1'), stored(call, 'm2')], { inFlightRun: { runId: 'r9' } })]);
  assert.deepEqual(activeRuns(state), ['r9']);
  const after = fold([tool({ phase: 'result', toolCallId: 't', result: 'got' }, 'r9'), delta('Look.\n\nParis', 3, 'r9'), final('Look.\n\nParis.', 'r9')], state);
  assert.deepEqual(outline(after), [['user', 'q', 'sent'], ['assistant', 'Look.', 'done'], ['tool', 'fetch', 'done'], ['assistant', 'Paris.', 'done']]);
});

test('history that still names an ended run does not revive it', () => {
  const state = fold([delta('a', 1), final('a'), history([stored(words('a'), 'm1')], { inFlightRun: { runId: 'r1' } })]);
  assert.deepEqual(activeRuns(state), []);
});

test('a run that ended while the connection was away does not stay open', () => {
  const state = fold([compose('r1', 'q'), accepted('r1'), delta('a', 1), history([stored(words('q', 'user'), 'm1'), stored(words('a b'), 'm2')])]);
  assert.deepEqual(activeRuns(state), []);
  assert.deepEqual(outline(state).map(([, text]) => text), ['q', 'a b']);
});

test('a fresh session forgets what failed in the old one', () => {
  const failed = fold([compose('r1', 'bad'), { type: 'refused', key: 'r1', error: 'no' }]);
  assert.equal(fold([history([])], failed).items.length, 1);
  assert.equal(fold([{ ...history([]), fresh: true }], failed).items.length, 0);
});

test('a command and its answer, which no transcript holds, stay until something newer is stored', () => {
  const spoken = [history([stored({ ...words('old'), timestamp: 1000 }, 'm1')]), compose('r1', '/status', 4000), accepted('r1'), final('all is well')];
  const again = fold([...spoken, history([stored({ ...words('old'), timestamp: 1000 }, 'm1')])]);
  assert.deepEqual(outline(again).map(([, text]) => text), ['old', '/status', 'all is well']);
  const later = fold([history([stored({ ...words('new'), timestamp: 9000 }, 'm2')])], again);
  assert.deepEqual(outline(later).map(([, text]) => text), ['new']);
});

test('earlier messages go in front, once', () => {
  const state = fold([history([stored(words('new'), 'm9')], { hasMore: true, nextOffset: 1 })]);
  assert.equal(state.nextOffset, 1);
  const more = fold([{ type: 'older', payload: { messages: [stored(words('old'), 'm1'), stored(words('new'), 'm9')], hasMore: false } }], state);
  assert.deepEqual(outline(more).map(([, text]) => text), ['old', 'new']);
  assert.equal(more.nextOffset, null);
});

test('an unknown action is an error, not a silence', () => {
  assert.throws(() => fold([{ type: 'nonsense' }]), /unknown action nonsense/);
});
