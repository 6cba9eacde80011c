// Joins the page: signing in, the connection, the conversation.
import { Composer } from './composer.js';
import { Gateway, GatewayError, Unanswered, isCredentialError, uuid } from './gateway.js';
import { Outbox } from './outbox.js';
import { Sessions } from './sessions.js';
import { CURE, exchange, isSignedIn } from './signin.js';
import { activeRuns, initialState, isThinking, reduce, sameSession } from './state.js';
import { Log, button, copyText, make } from './view.js';

const VERSION = '1'; // of the page; that of the gateway is nobody's who is not signed in
const PAGE_SIZE = 100;
const STATUS = { connecting: 'Connecting', open: 'Connected', waiting: 'Reconnecting', stopped: 'Not connected' };
const base = location.pathname.replace(/\/[^/]*$/, '');
const at = (id) => document.getElementById(id);
const scroller = at('scroller');
const log = new Log(at('log'));

let state = initialState;
let status = 'connecting';
let policy = {};
let clockSkew = 0; // gateway clock minus this one, ms
let followsEnd = true;

const sessions = new Sessions((key) => guarded(enter(key)));
const composer = new Composer({ send, tell, policy: () => policy }, sessionStorage);
const outbox = new Outbox({
  dispatch, tell, run: guarded, state: () => state, isOpen: () => status === 'open',
  request: (method, params) => gateway.request(method, params), changed: () => scheduleDraw(),
}, sessionStorage);

// ---- state and drawing ---------------------------------------------------------------------------------------------

function dispatch(action) {
  const before = state;
  state = reduce(state, action);
  if (state !== before) scheduleDraw();
}

let drawing = false;
function scheduleDraw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; draw(); });
}

function draw() {
  log.draw(state.items);
  at('welcome').hidden = !state.loaded || state.items.length > 0;
  at('older').hidden = state.nextOffset === null;
  at('thinking').hidden = status !== 'open' || !isThinking(state);
  at('title').textContent = state.sessionKey ? state.title || sessions.name(state.sessionKey) : 'Chat';
  at('model').textContent = status === 'open' ? state.model || sessions.row(state.sessionKey)?.model || '' : STATUS[status];
  composer.draw({ running: status === 'open' && activeRuns(state).length > 0, blocked: outbox.pending, waiting: outbox.pending && status !== 'open' });
  speak();
  if (followsEnd) scroller.scrollTop = scroller.scrollHeight;
  at('latest').hidden = followsEnd;
}

// Screen readers hear the answer sentence by sentence: neither letter by letter nor again from the start.
const spoken = { id: '', length: 0 };
function speak() {
  const item = state.items.findLast(({ role, kind }) => role === 'assistant' || kind === 'error');
  if (!item?.runId || !state.runs[item.runId]) return;
  if (spoken.id !== item.id) { Object.assign(spoken, { id: item.id, length: 0 }); at('spoken').replaceChildren(); }
  const rest = item.text.slice(spoken.length);
  const end = item.status === 'streaming' ? rest.search(/[.!?:\n]\s[^.!?:\n]*$/) : rest.length - 1;
  if (end < 0 || !rest.slice(0, end + 1).trim()) return;
  spoken.length += end + 1;
  at('spoken').append(make('p', '', rest.slice(0, end + 1)));
}

function tell(text) {
  at('notice').hidden = !text;
  at('notice').firstElementChild.textContent = text;
}

const described = ({ message, retryAfterMs }) => (retryAfterMs ? `${message} (try again in ${Math.ceil(retryAfterMs / 1000)} s)` : message);

/** For requests whose failure has no place of its own. One that was not answered is repeated by the reconnect. */
async function guarded(work) {
  try {
    await work;
  } catch (error) {
    if (error instanceof Unanswered) return;
    if (!(error instanceof GatewayError)) throw error;
    tell(described(error));
  }
}

// ---- signing in ----------------------------------------------------------------------------------------------------

function takeCode() {
  const match = /^#code=([^&]+)/.exec(location.hash);
  if (!match) return null;
  history.replaceState(null, '', location.pathname + location.search);
  return decodeURIComponent(match[1]);
}

function showSignin(problem = '') {
  gateway.stop();
  at('app').hidden = true;
  at('signin').hidden = false;
  at('signin-error').hidden = !problem;
  at('signin-error').textContent = problem;
  at('code').focus();
}

