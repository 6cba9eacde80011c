// Files chosen, pasted or dropped, as the attachments of the next message.
import { icon, make } from './view.js';

const size = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

/** Why a file of this kind and size cannot go along with `others` bytes, or null. policy: that of hello. */
export function objection({ name, type, size: bytes }, others, policy) {
  const limits = policy.attachments ?? {};
  const most = type.startsWith('image/') ? limits.maxImageBytes : limits.maxBytes;
  if (most && bytes > most) return `${name} has ${size(bytes)}, the gateway takes ${size(most)}. Send a smaller one.`;
  // base64 makes four characters of three bytes; the frame needs some room for the rest.
  const room = policy.maxPayload ? (policy.maxPayload - 65536) * 0.75 : Infinity;
  if (bytes + others > room) return `${name} does not fit into this message with the others (${size(room)} in all). Send it in a message of its own.`;
  return null;
}

function read(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(',') + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

export class Tray {
  constructor(list, onProblem, onChange) {
    Object.assign(this, { list, onProblem, onChange, files: [] });
  }

  async add(files, policy) {
    for (const file of [...files]) {
      const name = file.name || 'pasted image';
      const problem = objection({ name, type: file.type, size: file.size }, this.files.reduce((sum, other) => sum + other.size, 0), policy);
      if (problem) { this.onProblem(problem); continue; }
      const entry = { name, type: file.type || 'application/octet-stream', size: file.size };
      try {
        entry.content = await read(file);
      } catch (error) {
        this.onProblem(`${name} could not be read: ${error.message}. Choose it again.`);
        continue;
      }
      this.files.push(entry);
      this.#draw();
    }
  }

  attachments() {
    return this.files.map(({ name, type, content }) => ({ type: type.startsWith('image/') ? 'image' : 'file', mimeType: type, fileName: name, content }));
  }

  clear() {
    this.files = [];
    this.#draw();
  }

  #draw() {
    this.list.hidden = !this.files.length;
    this.list.replaceChildren(...this.files.map((file) => {
      const remove = make('button', 'icon', icon('close'));
      remove.type = 'button';
      remove.ariaLabel = `Remove ${file.name}`;
      remove.onclick = () => { this.files = this.files.filter((other) => other !== file); this.#draw(); };
      const node = make('li', '', make('span', '', `${file.name} (${size(file.size)})`), remove);
      if (file.type.startsWith('image/')) {
        const image = make('img');
        image.src = `data:${file.type};base64,${file.content}`;
        image.alt = '';
        node.prepend(image);
      }
      return node;
    }));
    this.onChange();
  }
}
