import assert from 'node:assert/strict';
import test from 'node:test';
import { exchange, isSignedIn } from '../../../../channels/openclaw_channels/webchat/static/signin.js';

function answering(context, status, body, headers = {}) {
  const asked = [];
  context.mock.method(globalThis, 'fetch', async (url, options) => {
    asked.push([url, options]);
    if (status === null) throw new TypeError('Failed to fetch');
    return new Response(body === undefined ? '' : JSON.stringify(body), { status, headers: { 'content-type': body === undefined ? 'text/plain' : 'application/json', ...headers } });
  });
  return asked;
}

test('the code goes into the body, never into the address', async (context) => {
  const asked = answering(context, 200, { authenticated: true });
  assert.deepEqual(await exchange('/base', 'SECRET'), { ok: true });
  const [[url, { method, headers, body }]] = asked;
  assert.deepEqual([url, method, headers['content-type'], body], ['/base/auth/exchange', 'POST', 'application/json', '{"code":"SECRET"}']);
});

test('each refusal names the cure', async (context) => {
  for (const [status, body, headers, problem, cure] of [
    [401, { error: { message: 'this code was used or has expired; run openclaw-kernel open' } }, {}, /^This code was used or has expired$/, /^Run openclaw-kernel open\.$/],
    [403, { error: { message: 'origin x is not ours' } }, {}, /^Origin x/, /command "open"/],
    [410, undefined, {}, /used or has expired/, /command "open"/],
    [429, { error: { message: 'x' } }, { 'retry-after': '42' }, /Too many tries/, /Wait 42 seconds/],
    [null, undefined, {}, /cannot be reached/, /command "run"/],
  ]) {
    answering(context, status, body, headers);
    const result = await exchange('', 'X');
    assert.match(result.problem, problem);
    assert.match(result.cure, cure);
    context.mock.restoreAll();
  }
});

test('a gateway that is away or unwell says nothing about the cookie', async (context) => {
  for (const [status, expected] of [[200, true], [401, false], [503, null], [null, null]]) {
    answering(context, status, { authenticated: status === 200 });
    assert.equal(await isSignedIn(''), expected);
    context.mock.restoreAll();
  }
});
