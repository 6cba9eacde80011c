// A channel for openclaw-kernel in plain Node: people connect by TCP, say who they are, and talk in lines.
//
//   client: HELLO ann                 client: SAY 1 good morning          client: GOT m7
//   server: WELCOME ann               server: TAKEN 1                     (and is not told m7 again)
//                                     server: MSG m7 "good morning"
//
// SAY carries an id of the client's own. TAKEN comes only after the gateway has the message on disk: a client that was cut
// off before says it again, and the gateway knows a repeat by its id. MSG comes as JSON text in one line.
// docs/children.md of openclaw-kernel is the contract of what is spoken over stdin and stdout.

import { createServer } from 'node:net';
import { createInterface } from 'node:readline';

const LONGEST_LINE = 8192; // characters
const MOST_CLIENTS = 100;
const PAUSE_MS = 250;
// Who may write is the gateway's to decide, by keys of the same section.
const GATEWAYS_KEYS = new Set(['dmPolicy', 'allowFrom', 'groupPolicy', 'groupAllowFrom', 'groups', 'unknownAfterSend']);
const [BUSY, BROKEN_OFF, CONFIG_REJECTED, SEND_FAILED, UNAVAILABLE] = [-32000, -32001, -32003, -32004, -32005];

class RpcError extends Error {
  constructor(code, message, data) {
    super(message);
    this.code = code;
    this.data = data;
  }
}

// --- the gateway's end ---------------------------------------------------------------------------------------------------

const asked = new Map();
const cancels = new Map(); // what breaks a request off, by its id
let lastId = 0;

function write(message) {
  process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);
}

function ask(method, params) {
  return new Promise((resolve, reject) => {
    lastId += 1;
    asked.set(lastId, { resolve, reject });
    write({ id: lastId, method, params });
  });
}

async function take(line) {
  const { id, method, params = {}, result, error } = JSON.parse(line);
  if (method === undefined) {
    const waiting = asked.get(id);
    asked.delete(id);
    if (error) waiting?.reject(new RpcError(error.code, error.message, error.data));
    else waiting?.resolve(result);
  } else if (id !== undefined) {
    try {
      if (!Object.hasOwn(requests, method)) throw new RpcError(-32601, `there is no method ${method}`);
      const cancelled = new Promise((resolve) => cancels.set(id, resolve));
      write({ id, result: (await requests[method](params, cancelled)) ?? {} });
    } catch (failure) {
      const { code = -32603, message, data } = failure;
      write({ id, error: { code: typeof code === 'number' ? code : -32603, message, data } });
    } finally {
      cancels.delete(id);
    }
  } else if (method === 'cancel') {
    cancels.get(params.id)?.('cancelled');
  }
}

// --- the channel ---------------------------------------------------------------------------------------------------------

let settings = { host: '127.0.0.1', port: 0 };
let server = null;
let lastInboundAt = null;
let lastError = null;
const sockets = new Set(); // also of those who gave no name yet
const clients = new Map(); // by the name that each gave last

const requests = {
  initialize({ protocol, settings: given }) {
    if (protocol !== 1) throw new RpcError(-32602, `this program speaks version 1 of the contract, not ${protocol}`);
    const { host = settings.host, port, ...unknown } = given;
    const key = Object.keys(unknown).find((each) => !GATEWAYS_KEYS.has(each));
    if (key !== undefined) reject(key, 'is not a setting', 'remove it');
    if (!Number.isInteger(port) || port < 1 || port > 65535) reject('port', `found ${JSON.stringify(port)}`, 'give a port from 1 to 65535');
    if (typeof host !== 'string') reject('host', `found ${JSON.stringify(host)}`, 'give an address of this machine');
    settings = { host, port };
    return { protocol: 1, name: 'lines', version: '1.0.0' };
  },
  register: () => ({ channels: [{ id: 'lines', label: 'Lines', capabilities: { groups: false } }] }),
  start() {},
  stop() {},
  ping() {},
  'channel.start': () => listen(),
  'channel.stop': () => close(),
  'channel.send': ({ message }, cancelled) => send(message, cancelled),
};

function reject(key, found, cure) {
  throw new RpcError(CONFIG_REJECTED, `${key}: ${found}`, { key: `channels.lines.${key}`, found, cure });
}

