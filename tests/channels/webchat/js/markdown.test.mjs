import assert from 'node:assert/strict';
import test from 'node:test';
import { inline, parse, render, safeUrl, update } from '../../../../channels/openclaw_channels/webchat/static/markdown.js';
import { FakeDocument } from './fakes.mjs';

const types = (text) => parse(text).map(({ type }) => type);
const words = (node) => node.text ?? node.children?.map(words).join('') ?? '';
const html = (text) => render(parse(text), new FakeDocument()).map(String).join('');

test('blocks are told apart', () => {
  const text = '# Title\n\nwords\nmore words\n\n- one\n- two\n\n> said\n\n---\n\n```js\nlet a;\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |';
  assert.deepEqual(types(text), ['heading', 'paragraph', 'list', 'quote', 'rule', 'code', 'table']);
});

test('a fence keeps its text as it is, closed or still being written', () => {
  const [closed] = parse('```python\nif a < b:\n    print("*x*")\n```');
  assert.deepEqual([closed.language, closed.text, closed.closed], ['python', 'if a < b:\n    print("*x*")', true]);
  const [open] = parse('````\n```\nstill code');
  assert.deepEqual([open.text, open.closed], ['```\nstill code', false]);
});

test('lists nest, keep their first number, and hold fences', () => {
  const [list] = parse('3. three\n   - inner\n   - more\n4. four\n\n   ```\n   code\n   ```\n5. five');
  assert.equal(list.start, 3);
  assert.equal(list.items.length, 3);
  assert.deepEqual(list.items[0].map(({ type }) => type), ['paragraph', 'list']);
  assert.deepEqual(list.items[1].map(({ type }) => type), ['paragraph', 'code']);
  assert.equal(list.items[1][1].text, 'code');
});

test('a blank line between items does not end the list, a paragraph does', () => {
  assert.deepEqual(types('- a\n\n- b\n\nafter'), ['list', 'paragraph']);
  assert.equal(parse('- a\n\n- b')[0].items.length, 2);
});

test('a table knows its alignment and fills short rows', () => {
  const [table] = parse('| a | b | c |\n|:--|:-:|--:|\n| 1 | x\\|y |');
  assert.deepEqual(table.align, ['left', 'center', 'right']);
  assert.equal(words(table.rows[0][1][0]), 'x|y');
  assert.equal(table.rows[0].length, 3);
});

test('emphasis needs a partner, and underscores inside a word are letters', () => {
  assert.deepEqual(inline('**bold** and *slanted*').map(({ type }) => type), ['strong', 'text', 'em']);
  assert.deepEqual(inline('snake_case_name 2 * 3 * 4 **open').map(({ type }) => type), ['text']);
  assert.deepEqual(inline('***both***').map(({ type, children }) => [type, children[0].type]), [['strong', 'em']]);
  assert.equal(html('*a **b** c*'), '<p><em>a <strong>b</strong> c</em></p>');
  assert.equal(html('~~gone~~ ~here~'), '<p><del>gone</del> ~here~</p>');
});

test('inline code wins over emphasis and keeps backticks within longer runs', () => {
  assert.equal(html('`*a*` ``b`c``'), '<p><code>*a*</code> <code>b`c</code></p>');
});

test('a backslash takes the meaning from a mark', () => {
  assert.equal(html('\\*not slanted\\*'), '<p>*not slanted*</p>');
});

test('only http and https become links', () => {
  for (const bad of ['javascript:alert(1)', 'JaVaScRiPt:alert(1)', 'data:text/html,x', 'file:///etc/passwd', '//host/path', 'mailto:a@b', 'http:// x', ' javascript:x']) {
    assert.equal(safeUrl(bad), null, bad);
    assert.ok(!html(`[text](${bad})`).includes('<a'), bad);
  }
  assert.equal(html('[a](https://example.org/x_(y))'), '<p><a href="https://example.org/x_(y)" rel="noopener noreferrer nofollow" target="_blank">a</a></p>');
});

test('a bare address is a link without the punctuation that follows it', () => {
  const [, link, rest] = inline('see https://example.org/a_b (or not).'.replace(' (or', '. (or'));
  assert.equal(link.href, 'https://example.org/a_b');
  assert.equal(rest.text, '. (or not).');
  assert.equal(inline('(https://example.org/a)')[1].href, 'https://example.org/a');
});

test('markup in the text stays text', () => {
  const text = '<img src=x onerror=alert(1)> <script>alert(1)</script> `<b>`';
  const nodes = render(parse(text), new FakeDocument());
  assert.equal(nodes[0].textContent, text.replaceAll('`', ''));
  assert.deepEqual(nodes[0].tags(), ['p', 'code']);
});

test('an image from elsewhere is shown as a link, never loaded', () => {
  const tags = render(parse('![a cat](https://example.org/cat.png)'), new FakeDocument())[0].tags();
  assert.deepEqual(tags, ['p', 'a']);
});

test('a code block has a button that says what it copies', () => {
  const [block] = render(parse('```sql\nselect 1\n```'), new FakeDocument());
  const copy = block.find('button');
  assert.equal(copy.attributes['aria-label'], 'Copy sql code');
  assert.equal(block.find('pre').textContent, 'select 1');
});

test('while text grows, nodes of finished blocks stay the same nodes', () => {
  const doc = new FakeDocument();
  const container = doc.createElement('div');
  update(container, 'first\n\nsec', doc);
  const [first, second] = container.childNodes;
  update(container, 'first\n\nsecond\n\n- third', doc);
  assert.equal(container.childNodes[0], first);
  assert.notEqual(container.childNodes[1], second);
  assert.equal(container.textContent, 'firstsecondthird');
  update(container, 'other', doc);
  assert.equal(container.textContent, 'other');
});

test('hostile text is read in bounded steps', { timeout: 10000 }, () => {
  for (const text of ['*'.repeat(40000), '['.repeat(40000), '`'.repeat(20000) + 'a', '*a '.repeat(100000), '[a]('.repeat(20000), '> '.repeat(5000), '- '.repeat(5000), '_a'.repeat(20000), '**a*'.repeat(5000), '|'.repeat(20000)]) parse(text);
});