async function signIn(code) {
  const result = await exchange(base, code);
  if (result.ok) { at('code').value = ''; tell(''); connect(); return; }
  // A link opened again in a browser that is signed in already: say so, and go on.
  if (!result.unreachable && await isSignedIn(base)) { tell(`${result.problem}. This browser is still signed in.`); connect(); return; }
  if (result.unreachable) at('code').value = code;
  showSignin(`${result.problem}. ${result.cure}`);
}

function connect() {
  at('signin').hidden = true;
  at('app').hidden = false;
  composer.focus();
  if (gateway.stopped) gateway.start();
  else gateway.hurry();
}

async function begin() {
  const kept = outbox.restore();
  if (kept) {
    dispatch({ type: 'open', sessionKey: kept.sessionKey });
    composer.open(kept.sessionKey);
    outbox.show();
  }
  const code = takeCode();
  if (code) await signIn(code);
  else if (await isSignedIn(base) === false) showSignin();
  else connect();
}

// ---- connection ----------------------------------------------------------------------------------------------------

const gateway = new Gateway(`${location.protocol === 'https:' ? 'wss://' : 'ws://'}${location.host}${base}/ws`, {
  client: { id: 'webchat-ui', version: VERSION, platform: 'web', mode: 'webchat', instanceId: uuid() },
  role: 'operator', scopes: ['operator.read', 'operator.write'], caps: ['tool-events'], locale: navigator.language,
}, {
  onStatus(next, { delay, wasOpen }) {
    status = next;
    at('connection').textContent = next === 'waiting' ? `Next try in ${Math.round(delay / 1000)} s` : STATUS[next];
    at('connection').className = `connection ${next}`;
    if (next === 'waiting') { outbox.wait(); if (!wasOpen) explainRefusal(); }
    scheduleDraw();
  },
  onRefused(error) {
    const { code } = error.details;
    if (isCredentialError(error)) { showSignin(`${described(error)}. ${CURE}`); return; }
    const cure = code === 'PROTOCOL_MISMATCH' ? 'The gateway was updated: reload this page.'
      : code === 'CONTROL_UI_ORIGIN_NOT_ALLOWED' ? `Add ${location.origin} to gateway.controlUi.allowedOrigins in the gateway's configuration.` : 'Reload this page to try again.';
    tell(`The gateway refused this page: ${described(error)}. ${cure}`);
  },
  onHello(hello, challenge) {
    tell('');
    policy = hello.policy;
    clockSkew = challenge.ts - Date.now();
    const wanted = state.sessionKey || sessionStorage.getItem('session') || hello.snapshot.sessionDefaults?.mainSessionKey || 'main';
    guarded(enter(wanted).then(loadLists));
  },
  onGap: () => guarded(refresh()),
  onEvent(name, payload) {
    if (name === 'chat') onChat(payload);
    else if (name === 'agent' || name === 'session.tool') dispatch({ type: 'agent', payload });
    else if (name === 'session.message') dispatch({ type: 'message', payload });
    else if (name === 'sessions.changed') onSessionsChanged(payload);
    else if (name === 'shutdown') tell('The gateway is restarting. This page comes back by itself.');
  },
});

/** A refused upgrade looks like a gateway that is not there; the session route tells the two apart. */
async function explainRefusal() {
  if (await isSignedIn(base) === false) showSignin(`You are not signed in any more. ${CURE}`);
  else if (status !== 'open') tell('The gateway cannot be reached. This page keeps trying. If it does not run, start it.');
}

async function enter(key) {
  const before = state.sessionKey;
  if (key !== before) {
    if (before && status === 'open') guarded(gateway.request('sessions.messages.unsubscribe', { key: before }));
    dispatch({ type: 'open', sessionKey: key });
    composer.open(key);
    sessions.draw(key);
  }
  const { key: canonical } = await gateway.request('sessions.messages.subscribe', { key });
  if (state.sessionKey !== key) return;
  dispatch({ type: 'rename', sessionKey: canonical });
  sessionStorage.setItem('session', canonical);
  await refresh();
  if (key !== before) followsEnd = true;
  await outbox.resume();
}

let refreshing = null;
/** Fetches the history; of several fetches under way only the last one counts. */
async function refresh(fresh = false) {
  const { sessionKey } = state;
  const turn = refreshing = {};
  const payload = await gateway.request('chat.history', { sessionKey, limit: PAGE_SIZE });
  if (refreshing !== turn || sessionKey !== state.sessionKey) return;
  outbox.show();
  dispatch({ type: 'history', payload, fresh });
}

function onChat(payload) {
  dispatch({ type: 'chat', payload });
  if (payload.state === 'delta') return;
  // A command such as /new changes the transcript itself.
  if (state.commands[payload.runId]) guarded(refresh(true));
  scheduleLists();
}

