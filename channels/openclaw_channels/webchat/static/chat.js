// Joins the page: signing in, the connection, the conversation state, the composer.
import { Gateway, GatewayError, Unanswered, isCredentialError, uuid } from './gateway.js';
import { activeRuns, initialState, isStored, isThinking, reduce, sameSession } from './state.js';
import { Log, button, icon, make, when } from './view.js';
import { Tray } from './attachments.js';
import { CURE, exchange, isSignedIn } from './signin.js';

const VERSION = '0.1.0';
const PAGE_SIZE = 100;
const base = location.pathname.replace(/[^/]*$/, '').replace(/\/$/, '');
const at = (id) => document.getElementById(id);
const draft = at('draft');
const scroller = at('scroller');
const coarse = matchMedia('(pointer: coarse)').matches;
const log = new Log(at('log'));
const tray = new Tray(at('tray'), (problem) => tell(problem), () => drawComposer());

let state = initialState;
let status = 'connecting';
let policy = {};
let mainKey = 'main';
let clockSkew = 0; // gateway clock minus this one, ms
let pending = null; // the one message not yet acknowledged: {key, text, attachments, sessionKey, at}
let rows = [];
let agents = [];
let commands = [];
let followsEnd = true;

// ---- state and drawing ---------------------------------------------------------------------------------------------

function dispatch(action) {
  const before = state;
  state = reduce(state, action);
  if (state !== before) scheduleDraw();
  return state;
}

let drawing = false;
function scheduleDraw() {
  if (drawing) return;
  drawing = true;
  // Hidden pages get no animation frames; their state is drawn when they are seen again.
  requestAnimationFrame(() => { drawing = false; draw(); });
}

function draw() {
  log.draw(state.items);
  at('welcome').hidden = !state.loaded || state.items.length > 0;
  at('older').hidden = state.nextOffset === null;
  at('thinking').hidden = !isThinking(state);
  const row = rows.find((candidate) => sameSession(candidate.key, state.sessionKey));
  at('title').textContent = nameOf(row ?? { key: state.sessionKey, displayName: state.title });
  at('model').textContent = state.model || row?.model || '';
  drawComposer();
  speak();
  if (followsEnd) scroller.scrollTop = scroller.scrollHeight;
  at('latest').hidden = followsEnd;
}

function drawComposer() {
  const running = activeRuns(state).length > 0;
  at('stop').hidden = !running;
  at('send').disabled = Boolean(pending) || !(draft.value.trim() || tray.files.length);
  const hint = at('hint');
  hint.textContent = pending && status !== 'open' ? 'Your message waits for the connection' : coarse ? '' : running ? 'Esc stops' : 'Enter sends, Shift+Enter adds a line';
  hint.classList.toggle('busy', Boolean(pending && status !== 'open'));
  draft.style.height = 'auto';
  draft.style.height = `${Math.min(draft.scrollHeight, innerHeight * 0.34)}px`;
}

// Screen readers hear the answer sentence by sentence, not letter by letter and not again from the start.
const spoken = { id: '', length: 0 };
function speak() {
  const item = state.items.findLast((candidate) => candidate.role === 'assistant' || candidate.kind === 'error');
  if (!item?.runId || !state.runs[item.runId]) return;
  if (spoken.id !== item.id) { Object.assign(spoken, { id: item.id, length: 0 }); at('spoken').replaceChildren(); }
  const rest = item.text.slice(spoken.length);
  const end = item.status === 'streaming' ? rest.search(/[.!?:\n](?=\s[^]*$)/) : rest.length - 1;
  if (end < 0 || !rest.slice(0, end + 1).trim()) return;
  spoken.length += end + 1;
  at('spoken').append(make('p', '', rest.slice(0, end + 1)));
}

function tell(text) {
  at('notice').hidden = !text;
  at('notice').firstElementChild.textContent = text;
}

const described = (error) => (error.retryAfterMs ? `${error.message} (try again in ${Math.ceil(error.retryAfterMs / 1000)} s)` : error.message);

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
  if (!coarse) draft.focus();
  if (gateway.stopped) gateway.start();
  else gateway.hurry();
}

async function begin() {
  restore();
  const code = takeCode();
  if (code) await signIn(code);
  else if (await isSignedIn(base) === false) showSignin();
  else connect();
}

// ---- connection ----------------------------------------------------------------------------------------------------

