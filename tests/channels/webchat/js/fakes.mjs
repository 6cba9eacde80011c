// Just enough of a document for the renderer, and of a socket and a clock for the protocol client.

class FakeNode {
  constructor(tag) { Object.assign(this, { tag, attributes: {}, childNodes: [], className: '', parent: null }); }
  append(...children) {
    for (const child of children) {
      const node = typeof child === 'string' ? new FakeText(child) : child;
      node.parent = this;
      this.childNodes.push(node);
    }
  }
  remove() { this.parent.childNodes.splice(this.parent.childNodes.indexOf(this), 1); }
  setAttribute(name, value) { this.attributes[name] = value; }
  get lastChild() { return this.childNodes.at(-1); }
  get textContent() { return this.childNodes.map((child) => child.textContent).join(''); }
  tags() { return [this.tag, ...this.childNodes.flatMap((child) => child.tags())]; }
  find(tag) { return this.tag === tag ? this : this.childNodes.map((child) => child.find(tag)).find(Boolean); }
  toString() {
    const attributes = Object.entries(this.attributes).map(([name, value]) => ` ${name}="${value}"`).join('');
    return `<${this.tag}${attributes}>${this.childNodes.map(String).join('')}</${this.tag}>`;
  }
}

class FakeText {
  constructor(text) { this.textContent = text; }
  tags() { return []; }
  find() { return undefined; }
  remove() { this.parent.childNodes.splice(this.parent.childNodes.indexOf(this), 1); }
  toString() { return this.textContent; }
}

export class FakeDocument {
  createElement(tag) { return new FakeNode(tag); }
  createTextNode(text) { return new FakeText(text); }
}

export class FakeClock {
  constructor() { Object.assign(this, { now: 0, next: 1, timers: new Map() }); }
  setTimeout = (action, delay) => { this.timers.set(this.next, { action, at: this.now + delay }); return this.next++; };
  clearTimeout = (id) => { this.timers.delete(id); };
  advance(by) {
    const end = this.now + by;
    for (;;) {
      const due = [...this.timers].filter(([, { at }]) => at <= end).sort((left, right) => left[1].at - right[1].at)[0];
      if (!due) break;
      this.timers.delete(due[0]);
      this.now = due[1].at;
      due[1].action();
    }
    this.now = end;
  }
}

/** A class of sockets that remembers its instances; each keeps what was sent, as objects. */
export function fakeSockets() {
  return class FakeSocket {
    static all = [];
    constructor(url) { Object.assign(this, { url, sent: [], closedWith: null }); FakeSocket.all.push(this); }
    send(text) { this.sent.push(JSON.parse(text)); }
    close(code, reason) { this.closedWith ??= [code, reason]; }
    receive(frame) { this.onmessage({ data: JSON.stringify(frame) }); }
    lose(code = 1006, reason = '') { this.onclose({ code, reason }); }
  };
}