function onSessionsChanged({ sessionKey, reason }) {
  if (sameSession(sessionKey, state.sessionKey) && /^(new|reset)$/.test(reason)) guarded(refresh(true));
  scheduleLists();
}

async function loadLists() {
  const [, { agents }, { commands }] = await Promise.all([gateway.request('sessions.subscribe'), gateway.request('agents.list'), gateway.request('commands.list')]);
  sessions.agents = agents;
  composer.commands = commands;
  const ideas = ['What can you do for me?', ...commands.map(({ name }) => `/${name.replace(/^\//, '')}`).filter((name) => /^\/(help|status)$/.test(name))];
  at('ideas').replaceChildren(...ideas.map((idea) => button('quiet', idea)));
  await loadSessions();
}

async function loadSessions() {
  sessions.rows = (await gateway.request('sessions.list', { limit: 100, includeDerivedTitles: true, includeLastMessage: true })).sessions;
  sessions.draw(state.sessionKey);
  scheduleDraw();
}

let listTimer = null;
function scheduleLists() {
  listTimer ??= setTimeout(() => { listTimer = null; if (status === 'open') guarded(loadSessions()); }, 400);
}

// ---- what people do ------------------------------------------------------------------------------------------------

function send(text, attachments) {
  if (!outbox.add(text, attachments, Date.now() + clockSkew)) {
    tell('The last message has not been taken yet. This one stays in the box until then.');
    return false;
  }
  followsEnd = true;
  guarded(outbox.deliver());
  return true;
}

function stop() {
  if (status === 'open' && activeRuns(state).length) guarded(gateway.request('chat.abort', { sessionKey: state.sessionKey }));
}

const ACTIONS = {
  copy: (item, node) => copyText(item.text, node),
  again(item) {
    const words = state.items.slice(0, state.items.indexOf(item)).findLast(({ role }) => role === 'user');
    if (words && send(words.text, [])) dispatch({ type: 'withdraw', id: item.id });
  },
  retry(item) {
    const { text, attachments } = outbox.refused.get(item.id.replace('user:', ''));
    if (send(text, attachments)) dispatch({ type: 'withdraw', id: item.id });
  },
  edit(item) {
    composer.put(item.text);
    dispatch({ type: 'withdraw', id: item.id });
  },
};

function onLogClick({ target }) {
  const node = target.closest('button');
  if (node?.classList.contains('copy')) copyText(node.closest('.code').querySelector('pre').textContent, node);
  else if (node) ACTIONS[node.dataset.act](state.items.find(({ id }) => id === node.closest('.item').dataset.id), node);
}

async function showOlder() {
  const height = scroller.scrollHeight;
  const payload = await gateway.request('chat.history', { sessionKey: state.sessionKey, limit: PAGE_SIZE, offset: state.nextOffset });
  dispatch({ type: 'older', payload });
  draw();
  scroller.scrollTop += scroller.scrollHeight - height;
}

at('signin-form').onsubmit = (event) => { event.preventDefault(); guarded(signIn(at('code').value.trim().replace(/^.*#code=/, ''))); };
at('stop').onclick = stop;
at('new').onclick = () => { sessions.drawer(false); send('/new', []); composer.focus(); };
at('ideas').onclick = ({ target }) => { if (target.closest('button')) send(target.textContent, []); };
at('log').onclick = onLogClick;
at('older').onclick = () => guarded(showOlder());
at('latest').onclick = () => { followsEnd = true; draw(); };
at('notice').lastElementChild.onclick = () => tell('');
scroller.onscroll = () => { followsEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 60; at('latest').hidden = followsEnd; };
document.onkeydown = (event) => {
  if (event.key !== 'Escape' || event.isComposing) return;
  if (sessions.drawerOpen) sessions.drawer(false);
  else stop();
};
document.onvisibilitychange = () => { if (!document.hidden) gateway.hurry(); };
window.ononline = () => gateway.hurry();
window.onhashchange = () => { const code = takeCode(); if (code) guarded(signIn(code)); };
window.onbeforeunload = (event) => { if (outbox.pending?.attachments.length || composer.tray.files.length) event.preventDefault(); };
// Browsers that do not shrink the page for their keyboard say how much is left.
window.visualViewport?.addEventListener('resize', ({ target: { height, scale } }) => {
  document.documentElement.style.setProperty('--height', innerHeight - height > 80 && scale === 1 ? `${height}px` : '100dvh');
  if (followsEnd) scroller.scrollTop = scroller.scrollHeight;
});

guarded(begin());
