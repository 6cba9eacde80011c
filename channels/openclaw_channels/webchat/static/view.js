// Draws the items of state.js. One element per item, redrawn only when the item object changed.
import { update } from './markdown.js';

const SVG = 'http://www.w3.org/2000/svg';

export function make(tag, className = '', ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

export function icon(name, className = '') {
  const svg = document.createElementNS(SVG, 'svg');
  if (className) svg.setAttribute('class', className);
  svg.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS(SVG, 'use');
  use.setAttribute('href', `#i-${name}`);
  svg.append(use);
  return svg;
}

export function button(className, label, act) {
  const node = make('button', className, label);
  node.type = 'button';
  if (act) node.dataset.act = act;
  return node;
}

export async function copyText(text, node) {
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
  else { // plain http from another machine has no clipboard API
    const area = make('textarea', 'hidden', text);
    document.body.append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }
  node.textContent = 'Copied';
  setTimeout(() => { node.textContent = 'Copy'; }, 1500);
}

const CURES = {
  rate_limit: 'The provider limits how often it may be asked. Wait a moment, then try again.',
  context_length: 'The conversation is longer than the model can read. Start a new session, or send a shorter message.',
  timeout: 'The model took too long. Try again, or ask for something shorter.',
  refusal: 'The model declined to answer. Put the question another way.',
};
const STATES = { running: 'running', done: 'done', error: 'failed', stopped: 'stopped' };
const clock = new Intl.DateTimeFormat(undefined, { hour: 'numeric', minute: '2-digit' });
const day = new Intl.DateTimeFormat(undefined, { month: 'short', day: 'numeric' });

export function when(at, now = Date.now()) {
  if (typeof at !== 'number') return '';
  return now - at < 20 * 3600e3 ? clock.format(at) : day.format(at);
}

export class Log {
  constructor(list) {
    this.list = list;
    this.drawn = new Map(); // item id -> {item, node}
  }

  draw(items) {
    const ids = new Set(items.map((item) => item.id));
    for (const [id, { node }] of this.drawn) if (!ids.has(id)) { node.remove(); this.drawn.delete(id); }
    items.forEach((item, index) => {
      const entry = this.drawn.get(item.id) ?? { node: make('article') };
      if (entry.item !== item) drawItem(entry.node, item);
      entry.item = item;
      this.drawn.set(item.id, entry);
      const agents = (other) => other && other.role !== 'user';
      entry.node.classList.toggle('first', agents(item) && !agents(items[index - 1]));
      entry.node.classList.toggle('last', agents(item) && !agents(items[index + 1]));
      if (this.list.children[index] !== entry.node) this.list.insertBefore(entry.node, this.list.children[index] ?? null);
    });
  }
}

function drawItem(node, item) {
  const last = node.classList.contains('last') ? ' last' : '';
  const first = node.classList.contains('first') ? ' first' : '';
  node.dataset.id = item.id;
  node.className = `item ${item.kind === 'message' ? item.role : item.kind === 'error' ? 'fault' : item.kind} ${item.status ?? ''}${first}${last}`;
  if (item.kind === 'message') (item.role === 'user' ? drawUser : drawAnswer)(node, item);
  else if (item.kind === 'error') drawFault(node, item);
  else drawStep(node, item);
}

const bead = () => make('span', 'bead', icon('mark', 'mark'));

function attachments({ images = [], files = [] }) {
  const row = make('div', 'images');
  for (const { url, alt } of images) {
    const image = make('img');
    image.src = url;
    image.alt = alt;
    row.append(image);
  }
  for (const { name } of files) row.append(make('span', 'file', icon('clip'), name));
  return row.childNodes.length ? [row] : [];
}

function drawUser(node, item) {
  const meta = make('div', 'meta');
  const waiting = { queued: 'Waiting for the connection. It will be sent once.', sending: 'Sending' }[item.status];
  if (waiting) meta.append(waiting);
  else if (item.status === 'failed') meta.append(make('span', 'problem', item.error), button('', 'Try again', 'retry'), button('', 'Edit', 'edit'));
  else if (item.at) meta.append(make('time', '', when(item.at)));
  node.replaceChildren(make('span', 'hidden', 'You said: '), ...attachments(item), make('div', 'bubble', item.text), meta);
}

function drawAnswer(node, item) {
  let prose = node.querySelector(':scope > .prose');
  if (!prose) {
    prose = make('div', 'prose');
    node.replaceChildren(bead(), make('span', 'hidden', 'Answer: '), prose);
  }
  update(prose, item.text, document);
  while (prose.nextSibling) prose.nextSibling.remove();
  node.append(...attachments(item));
  if (item.status === 'streaming') return;
  const meta = make('div', 'meta');
  if (item.status === 'aborted') meta.append('Stopped');
  if (item.text) meta.append(button('', 'Copy', 'copy'));
  if (item.model) meta.append(item.model);
  if (item.at) meta.append(make('time', '', when(item.at)));
  node.append(meta);
}

function drawFault(node, item) {
  const cure = CURES[item.errorKind] ?? 'Nothing was lost. Try again; if it stays, the gateway\'s log says more.';
  node.replaceChildren(bead(), make('div', 'panel', make('p', '', item.text), make('p', 'cure', cure), button('quiet', 'Try again', 'again')));
}

function drawStep(node, item) {
  const open = node.querySelector('details')?.open ?? false;
  const thought = item.kind === 'thought';
  const brief = thought ? '' : item.args.replace(/[{}[\]\"]/g, '').replace(/\s+/g, ' ').trim().slice(0, 200);
  const state = thought ? '' : STATES[item.status];
  const summary = make('summary', '', icon('chevron'), thought ? 'Thoughts' : make('b', '', item.name), make('span', 'brief', brief), make('span', 'state', state));
  const details = make('details', '', summary);
  const part = (title, text) => {
    const cut = text.length > 20000 ? `${text.slice(0, 20000)}\n(${text.length - 20000} more characters)` : text;
    const pre = make('pre', '', cut);
    pre.tabIndex = 0;
    details.append(...(title ? [make('p', 'label', title)] : []), pre);
  };
  if (thought) part('', item.text);
  else {
    if (item.args) part('Input', item.args);
    if (item.result) part(item.status === 'error' ? 'Error' : 'Result', item.result);
  }
  details.open = open;
  node.replaceChildren(bead(), details);
}
