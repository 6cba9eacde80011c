// What the page knows about one conversation, as a pure fold: (state, action) -> state. Nothing here touches the DOM,
// the network or a clock. An item keeps its identity (===) until something about it changes; the view relies on that.
//
// Items: message {id, kind, role, text, images, files, status, runId?, messageId?, at?, model?, error?}
//        tool    {id, kind, runId?, name, args, status: running|done|error|stopped, result}
//        thought {id, kind, runId?, text, status}
//        error   {id, kind, runId?, text, errorKind?}
// Message status: queued, sending, sent, failed (own words); streaming, done, aborted (the agent's).

export const initialState = Object.freeze({
  sessionKey: '', items: [], runs: {}, loaded: false, nextOffset: null, title: '', model: '', commands: {},
});

const TERMINAL = new Set(['final', 'aborted', 'error']);

export function reduce(state, action) {
  switch (action.type) {
    case 'open': return { ...initialState, sessionKey: action.sessionKey };
    case 'rename': return { ...state, sessionKey: action.sessionKey };
    case 'history': return foldHistory(state, action.payload, action.fresh);
    case 'older': return foldOlder(state, action.payload);
    case 'compose': return compose(state, action);
    case 'sending': return patchItem(state, `user:${action.key}`, { status: action.status });
    case 'accepted': return accepted(state, action);
    case 'refused': return patchItem(state, `user:${action.key}`, { status: 'failed', error: action.error });
    case 'withdraw': return { ...state, items: state.items.filter((item) => item.id !== action.id) };
    case 'chat': return foldChat(state, action.payload);
    case 'agent': return foldAgent(state, action.payload);
    case 'message': return foldMessage(state, action.payload);
    default: throw new Error(`unknown action ${action.type}`);
  }
}

export const activeRuns = (state) => Object.keys(state.runs).filter((runId) => !TERMINAL.has(state.runs[runId].status));

/** True while the agent works but nothing of it moves on the page: before its first word, and between two steps. */
export function isThinking(state) {
  return activeRuns(state).length > 0 && !state.items.some(({ status }) => status === 'streaming' || status === 'running');
}

export const sameSession = (left, right) => String(left ?? '').toLowerCase() === String(right ?? '').toLowerCase();

// ---- content -------------------------------------------------------------------------------------------------------

function blocksOf(message) {
  const content = message?.content ?? [];
  return typeof content === 'string' ? [{ type: 'text', text: content }] : content;
}

export function textOf(message) {
  return blocksOf(message).filter(({ type }) => type === 'text').map(({ text }) => text).join('');
}

const isShown = ({ type, mimeType, data }) => type === 'image' && data && /^image\/(png|jpeg|gif|webp|avif)$/.test(mimeType);
const imagesOf = (blocks) => blocks.filter(isShown).map(({ mimeType, data, fileName }) => ({ url: `data:${mimeType};base64,${data}`, alt: fileName || 'image' }));
const filesOf = (blocks) => blocks.filter((block) => /^(file|image)$/.test(block.type) && !isShown(block)).map(({ fileName, type }) => ({ name: fileName || type }));

/** A tool's arguments or result as text for people. */
export function display(value) {
  if (value === undefined || value === null) return '';
  if (typeof value === 'string') return value;
  if (Array.isArray(value) && value.length && value.every((part) => part?.type === 'text')) return value.map((part) => part.text).join('\n');
  if (Array.isArray(value.content)) return display(value.content);
  return JSON.stringify(value, null, 2);
}

// The gateway's own facts on a message are under its one key with two underscores.
const factsOf = (message) => message[Object.keys(message).find((key) => key.startsWith('__'))];
const idOf = (message, fallback) => factsOf(message)?.id ?? fallback;

