// One-time code against cookie. The cookie is HttpOnly: the page never sees, keeps or sends a credential itself.

export const CURE = 'Run the gateway\'s command "open" on its machine to print a new link.';

/** True or false; null when the gateway cannot be asked. */
export async function isSignedIn(base) {
  const response = await ask(`${base}/auth/session`, {});
  if (!response || response.status >= 500) return null;
  return response.ok;
}

/** {ok: true} with the cookie set, or {problem, cure, unreachable?}. */
export async function exchange(base, code) {
  const response = await ask(`${base}/auth/exchange`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ code }) });
  if (!response) return { unreachable: true, problem: 'The gateway cannot be reached', cure: 'Start it with its command "run", then try again; the code is still here.' };
  if (response.ok) return { ok: true };
  if (response.status === 429) {
    const wait = response.headers.get('retry-after');
    return { problem: 'Too many tries', cure: `Wait ${wait ? `${wait} seconds` : 'a few minutes'}, then try again.` };
  }
  const said = /json/.test(response.headers.get('content-type') ?? '') ? (await response.json()).error?.message : null;
  const [problem, ...cure] = (said ?? 'this code was used or has expired').split('; ');
  return { problem: sentence(problem), cure: cure.length ? `${sentence(cure.join('; '))}.` : CURE };
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1);

async function ask(url, options) {
  try {
    return await fetch(url, { credentials: 'same-origin', cache: 'no-store', ...options });
  } catch (error) {
    if (error instanceof TypeError) return null; // what fetch throws for every network failure
    throw error;
  }
}
