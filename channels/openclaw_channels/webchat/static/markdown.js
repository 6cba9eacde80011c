// Markdown as language models write it. `parse` is pure (text -> plain objects); `render` builds DOM nodes only:
// text never passes through an HTML parser, and a link is a link only if it is http or https.

const FENCE = /^( {0,3})(`{3,}|~{3,})[ \t]*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*)$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?: +|$)/;
const TABLE_RULE = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const BARE_URL = /https?:\/\/[^\s<>"`]+/y;
const MAX_DEPTH = 10;
const MAX_LABEL = 1000; // characters of a link's text: keeps hostile input linear

/** Returns blocks; each top-level block carries `raw`, its source, so that a renderer can keep what did not change. */
export function parse(text) {
  return parseLines(String(text).replace(/\r\n?/g, '\n').replace(/\t/g, '    ').split('\n'), 0);
}

function parseLines(lines, depth) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) { at += 1; continue; }
    const [block, next] = readBlock(lines, at, depth);
    block.raw = lines.slice(at, next).join('\n');
    blocks.push(block);
    at = next;
  }
  return blocks;
}

function readBlock(lines, at, depth) {
  const line = lines[at];
  let match;
  if ((match = FENCE.exec(line))) return readFence(lines, at, match);
  if ((match = HEADING.exec(line))) {
    const title = match[2].replace(/[ \t]+#+[ \t]*$/, '').trim();
    return [{ type: 'heading', level: match[1].length, children: inline(title) }, at + 1];
  }
  if (RULE.test(line)) return [{ type: 'rule' }, at + 1];
  if (depth < MAX_DEPTH) {
    if (QUOTE.test(line)) return readQuote(lines, at, depth);
    if (ITEM.test(line)) return readList(lines, at, depth);
  }
  if (startsTable(lines, at)) return readTable(lines, at);
  return readParagraph(lines, at, depth);
}

function readFence(lines, at, [, indent, fence, info]) {
  const body = [];
  let next = at + 1;
  let closed = false;
  for (; next < lines.length; next += 1) {
    const trimmed = lines[next].trim();
    if (trimmed.length >= fence.length && trimmed === fence[0].repeat(trimmed.length)) { closed = true; next += 1; break; }
    body.push(lines[next].startsWith(indent) ? lines[next].slice(indent.length) : lines[next]);
  }
  return [{ type: 'code', language: info.trim().split(/\s+/)[0] ?? '', text: body.join('\n'), closed }, next];
}

function readQuote(lines, at, depth) {
  const body = [];
  let next = at;
  while (next < lines.length && lines[next].trim() && (QUOTE.test(lines[next]) || !startsBlock(lines, next))) {
    body.push(lines[next].replace(QUOTE, ''));
    next += 1;
  }
  return [{ type: 'quote', children: parseLines(body, depth + 1) }, next];
}

function readList(lines, at, depth) {
  const [, indent, firstMarker] = ITEM.exec(lines[at]);
  const ordered = /\d/.test(firstMarker);
  const kind = firstMarker.slice(-1);
  const list = { type: 'list', ordered, start: ordered ? parseInt(firstMarker, 10) : null, items: [] };
  let next = at;
  while (next < lines.length) {
    const match = ITEM.exec(lines[next]);
    if (!match || match[1].length > indent.length + 1 || match[2].slice(-1) !== kind || RULE.test(lines[next])) break;
    const inner = match[1].length + 2;
    const width = match[0].length;
    const body = [lines[next].slice(width)];
    next += 1;
    while (next < lines.length) {
      const line = lines[next];
      const lead = line.length - line.trimStart().length;
      if (!line.trim()) {
        const following = nextWritten(lines, next);
        if (following === lines.length || lines[following].search(/\S/) < inner) break;
        body.push('');
      } else if (lead >= inner) body.push(line.slice(Math.min(lead, width)));
      else if (lines[next - 1].trim() && !startsBlock(lines, next)) body.push(line.trimStart());
      else break;
      next += 1;
    }
    list.items.push(parseLines(body, depth + 1));
    const following = nextWritten(lines, next);
    if (following > next && following < lines.length && ITEM.test(lines[following])) {
      const [, nextIndent, marker] = ITEM.exec(lines[following]);
      if (nextIndent.length <= indent.length + 1 && marker.slice(-1) === kind) next = following;
    }
  }
  return [list, next];
}

function nextWritten(lines, from) {
  let at = from;
  while (at < lines.length && !lines[at].trim()) at += 1;
  return at;
}

function startsTable(lines, at) {
  return lines[at].includes('|') && at + 1 < lines.length && lines[at + 1].includes('-') && TABLE_RULE.test(lines[at + 1])
    && cells(lines[at]).length === cells(lines[at + 1]).length;
}

function cells(line) {
  const trimmed = line.trim().replace(/^\|/, '').replace(/(^|[^\\])\|$/, '$1');
  return trimmed.split(/(?<!\\)\|/).map((cell) => cell.trim().replace(/\\\|/g, '|'));
}

function readTable(lines, at) {
  const head = cells(lines[at]).map((cell) => inline(cell));
  const align = cells(lines[at + 1]).map((cell) => (/^:-+:$/.test(cell) ? 'center' : /-:$/.test(cell) ? 'right' : 'left'));
  const rows = [];
  let next = at + 2;
  while (next < lines.length && lines[next].includes('|')) {
    const row = cells(lines[next]).slice(0, head.length).map((cell) => inline(cell));
    while (row.length < head.length) row.push([]);
    rows.push(row);
    next += 1;
  }
  return [{ type: 'table', head, align, rows }, next];
}

function startsBlock(lines, at) {
  const line = lines[at];
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line) || startsTable(lines, at);
}