/** The items that one stored message stands for, in reading order. */
function expand(message, fallbackId, runId) {
  const messageId = idOf(message, fallbackId);
  const base = { runId: message.runId ?? runId, at: message.timestamp };
  const blocks = blocksOf(message);
  if (message.role === 'toolResult') {
    return [{ ...base, id: `tool:${message.toolCallId}`, kind: 'tool', messageId, name: message.toolName, args: '', result: display(message.content), status: message.isError ? 'error' : 'done' }];
  }
  const items = [];
  let words = [];
  const flush = () => {
    const item = { text: textOf({ content: words }), images: imagesOf(words), files: filesOf(words) };
    words = [];
    if (!item.text.trim() && !item.images.length && !item.files.length) return;
    items.push({ ...base, ...item, id: `${messageId}:${items.length}`, kind: 'message', messageId, role: message.role, model: message.model, key: message.idempotencyKey, status: message.stopReason === 'aborted' ? 'aborted' : message.role === 'user' ? 'sent' : 'done' });
  };
  for (const block of blocks) {
    if (block.type === 'toolCall') {
      flush();
      items.push({ ...base, id: `tool:${block.id}`, kind: 'tool', messageId, name: block.name, args: display(block.arguments), result: '', status: 'running' });
    } else if (block.type === 'thinking') {
      flush();
      if (block.thinking) items.push({ ...base, id: `${messageId}:${items.length}`, kind: 'thought', messageId, text: block.thinking, status: 'done' });
    } else words.push(block);
  }
  flush();
  if (message.stopReason === 'error' && message.errorMessage) items.push({ ...base, id: `${messageId}:error`, kind: 'error', messageId, text: message.errorMessage, errorKind: message.errorKind });
  return items;
}

function expandAll(messages, prefix) {
  const items = [];
  messages.forEach((message, index) => {
    for (const item of expand(message, `${prefix}${index}`)) {
      const known = item.kind === 'tool' ? items.findIndex((other) => other.id === item.id) : -1;
      if (known >= 0) items[known] = { ...items[known], result: item.result, status: item.status };
      else items.push(item);
    }
  });
  return items;
}

// ---- history -------------------------------------------------------------------------------------------------------

/** Takes over the stored transcript. `fresh`: the session began anew, what failed before has no place in it. */
function foldHistory(state, payload, fresh = false) {
  const stored = expandAll(payload.messages ?? [], 'h');
  const runs = Object.fromEntries(Object.entries(state.runs).filter(([, run]) => TERMINAL.has(run.status)).slice(-50));
  const { runId: inFlight, text } = payload.inFlightRun ?? {};
  const live = Boolean(inFlight) && !runs[inFlight];
  if (live) runs[inFlight] = { ...newRun(), segment: 1000, frozen: wordsSinceUser(stored) };
  const items = live ? stored : stored.map((item) => (item.status === 'running' ? { ...item, status: 'stopped' } : item));
  const own = state.items.filter((item) => isOwnStill(item, items, fresh) && !isStored(item, items));
  const last = state.items.at(-1);
  const fault = !fresh && last?.kind === 'error' && items.at(-1)?.role === 'user' ? [last] : [];
  const info = payload.sessionInfo ?? {};
  const next = {
    ...state, loaded: true, runs, items: [...keepIdentity(state.items, items), ...fault, ...own],
    nextOffset: payload.hasMore ? payload.nextOffset ?? null : null,
    title: info.displayName ?? info.label ?? info.derivedTitle ?? '', model: info.model ?? state.model,
  };
  return live && text ? setLive(next, inFlight, text, 'streaming') : next;
}

/** What the transcript need not hold: own words not taken, refused, or waiting for their turn; a command and its answer. */
function isOwnStill({ id, status, at }, stored, fresh) {
  if (/^(queued|sending)$/.test(status)) return true;
  return !fresh && /^(user|run):/.test(id) && (status === 'failed' || at > (stored.at(-1)?.at ?? 0));
}

function foldOlder(state, payload) {
  const known = new Set(state.items.map((item) => item.id));
  const older = expandAll(payload.messages ?? [], `o${state.nextOffset}:`).filter((item) => !known.has(item.id));
  return { ...state, items: [...older, ...state.items], nextOffset: payload.hasMore ? payload.nextOffset ?? null : null };
}

/** Whether own words are among the stored items: by key, else (the key is not always stored) by text and time. */
export function isStored(own, items) {
  const key = own.id.replace(/^user:/, '');
  return items.some((item) => item.role === 'user' && (item.key === key || item.runId === key || (item.messageId && item.messageId === own.messageId)
    || (!item.key && own.attempted && item.text === own.text && typeof item.at === 'number' && item.at >= own.at - 2000)));
}

/** What was seen live and is stored by now keeps its id, and what did not change stays the same object: nothing flickers. */
function keepIdentity(before, after) {
  const known = new Map(before.map((item) => [item.id, item]));
  const stored = new Set(after.map(({ id }) => id));
  const live = before.filter(({ id }) => /^(run|user):/.test(id) && !stored.has(id));
  return after.map((item) => {
    let old = known.get(item.id);
    const twin = old || !item.text ? -1 : live.findIndex(({ role, text }) => role === item.role && text.trim() === item.text.trim());
    if (twin >= 0) [old] = live.splice(twin, 1);
    const kept = old ? { ...item, id: old.id } : item;
    return old && JSON.stringify(old) === JSON.stringify(kept) ? old : kept;
  });
}