function listen() {
  return new Promise((resolve, refuse) => {
    server = createServer((socket) => serve(socket));
    server.maxConnections = MOST_CLIENTS;
    server.once('error', (error) => {
      server = null;
      tell(error.message);
      refuse(new RpcError(-32002, `cannot listen on ${settings.host}:${settings.port} (${error.code})`));
    });
    server.listen(settings.port, settings.host, () => {
      tell(null);
      resolve({});
    });
  });
}

function close() {
  const closing = server;
  server = null;
  for (const socket of sockets) socket.destroy();
  tell(lastError);
  return new Promise((resolve) => (closing ? closing.close(() => resolve({})) : resolve({})));
}

function tell(error) {
  lastError = error;
  const running = server !== null;
  const account = { accountId: 'default', running, connected: running, detail: `${settings.host}:${settings.port}` };
  const more = { ...(error && { lastError: error }), ...(lastInboundAt && { lastInboundAt }) };
  write({ method: 'channel.status', params: { channel: 'lines', accounts: [{ ...account, ...more }] } });
}

function serve(socket) {
  let name = null;
  let unended = 0;
  sockets.add(socket);
  socket.setEncoding('utf8');
  socket.on('error', () => socket.destroy());
  // Before the lines are put together: one that never ends must not fill the memory.
  socket.on('data', (text) => {
    const end = text.lastIndexOf('\n');
    unended = end < 0 ? unended + text.length : text.length - end - 1;
    if (unended > LONGEST_LINE) socket.destroy();
  });
  const lines = createInterface({ input: socket });
  let work = Promise.resolve();
  let waiting = 0;
  lines.on('line', (line) => {
    if (line.length > LONGEST_LINE) return socket.destroy();
    // One after the other, and no more is read of who has much waiting.
    waiting += 1;
    if (waiting > 50) lines.pause();
    work = work.then(() => hear(line)).finally(() => {
      waiting -= 1;
      if (waiting < 10) lines.resume();
    });
  });
  socket.on('close', () => {
    sockets.delete(socket);
    leave();
  });

  function leave() {
    if (clients.get(name)?.socket === socket) clients.delete(name);
  }

  async function hear(line) {
    const [, verb, first, rest = ''] = /^(\w+) (\S+)(?: (.*))?$/.exec(line) ?? [];
    if (verb === 'HELLO') {
      leave();
      name = first;
      clients.get(name)?.socket.destroy();
      clients.set(name, { socket, got: new Map() });
      socket.write(`WELCOME ${name}\n`);
    } else if (verb === 'SAY' && name !== null) {
      if (await accept(name, first, rest)) socket.write(`TAKEN ${first}\n`);
    } else if (verb === 'GOT' && name !== null) {
      clients.get(name)?.got.get(first)?.();
    } else {
      socket.write('WHAT?\n');
    }
  }
}

async function accept(name, id, text) {
  const target = { channel: 'lines', accountId: 'default', peerKind: 'direct', peerId: name };
  const message = { target, messageId: `${name}:${id}`, senderId: name, senderName: name, text, timestampMs: Date.now(), mentioned: true };
  for (;;) {
    try {
      await ask('channel.accept', { message });
      lastInboundAt = Date.now();
      tell(null);
      return true;
    } catch (error) {
      if (error.code !== BUSY && error.code !== UNAVAILABLE) {
        log('error', `a line of ${name} was refused: ${error.message}`);
        return false;
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}

async function send({ target, outboxId, text = '' }, cancelled) {
  const client = clients.get(target.peerId);
  if (client === undefined) throw new RpcError(SEND_FAILED, `${target.peerId} is not connected`, { retryAfter: 1 });
  const got = new Promise((resolve) => client.got.set(outboxId, () => resolve('got')));
  let leave;
  const gone = new Promise((resolve) => client.socket.once('close', (leave = () => resolve('gone'))));
  client.socket.write(`MSG ${outboxId} ${JSON.stringify(text)}\n`);
  const became = await Promise.race([got, gone, cancelled]);
  client.got.delete(outboxId);
  client.socket.off('close', leave);
  if (became === 'cancelled') throw new RpcError(BROKEN_OFF, 'broken off');
  // Whether it was read before the connection ended nobody knows.
  if (became === 'gone') throw new RpcError(SEND_FAILED, `${target.peerId} has gone`, { unknown: true });
  return { messageIds: [outboxId] };
}

function log(level, message) {
  write({ method: 'log', params: { level, message } });
}

const input = createInterface({ input: process.stdin });
input.on('line', take);
input.on('close', () => process.exit(0));
