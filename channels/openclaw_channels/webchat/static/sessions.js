// The list of sessions, by agent; a drawer on a phone.
import { sameSession } from './state.js';
import { make, when } from './view.js';

const at = (id) => document.getElementById(id);
const agentOf = (key) => /^agent:([^:]+):/.exec(key)?.[1] ?? '';
const agentName = (agent) => agent?.identity?.name || agent?.name || agent?.id || '';

export class Sessions {
  /** onOpen(key) is called when one is chosen. */
  constructor(onOpen) {
    Object.assign(this, { onOpen, agents: [], rows: [] });
    at('menu').onclick = () => this.drawer(true);
    at('close-menu').onclick = () => this.drawer(false);
    at('shade').onclick = () => this.drawer(false);
  }

  get drawerOpen() {
    return at('app').classList.contains('menu-open');
  }

  drawer(open) {
    at('app').classList.toggle('menu-open', open);
    at('shade').hidden = !open;
    at('menu').setAttribute('aria-expanded', String(open));
    if (open) at('close-menu').focus();
    else if (at('sidebar').contains(document.activeElement)) at('menu').focus();
  }

  row(key) {
    return this.rows.find((row) => sameSession(row.key, key));
  }

  name(key) {
    const row = this.row(key) ?? {};
    const given = row.displayName || row.label || row.derivedTitle;
    if (given) return given;
    const rest = key.replace(/^agent:[^:]+:/, '');
    const agent = this.agents.find(({ id }) => id === agentOf(key));
    if (rest !== 'main') return rest.replaceAll(':', ' ');
    return agentName(agent) === 'main' ? 'Main session' : agentName(agent) || 'Main session';
  }

  draw(current) {
    const groups = new Map(this.agents.map(({ id }) => [id, []]));
    for (const row of this.row(current) ? this.rows : [{ key: current }, ...this.rows]) {
      const id = agentOf(row.key);
      groups.set(id, [...(groups.get(id) ?? []), row]);
    }
    const nodes = [];
    for (const [id, rows] of groups) {
      if (groups.size > 1) nodes.push(make('h2', '', agentName(this.agents.find((agent) => agent.id === id)) || 'Other'));
      if (!rows.length) rows.push({ key: `agent:${id}:main` });
      rows.sort((left, right) => (right.updatedAt ?? 0) - (left.updatedAt ?? 0));
      nodes.push(...rows.map((row) => this.#drawRow(row, current)));
    }
    const focused = document.activeElement?.dataset.key;
    at('sessions').replaceChildren(...nodes);
    nodes.find((node) => focused && node.dataset.key === focused)?.focus();
  }

  #drawRow(row, current) {
    const channel = row.channel && row.channel !== 'webchat' ? row.channel : '';
    const preview = make('small', '', [channel, row.lastMessagePreview].filter(Boolean).join(': '));
    const node = make('button', `session ${row.status === 'running' ? 'busy' : ''}`, make('b', '', this.name(row.key)), make('time', '', when(row.updatedAt)), preview);
    node.type = 'button';
    node.dataset.key = row.key;
    if (sameSession(row.key, current)) node.setAttribute('aria-current', 'true');
    node.onclick = () => { this.drawer(false); this.onOpen(row.key); };
    return node;
  }
}