function wordsSinceUser(items) {
  const start = items.findLastIndex((item) => item.role === 'user') + 1;
  return items.slice(start).filter((item) => item.role === 'assistant').map((item) => item.text).join('\n\n');
}

// ---- own words -----------------------------------------------------------------------------------------------------

function compose(state, { key, text, images, files, at, status }) {
  return { ...state, items: [...state.items, { id: `user:${key}`, kind: 'message', role: 'user', text, images, files, at, status, attempted: false }], commands: /^\/(new|reset)\b/.test(text) ? { ...state.commands, [key]: true } : state.commands };
}

function accepted(state, { key, runId, started }) {
  const next = patchItem(state, `user:${key}`, { status: 'sent' });
  if (!started || next.runs[runId]) return next;
  return { ...next, runs: { ...next.runs, [runId]: newRun() } };
}

function patchItem(state, id, change) {
  const at = state.items.findIndex((item) => item.id === id);
  if (at < 0) return state;
  const attempted = change.status === 'sending' ? { attempted: true } : {};
  return { ...state, items: state.items.with(at, { ...state.items[at], ...change, ...attempted }) };
}

// ---- live runs -----------------------------------------------------------------------------------------------------

const newRun = () => ({ status: 'running', segment: 0, frozen: '', text: '', seq: -1 });
const setRun = (state, runId, change) => ({ ...state, runs: { ...state.runs, [runId]: { ...(state.runs[runId] ?? newRun()), ...change } } });

/** The part of a run's cumulative text that comes after its last tool step. A text that starts afresh is taken whole. */
function sinceStep(run, text) {
  return text.startsWith(run.frozen) ? text.slice(run.frozen.length).replace(/^\s*\n/, '') : text;
}

function setLive(state, runId, text, status, extra = {}) {
  const run = state.runs[runId] ?? newRun();
  const next = setRun(state, runId, { text });
  const visible = sinceStep(run, text);
  const id = `run:${runId}:${run.segment}`;
  const at = next.items.findIndex((item) => item.id === id);
  if (at >= 0) return { ...next, items: next.items.with(at, { ...next.items[at], text: visible, status, ...extra }) };
  if (!visible.trim() && !extra.images?.length) return next;
  return insert(next, { id, kind: 'message', role: 'assistant', runId, text: visible, images: [], files: [], status, ...extra });
}

/** A run's items stay together, right after the words that began it; words that wait for their turn stay below. */
function insert(state, item) {
  const mine = item.runId ? state.items.findLastIndex(({ id, runId }) => runId === item.runId || id === `user:${item.runId}`) : -1;
  let at = mine < 0 ? state.items.length : mine + 1;
  while (mine < 0 && at > 0 && /^(queued|sending)$/.test(state.items[at - 1].status)) at -= 1;
  return { ...state, items: state.items.toSpliced(at, 0, item) };
}

function isForeign(state, payload) {
  if (payload.sessionKey) return !sameSession(payload.sessionKey, state.sessionKey);
  return !state.runs[payload.runId];
}

function foldChat(state, payload) {
  const { runId, message } = payload;
  if (isForeign(state, payload)) return state;
  const run = state.runs[runId] ?? newRun();
  if (TERMINAL.has(run.status)) return state;
  if (payload.state === 'delta') {
    if (payload.seq <= run.seq) return state;
    const text = message ? textOf(message) : payload.replace ? payload.deltaText ?? '' : run.text + (payload.deltaText ?? '');
    return setLive(setRun(state, runId, { seq: payload.seq ?? run.seq, ...(payload.replace ? { frozen: '' } : {}) }), runId, text, 'streaming');
  }
  if (!TERMINAL.has(payload.state)) return setRun(state, runId, {});
  return endRun(state, payload, run);
}