function readParagraph(lines, at, depth) {
  let next = at + 1;
  while (next < lines.length && lines[next].trim() && (depth >= MAX_DEPTH || !startsBlock(lines, next))) next += 1;
  const text = lines.slice(at, next).map((line) => line.trim()).join('\n');
  return [{ type: 'paragraph', children: inline(text) }, next];
}

/** Inline nodes: text, code, strong, em, del, link, break. Unmatched marks stay text. */
export function inline(source, depth = 0) {
  const nodes = [];
  const missing = new Set(); // closers known to be absent further on: keeps hostile input linear
  let plain = '';
  let at = 0;
  const push = (node, end) => {
    if (plain) nodes.push({ type: 'text', text: plain });
    plain = '';
    nodes.push(node);
    at = end;
  };
  while (at < source.length) {
    const found = readInline(source, at, depth, missing);
    if (found) push(found[0], found[1]);
    else if (source[at] === '\\' && /[!-/:-@[-`{-~]/.test(source[at + 1] ?? '')) { plain += source[at + 1]; at += 2; }
    else { plain += source[at]; at += 1; }
  }
  if (plain) nodes.push({ type: 'text', text: plain });
  return nodes;
}

function readInline(source, at, depth, missing) {
  const mark = source[at];
  if (mark === '\n') return [{ type: 'break' }, at + 1];
  if (mark === '`') return readCode(source, at, missing);
  if (mark === 'h') return readBareUrl(source, at);
  if (mark === '<') return readAngleUrl(source, at);
  if (depth >= MAX_DEPTH) return null;
  if (mark === '[') return readLink(source, at, depth);
  if (mark === '!' && source[at + 1] === '[') return readLink(source, at + 1, depth);
  if (mark === '*' || mark === '_' || mark === '~') return readEmphasis(source, at, depth, missing);
  return null;
}

function readCode(source, at, missing) {
  const ticks = /^`+/.exec(source.slice(at, at + 32))[0];
  if (missing.has(ticks)) return null;
  let end = at + ticks.length;
  for (;;) {
    end = source.indexOf(ticks, end);
    if (end < 0) { missing.add(ticks); return null; }
    let run = ticks.length;
    while (source[end + run] === '`') run += 1;
    if (run === ticks.length) break;
    end += run;
  }
  const text = source.slice(at + ticks.length, end).replace(/\n/g, ' ').replace(/^ (.*[^ ].*) $/, '$1');
  return [{ type: 'code', text }, end + ticks.length];
}

function readEmphasis(source, at, depth, missing) {
  const mark = source[at];
  const double = source[at + 1] === mark;
  if (mark === '~' && !double) return null;
  const delimiter = double ? mark + mark : mark;
  const from = at + delimiter.length;
  if (missing.has(delimiter) || !source[from] || /\s/.test(source[from])) return null;
  if (mark === '_' && /[\p{L}\p{N}]/u.test(source[at - 1] ?? '')) return null;
  for (let end = source.indexOf(delimiter, from + 1); end >= 0; end = source.indexOf(delimiter, end + 1)) {
    if (/[\s\\]/.test(source[end - 1])) continue;
    if (!double && (source[end + 1] === mark || source[end - 1] === mark)) { if (source[end + 1] === mark) end += 1; continue; }
    if (mark === '_' && /[\p{L}\p{N}]/u.test(source[end + delimiter.length] ?? '')) continue;
    if (double && source[end + 2] === mark) end += 1;
    const type = double ? (mark === '~' ? 'del' : 'strong') : 'em';
    return [{ type, children: inline(source.slice(from, end), depth + 1) }, end + delimiter.length];
  }
  missing.add(delimiter);
  return null;
}

function readLink(source, at, depth) {
  let level = 1;
  let end = at;
  const limit = Math.min(source.length, at + MAX_LABEL) - 1;
  while (level > 0 && end < limit) {
    end += 1;
    if (source[end] === '\\') end += 1;
    else if (source[end] === '[') level += 1;
    else if (source[end] === ']') level -= 1;
  }
  if (level > 0) return null;
  if (source[end + 1] !== '(') return null;
  const target = /^\(\s*<?((?:[^\s()<>]|\([^\s()<>]*\))*)>?(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/.exec(source.slice(end + 1, end + 2050));
  if (!target) return null;
  const children = inline(source.slice(at + 1, end), depth + 1);
  const after = end + 1 + target[0].length;
  const href = safeUrl(target[1]);
  return href ? [{ type: 'link', href, children }, after] : [{ type: 'span', children }, after];
}

function readBareUrl(source, at) {
  if (/[\p{L}\p{N}]/u.test(source[at - 1] ?? '')) return null;
  BARE_URL.lastIndex = at;
  let url = BARE_URL.exec(source)?.[0].replace(/[.,:;!?'"*_~\]]+$/, '');
  if (!url) return null;
  while (url.endsWith(')') && url.split(')').length > url.split('(').length) url = url.slice(0, -1);
  const href = safeUrl(url);
  return href ? [{ type: 'link', href, children: [{ type: 'text', text: url }] }, at + url.length] : null;
}

function readAngleUrl(source, at) {
  const match = /^<(https?:\/\/[^\s<>]+)>/i.exec(source.slice(at, at + 2050));
  const href = match && safeUrl(match[1]);
  return href ? [{ type: 'link', href, children: [{ type: 'text', text: match[1] }] }, at + match[0].length] : null;
}

/** The URL, normalised, if its scheme is http or https; else null. */
export function safeUrl(text) {
  if (!/^https?:\/\//i.test(text) || !URL.canParse(text)) return null;
  return new URL(text).href;
}

const TAGS = { strong: 'strong', em: 'em', del: 'del', span: 'span', paragraph: 'p', quote: 'blockquote' };

function element(doc, tag, className, children = []) {
  const node = doc.createElement(tag);
  if (className) node.className = className;
  for (const child of children) node.append(child);
  return node;
}

/** DOM nodes for parsed blocks or inline nodes. */
export function render(nodes, doc) {
  return nodes.map((node) => renderOne(node, doc));
}

function renderOne(node, doc) {
  switch (node.type) {
    case 'text': return doc.createTextNode(node.text);
    case 'break': return doc.createElement('br');
    case 'rule': return doc.createElement('hr');
    case 'heading': return element(doc, `h${Math.min(6, node.level + 2)}`, '', render(node.children, doc));
    case 'link': {
      const link = element(doc, 'a', '', render(node.children, doc));
      link.setAttribute('href', node.href);
      link.setAttribute('rel', 'noopener noreferrer nofollow');
      link.setAttribute('target', '_blank');
      return link;
    }
    case 'code': return node.raw === undefined ? element(doc, 'code', '', [node.text]) : renderCodeBlock(node, doc);
    case 'list': return renderList(node, doc);
    case 'table': return renderTable(node, doc);
    default: return element(doc, TAGS[node.type], '', render(node.children, doc));
  }
}

function renderCodeBlock(node, doc) {
  const copy = element(doc, 'button', 'copy', ['Copy']);
  copy.setAttribute('type', 'button');
  copy.setAttribute('aria-label', node.language ? `Copy ${node.language} code` : 'Copy code');
  const pre = element(doc, 'pre', '', [element(doc, 'code', '', [node.text])]);
  pre.setAttribute('tabindex', '0');
  return element(doc, 'div', 'code', [element(doc, 'div', 'code-head', [element(doc, 'span', '', [node.language || 'text']), copy]), pre]);
}

function renderList(node, doc) {
  const list = doc.createElement(node.ordered ? 'ol' : 'ul');
  if (node.ordered && node.start !== 1) list.setAttribute('start', String(node.start));
  for (const blocks of node.items) {
    const tight = blocks.length > 0 && blocks[0].type === 'paragraph';
    const children = tight ? [...render(blocks[0].children, doc), ...render(blocks.slice(1), doc)] : render(blocks, doc);
    list.append(element(doc, 'li', '', children));
  }
  return list;
}

function renderTable(node, doc) {
  const row = (cellsOfRow, tag) => element(doc, 'tr', '', cellsOfRow.map((cell, column) =>
    element(doc, tag, node.align[column] === 'left' ? '' : node.align[column], render(cell, doc))));
  const head = element(doc, 'thead', '', [row(node.head, 'th')]);
  const body = element(doc, 'tbody', '', node.rows.map((cellsOfRow) => row(cellsOfRow, 'td')));
  return element(doc, 'div', 'table', [element(doc, 'table', '', [head, body])]);
}

const shown = new WeakMap();

/** Shows `text` in `container`, leaving the nodes of unchanged leading blocks alone (cheap while streaming; a selection stays). */
export function update(container, text, doc) {
  const blocks = parse(text);
  const before = shown.get(container) ?? [];
  let same = 0;
  while (same < before.length && same < blocks.length && before[same] === blocks[same].raw) same += 1;
  while (container.childNodes.length > same) container.lastChild.remove();
  container.append(...render(blocks.slice(same), doc));
  shown.set(container, blocks.map((block) => block.raw));
}
