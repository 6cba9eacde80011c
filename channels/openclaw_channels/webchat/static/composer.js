// The box at the bottom: draft, commands offered while one is typed, attachments.
import { Tray } from './attachments.js';
import { make } from './view.js';

const at = (id) => document.getElementById(id);
const named = (name) => `/${name.replace(/^\//, '')}`;

export class Composer {
  /** page: send(text, attachments) -> taken?, tell(text), policy(). Drafts are kept per session in `store`. */
  constructor(page, store) {
    Object.assign(this, { page, store, draft: at('draft'), menu: at('commands'), commands: [], choice: -1, session: '' });
    this.coarse = matchMedia('(pointer: coarse)').matches;
    this.tray = new Tray(at('tray'), (problem) => page.tell(problem), () => this.draw());
    this.draft.oninput = () => this.#edited();
    this.draft.onkeydown = (event) => this.#key(event);
    this.draft.onpaste = (event) => this.#take(event, event.clipboardData.files);
    at('composer').onsubmit = (event) => { event.preventDefault(); this.#submit(); };
    at('attach').onclick = () => at('files').click();
    at('files').onchange = ({ target }) => { this.tray.add(target.files, page.policy()); target.value = ''; this.draft.focus(); };
    document.ondragover = (event) => { event.preventDefault(); at('composer').classList.add('dropping'); };
    document.ondragleave = () => at('composer').classList.remove('dropping');
    document.ondrop = (event) => { at('composer').classList.remove('dropping'); event.preventDefault(); this.#take(event, event.dataTransfer.files); };
  }

  draw({ running, blocked, waiting } = this.last ?? {}) {
    this.last = { running, blocked, waiting };
    at('stop').hidden = !running;
    at('send').disabled = Boolean(blocked) || !(this.draft.value.trim() || this.tray.files.length);
    at('hint').textContent = waiting ? 'Your message waits for the connection' : this.coarse ? '' : running ? 'Esc stops' : 'Enter sends, Shift+Enter adds a line';
    at('hint').classList.toggle('busy', Boolean(waiting));
    this.draft.style.height = 'auto';
    this.draft.style.height = `${Math.min(this.draft.scrollHeight, innerHeight * 0.34)}px`;
  }

  focus() {
    if (!this.coarse) this.draft.focus();
  }

  /** Changes to the draft of another session. What was typed before any session was known stays. */
  open(session) {
    if (this.session || !this.draft.value) this.draft.value = this.store.getItem(`draft ${session}`) ?? '';
    this.session = session;
    this.draw();
  }

  put(text) {
    this.draft.value = text;
    this.#edited();
    this.draft.focus();
  }

  #edited() {
    this.#drawMenu();
    this.draw();
    this.store.setItem(`draft ${this.session}`, this.draft.value);
  }

  #take(event, files) {
    if (!files.length) return;
    event.preventDefault();
    this.tray.add(files, this.page.policy());
  }

  #submit() {
    const text = this.draft.value.trim();
    if ((!text && !this.tray.files.length) || !this.page.send(text, this.tray.attachments())) return;
    this.draft.value = '';
    this.tray.clear();
    this.#edited();
  }

  #drawMenu() {
    const typed = /^\/(\S*)$/.exec(this.draft.value)?.[0].toLowerCase();
    const fitting = typed === undefined ? [] : this.commands.filter(({ name }) => named(name).startsWith(typed)).slice(0, 12);
    this.choice = fitting.length ? Math.min(Math.max(this.choice, 0), fitting.length - 1) : -1;
    this.menu.hidden = !fitting.length;
    this.menu.replaceChildren(...fitting.map(({ name, description }, index) => {
      const node = make('li', '', make('b', '', named(name)), make('span', '', description ?? ''));
      Object.assign(node, { role: 'option', id: `command-${index}`, ariaSelected: String(index === this.choice) });
      node.onpointerdown = (event) => { event.preventDefault(); this.put(`${named(name)} `); };
      return node;
    }));
    if (this.choice < 0) this.draft.removeAttribute('aria-activedescendant');
    else this.draft.setAttribute('aria-activedescendant', `command-${this.choice}`);
  }

  #key(event) {
    if (event.isComposing) return;
    if (!this.menu.hidden && this.#menuKey(event.key)) { event.preventDefault(); event.stopPropagation(); return; }
    if (event.key === 'Enter' && !event.shiftKey && !this.coarse) { event.preventDefault(); this.#submit(); }
  }

  #menuKey(key) {
    const options = this.menu.children;
    const chosen = options[this.choice].firstChild.textContent;
    if (key === 'ArrowDown' || key === 'ArrowUp') {
      this.choice = (this.choice + (key === 'ArrowDown' ? 1 : options.length - 1)) % options.length;
      this.#drawMenu();
    } else if (key === 'Tab' || (key === 'Enter' && chosen !== this.draft.value)) this.put(`${chosen} `);
    else if (key === 'Escape') this.menu.hidden = true;
    else return false;
    return true;
  }
}