function endRun(state, { runId, state: ending, message, errorMessage, errorKind }, run) {
  const blocks = blocksOf(message);
  const extra = { at: message?.timestamp, model: message?.model, images: imagesOf(blocks), files: filesOf(blocks) };
  const status = ending === 'aborted' ? 'aborted' : 'done';
  let next = setRun(state, runId, { status: ending });
  if (message) next = setLive(next, runId, textOf(message), status, extra);
  next = {
    ...next, items: next.items.map((item) => {
      if (item.runId !== runId) return item;
      if (item.status === 'streaming') return { ...item, status };
      return item.kind === 'tool' && item.status === 'running' ? { ...item, status: 'stopped' } : item;
    }),
  };
  if (ending === 'error') return insert(next, { id: `error:${runId}`, kind: 'error', runId, text: errorMessage ?? 'the run failed', errorKind });
  const mute = !next.items.some((item) => item.runId === runId && item.role === 'assistant' && item.id === `run:${runId}:${run.segment}`);
  if (ending === 'aborted' && mute) return insert(next, { id: `run:${runId}:stop`, kind: 'message', role: 'assistant', runId, text: '', images: [], files: [], status });
  return next;
}

function foldAgent(state, payload) {
  const { runId, stream, data = {} } = payload;
  if (isForeign(state, payload) || TERMINAL.has(state.runs[runId]?.status)) return state;
  if (stream === 'tool') return foldTool(setRun(state, runId, {}), runId, data);
  if (stream === 'thinking') return foldThought(setRun(state, runId, {}), runId, data);
  return stream === 'lifecycle' && data.phase === 'start' ? setRun(state, runId, {}) : state;
}

function foldTool(state, runId, data) {
  const id = `tool:${data.toolCallId}`;
  const at = state.items.findIndex((item) => item.id === id);
  if (at < 0) {
    const run = state.runs[runId];
    const next = setRun(closeSegment(state, runId), runId, { frozen: run.text, segment: run.segment + 1 });
    return foldTool(insert(next, { id, kind: 'tool', runId, name: data.name, args: display(data.args), result: '', status: 'running' }), runId, data);
  }
  const change = {};
  if (data.args !== undefined) change.args = display(data.args);
  if (data.phase === 'update') change.result = display(data.partialResult ?? data.result);
  if (data.phase === 'result') Object.assign(change, { result: display(data.result), status: data.isError ? 'error' : 'done' });
  return { ...state, items: state.items.with(at, { ...state.items[at], ...change }) };
}

function closeSegment(state, runId) {
  return { ...state, items: state.items.map((item) => (item.runId === runId && item.status === 'streaming' ? { ...item, status: 'done' } : item)) };
}

function foldThought(state, runId, data) {
  const id = `thought:${runId}:${state.runs[runId].segment}`;
  const at = state.items.findIndex((item) => item.id === id);
  const text = data.text ?? (at < 0 ? '' : state.items[at].text) + (data.delta ?? '');
  if (at >= 0) return { ...state, items: state.items.with(at, { ...state.items[at], text }) };
  return text ? insert(state, { id, kind: 'thought', runId, text, status: 'streaming' }) : state;
}

// ---- messages from elsewhere ---------------------------------------------------------------------------------------

function foldMessage(state, { sessionKey, message, messageId, runId }) {
  if (!message || !sameSession(sessionKey, state.sessionKey)) return state;
  const id = messageId ?? idOf(message);
  if (id && state.items.some((item) => item.messageId === id)) return state;
  if (message.role === 'user') return foldUser(state, message, id, runId);
  // A run that is or was seen live is already on the page, word by word.
  if (runId ? state.runs[runId] : activeRuns(state).length) return state;
  const fresh = expand(message, id ?? `m${state.items.length}`, runId);
  const twin = state.items.slice(-8).find((item) => !item.messageId && item.role === message.role && item.text === textOf(message));
  if (twin) return patchItem(state, twin.id, { messageId: id });
  return fresh.reduce((next, item) => (next.items.some((other) => other.id === item.id)
    ? { ...next, items: next.items.map((other) => (other.id === item.id ? { ...other, result: item.result, status: item.status } : other)) }
    : insert(next, item)), state);
}

function foldUser(state, message, id, runId) {
  const text = textOf(message);
  const own = state.items.find((item) => item.id === `user:${runId ?? message.idempotencyKey}`)
    ?? state.items.find((item) => item.id.startsWith('user:') && !item.messageId && item.status !== 'queued' && item.text === text);
  if (own) return patchItem(state, own.id, { messageId: id });
  const [item] = expand(message, id ?? `m${state.items.length}`, runId);
  if (!item) return state;
  const at = runId ? state.items.findIndex((other) => other.runId === runId) : -1;
  return at < 0 ? insert(state, item) : { ...state, items: state.items.toSpliced(at, 0, item) };
}