const gateway = new Gateway(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}${base}/ws`, {
  client: { id: 'webchat-ui', version: VERSION, platform: 'web', mode: 'webchat', instanceId: uuid() },
  role: 'operator', scopes: ['operator.read', 'operator.write'], caps: ['tool-events'], locale: navigator.language,
}, {
  onStatus(next, { delay, wasOpen }) {
    status = next;
    const words = { connecting: 'Connecting', open: 'Connected', stopped: 'Not connected', waiting: `Connection lost, next try in ${Math.round(delay / 1000)} s` };
    at('connection').textContent = words[next];
    at('connection').className = `connection ${next}`;
    if (next === 'waiting') {
      tell(`The gateway cannot be reached; trying again in ${Math.round(delay / 1000)} s. If it is not running: openclaw-kernel run`);
      if (pending) dispatch({ type: 'sending', key: pending.key, status: 'queued' });
      // A refused upgrade looks like any lost connection; the session route tells the two apart.
      if (!wasOpen) isSignedIn(base).then((known) => { if (known === false) showSignin(`You are not signed in any more. ${CURE}`); });
    }
    if (next === 'open') tell('');
    drawComposer();
  },
  onRefused(error) {
    if (isCredentialError(error)) showSignin(`${described(error)}. ${CURE}`);
    else if (error.details.code === 'PROTOCOL_MISMATCH') tell(`${described(error)}. The gateway was updated: reload this page.`);
    else if (error.details.code === 'CONTROL_UI_ORIGIN_NOT_ALLOWED') tell(`${described(error)}. Add ${location.origin} to gateway.controlUi.allowedOrigins in openclaw.yaml.`);
    else tell(`The gateway refused this page: ${described(error)}. Reload the page to try again.`);
  },
  onHello(hello, challenge) {
    policy = hello.policy;
    clockSkew = challenge.ts ? challenge.ts - Date.now() : 0;
    mainKey = hello.snapshot.sessionDefaults?.mainSessionKey ?? 'main';
    const wanted = state.sessionKey || sessionStorage.getItem('session') || mainKey;
    guarded(enter(wanted, wanted === state.sessionKey).then(loadLists));
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

/** Requests whose failure has no place of its own: an answer that never came needs no word, reconnecting repeats it. */
async function guarded(work) {
  try {
    await work;
  } catch (error) {
    if (error instanceof Unanswered) return;
    if (!(error instanceof GatewayError)) throw error;
    tell(described(error));
  }
}

async function enter(key, again = false) {
  if (!again) {
    if (state.sessionKey && status === 'open') guarded(gateway.request('sessions.messages.unsubscribe', { key: state.sessionKey }));
    dispatch({ type: 'open', sessionKey: key });
    restoreDraft();
  }
  const { key: canonical } = await gateway.request('sessions.messages.subscribe', { key });
  if (state.sessionKey !== key) return;
  if (canonical && canonical !== key) state = { ...state, sessionKey: canonical };
  if (pending?.sessionKey === key) pending.sessionKey = state.sessionKey;
  sessionStorage.setItem('session', state.sessionKey);
  await refresh();
  followsEnd = true;
  if (pending) await deliver();
}

let refreshing = null;
/** Fetches the history again; calls that come meanwhile share one more fetch. */
async function refresh(fresh = false) {
  const sessionKey = state.sessionKey;
  const turn = {};
  refreshing = turn;
  const payload = await gateway.request('chat.history', { sessionKey, limit: PAGE_SIZE });
  if (refreshing !== turn || sessionKey !== state.sessionKey) return;
  if (pending && sameSession(pending.sessionKey, sessionKey)) showPending();
  dispatch({ type: 'history', payload, fresh });
}

function onChat(payload) {
  const known = state.runs[payload.runId]?.status;
  dispatch({ type: 'chat', payload });
  if (payload.state === 'delta' || !sameSession(payload.sessionKey, state.sessionKey) || known === payload.state) return;
  // A command such as /new changes the transcript itself.
  if (state.commands[payload.runId]) guarded(refresh(true));
  scheduleLists();
}

function onSessionsChanged({ sessionKey, reason }) {
  if (sameSession(sessionKey, state.sessionKey) && /^(new|reset)$/.test(reason)) guarded(refresh(true));
  scheduleLists();
}

// ---- sessions ------------------------------------------------------------------------------------------------------

async function loadLists() {
  await gateway.request('sessions.subscribe');
  [{ agents }, { commands }] = await Promise.all([gateway.request('agents.list'), gateway.request('commands.list')]);
  await loadSessions();
  drawIdeas();
}

let listTimer = 0;
function scheduleLists() {
  clearTimeout(listTimer);
  listTimer = setTimeout(() => { if (status === 'open') guarded(loadSessions()); }, 400);
}

async function loadSessions() {
  const answer = await gateway.request('sessions.list', { limit: 100, includeDerivedTitles: true, includeLastMessage: true });
  rows = answer.sessions;
  drawSessions();
  scheduleDraw();
}

const agentOf = (key) => /^agent:([^:]+):/.exec(key)?.[1] ?? '';
const agentName = (agent) => agent?.identity?.name || agent?.name || agent?.id || '';

function nameOf(row) {
  const given = row.displayName || row.label || row.derivedTitle;
  if (given) return given;
  const rest = row.key.replace(/^agent:[^:]+:/, '');
  const agent = agents.find(({ id }) => id === agentOf(row.key));
  return rest === 'main' ? agentName(agent) || 'Main session' : rest.replaceAll(':', ' ');
}

function drawSessions() {
  const known = rows.some((row) => sameSession(row.key, state.sessionKey)) ? rows : [{ key: state.sessionKey }, ...rows];
  const groups = new Map(agents.map(({ id }) => [id, []]));
  for (const row of known) {
    const id = row.agentId ?? agentOf(row.key);
    groups.set(id, [...(groups.get(id) ?? []), row]);
  }
  const nodes = [];
  for (const [id, members] of groups) {
    if (groups.size > 1) nodes.push(make('h2', '', agentName(agents.find((agent) => agent.id === id)) || 'Other'));
    if (!members.length) members.push({ key: `agent:${id}:main` });
    nodes.push(...members.sort((left, right) => (right.updatedAt ?? 0) - (left.updatedAt ?? 0)).map(drawSession));
  }
  at('sessions').replaceChildren(...nodes);
}

function drawSession(row) {
  const time = make('time', '', when(row.updatedAt));
  const preview = [row.channel && row.channel !== 'webchat' ? row.channel : '', row.lastMessagePreview].filter(Boolean).join(': ');
  const node = make('button', `session ${row.status === 'running' ? 'busy' : ''}`, make('b', '', nameOf(row)), time, make('small', '', preview));
  node.type = 'button';
  if (sameSession(row.key, state.sessionKey)) node.setAttribute('aria-current', 'true');
  node.onclick = () => { toggleMenu(false); guarded(enter(row.key).then(drawSessions)); };
  return node;
}

function drawIdeas() {
  const ideas = ['What can you do for me?', ...commands.map(({ name }) => `/${name.replace(/^\//, '')}`).filter((name) => /^\/(help|status)$/.test(name))];
  at('ideas').replaceChildren(...ideas.map((idea) => {
    const node = button('quiet', idea);
    node.onclick = () => send(idea, []);
    return node;
  }));
}

function toggleMenu(open) {
  at('app').classList.toggle('menu-open', open);
  at('shade').hidden = !open;
  at('menu').setAttribute('aria-expanded', String(open));
  if (open) at('close-menu').focus();
  else if (document.activeElement === at('close-menu')) at('menu').focus();
}

// ---- sending -------------------------------------------------------------------------------------------------------

function showPending() {
  if (state.items.some((item) => item.id === `user:${pending.key}`)) return;
  const images = pending.attachments.filter(({ type }) => type === 'image').map(({ mimeType, content, fileName }) => ({ url: `data:${mimeType};base64,${content}`, alt: fileName }));
  const files = pending.attachments.filter(({ type }) => type !== 'image').map(({ fileName }) => ({ name: fileName }));
  dispatch({ type: 'compose', key: pending.key, text: pending.text, images, files, at: pending.at, status: 'queued' });
  if (pending.attempted) dispatch({ type: 'sending', key: pending.key, status: 'sending' });
}

function send(text, attachments) {
  if (pending) { tell('The last message has not been taken yet. This one stays in the box until then.'); return false; }
  pending = { key: uuid(), text, attachments, sessionKey: state.sessionKey, at: Date.now() + clockSkew, attempted: false };
  showPending();
  followsEnd = true;
  keep();
  guarded(deliver());
  return true;
}

/** Sends the pending message under its one key until the gateway has answered: the key makes repeating it harmless. */
async function deliver() {
  const { key, text, attachments, sessionKey } = pending;
  const own = state.items.find((item) => item.id === `user:${key}`);
  if (pending.attempted && own && isStored({ ...own, attempted: true }, state.items.filter((item) => item !== own))) {
    dispatch({ type: 'withdraw', id: own.id });
    settle();
    return;
  }
  if (status !== 'open') { dispatch({ type: 'sending', key, status: 'queued' }); return; }
  pending.attempted = true;
  keep();
  dispatch({ type: 'sending', key, status: 'sending' });
  try {
    const params = { sessionKey, message: text, idempotencyKey: key, ...(attachments.length ? { attachments } : {}) };
    const answer = await gateway.request('chat.send', params);
    dispatch({ type: 'accepted', key, runId: answer.runId ?? key, started: /^(started|in_flight)$/.test(answer.status) });
    settle();
  } catch (error) {
    if (!(error instanceof GatewayError)) {
      if (!(error instanceof Unanswered)) throw error;
      if (status === 'open') setTimeout(() => { if (pending?.key === key) guarded(deliver()); }, 1000);
    } else if (error.retryable) {
      tell(described(error));
      setTimeout(() => { if (pending?.key === key) guarded(deliver()); }, error.retryAfterMs ?? 1000);
    } else {
      dispatch({ type: 'refused', key, error: described(error) });
      failed.set(key, pending);
      settle();
    }
  }
}

const failed = new Map(); // key -> message that the gateway refused, for "Try again" and "Edit"

function settle() {
  pending = null;
  keep();
  drawComposer();
}

function stop() {
  if (!activeRuns(state).length) return;
  guarded(gateway.request('chat.abort', { sessionKey: state.sessionKey }));
}

// What is typed or not yet taken outlives a reload of this tab. Files are too large for that store; leaving is then asked about.
function keep() {
  sessionStorage.setItem('pending', pending && !pending.attachments.length ? JSON.stringify(pending) : '');
  sessionStorage.setItem(`draft ${state.sessionKey}`, draft.value);
}

function restore() {
  const kept = sessionStorage.getItem('pending');
  if (!kept) return;
  pending = JSON.parse(kept);
  dispatch({ type: 'open', sessionKey: pending.sessionKey });
  restoreDraft();
  showPending();
}

function restoreDraft() {
  draft.value = sessionStorage.getItem(`draft ${state.sessionKey}`) ?? '';
  drawComposer();
}

// ---- composer ------------------------------------------------------------------------------------------------------

let choice = -1;
function drawCommands() {
  const typed = /^\/(\S*)$/.exec(draft.value)?.[1].toLowerCase();
  const fitting = typed === undefined ? [] : commands.filter(({ name }) => name.replace(/^\//, '').startsWith(typed)).slice(0, 12);
  choice = fitting.length ? Math.min(Math.max(choice, 0), fitting.length - 1) : -1;
  at('commands').hidden = !fitting.length;
  at('commands').replaceChildren(...fitting.map(({ name, description }, index) => {
    const node = make('li', '', make('b', '', `/${name.replace(/^\//, '')}`), make('span', '', description ?? ''));
    node.role = 'option';
    node.id = `command-${index}`;
    node.ariaSelected = String(index === choice);
    node.onpointerdown = (event) => { event.preventDefault(); complete(node); };
    return node;
  }));
  if (choice < 0) draft.removeAttribute('aria-activedescendant');
  else draft.setAttribute('aria-activedescendant', `command-${choice}`);
}

function complete(node) {
  draft.value = `${node.firstElementChild.textContent} `;
  edited();
  draft.focus();
}

function edited() {
  drawCommands();
  drawComposer();
  keep();
}

function submit() {
  const text = draft.value.trim();
  if (!text && !tray.files.length) return;
  if (!send(text, tray.attachments())) return;
  draft.value = '';
  tray.clear();
  edited();
}

function onKey(event) {
  if (event.isComposing) return;
  const options = [...at('commands').children];
  if (options.length && !at('commands').hidden) {
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      choice = (choice + (event.key === 'ArrowDown' ? 1 : options.length - 1)) % options.length;
      drawCommands();
      event.preventDefault();
      return;
    }
    if (event.key === 'Tab' || (event.key === 'Enter' && options[choice].firstElementChild.textContent !== draft.value)) { complete(options[choice]); event.preventDefault(); return; }
    if (event.key === 'Escape') { at('commands').hidden = true; event.stopPropagation(); return; }
  }
  if (event.key === 'Enter' && !event.shiftKey && !coarse) { event.preventDefault(); submit(); }
}

async function copyText(text, node) {
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
  else { // plain http from another machine: no clipboard API
    const area = make('textarea', 'hidden', text);
    document.body.append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }
  const label = node.textContent;
  node.textContent = 'Copied';
  setTimeout(() => { node.textContent = label; }, 1500);
}

function onLogClick(event) {
  const target = event.target.closest('button');
  if (!target) return;
  if (target.classList.contains('copy')) { copyText(target.closest('.code').querySelector('pre').textContent, target); return; }
  const item = state.items.find(({ id }) => id === target.closest('.item').dataset.id);
  if (target.dataset.act === 'copy') copyText(item.text, target);
  if (target.dataset.act === 'again') {
    const words = state.items.slice(0, state.items.indexOf(item)).findLast(({ role }) => role === 'user');
    if (words && send(words.text, [])) dispatch({ type: 'withdraw', id: item.id });
  }
  if (target.dataset.act === 'retry' || target.dataset.act === 'edit') {
    const refused = failed.get(item.id.replace('user:', ''));
    dispatch({ type: 'withdraw', id: item.id });
    if (target.dataset.act === 'retry') send(refused.text, refused.attachments);
    else { draft.value = refused.text; edited(); draft.focus(); }
  }
}

async function showOlder() {
  const height = scroller.scrollHeight;
  const payload = await gateway.request('chat.history', { sessionKey: state.sessionKey, limit: PAGE_SIZE, offset: state.nextOffset });
  dispatch({ type: 'older', payload });
  requestAnimationFrame(() => { scroller.scrollTop += scroller.scrollHeight - height; });
}

at('composer').onsubmit = (event) => { event.preventDefault(); submit(); };
at('signin-form').onsubmit = (event) => { event.preventDefault(); guarded(signIn(at('code').value.trim().replace(/^.*#code=/, ''))); };
draft.oninput = edited;
draft.onkeydown = onKey;
draft.onpaste = (event) => { if (event.clipboardData.files.length) { event.preventDefault(); tray.add(event.clipboardData.files, policy); } };
at('attach').onclick = () => at('files').click();
at('files').onchange = ({ target }) => { tray.add(target.files, policy); target.value = ''; draft.focus(); };
at('stop').onclick = stop;
at('new').onclick = () => { toggleMenu(false); send('/new', []); draft.focus(); };
at('menu').onclick = () => toggleMenu(true);
at('close-menu').onclick = () => toggleMenu(false);
at('shade').onclick = () => toggleMenu(false);
at('log').onclick = onLogClick;
at('older').onclick = () => guarded(showOlder());
at('latest').onclick = () => { followsEnd = true; draw(); };
at('notice').lastElementChild.onclick = () => tell('');
scroller.onscroll = () => { followsEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 60; at('latest').hidden = followsEnd; };
document.onkeydown = (event) => {
  if (event.key === 'Escape') { if (at('app').classList.contains('menu-open')) toggleMenu(false); else stop(); }
};
document.ondragover = (event) => { event.preventDefault(); at('composer').classList.add('dropping'); };
document.ondragleave = () => at('composer').classList.remove('dropping');
document.ondrop = (event) => { event.preventDefault(); at('composer').classList.remove('dropping'); tray.add(event.dataTransfer.files, policy); };
document.onvisibilitychange = () => { if (!document.hidden) gateway.hurry(); };
window.ononline = () => gateway.hurry();
window.onhashchange = () => { const code = takeCode(); if (code) guarded(signIn(code)); };
window.onbeforeunload = (event) => { if (pending?.attachments.length || tray.files.length) event.preventDefault(); };
// Browsers that do not shrink the page for their keyboard say how much is left.
const viewport = window.visualViewport;
viewport?.addEventListener('resize', () => {
  const covered = innerHeight - viewport.height > 80 && viewport.scale === 1;
  document.documentElement.style.setProperty('--height', covered ? `${viewport.height}px` : '100dvh');
  if (followsEnd) scroller.scrollTop = scroller.scrollHeight;
});

guarded(begin());
