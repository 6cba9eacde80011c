// The published reference client, driven over stdin and stdout, one JSON object a line.
//
// First line in: the client's options; `deviceFile` gives it a device that is kept there. Then: {op:"request", id, method, params, expectFinal, timeoutMs}, {op:"stop"}.
// Lines out: hello, event, gap, closed, connectError, paused, accepted and answer, each as {kind, ...}.
import { createInterface } from "node:readline";
import { GatewayClient } from "@openclaw/gateway-client";
import { deviceHost } from "./device_host.mjs";

const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const described = (error) => ({
  name: error.name,
  message: error.message,
  code: error.gatewayCode ?? error.code,
  details: error.details,
  retryable: error.retryable,
});

async function request(client, { id, method, params, expectFinal, timeoutMs }) {
  const options = { expectFinal, timeoutMs, onAccepted: (payload) => tell({ kind: "accepted", id, payload }) };
  try {
    tell({ kind: "answer", id, ok: true, payload: await client.request(method, params, options) });
  } catch (error) {
    tell({ kind: "answer", id, ok: false, error: described(error) });
  }
}

const lines = createInterface({ input: process.stdin });
let client;

lines.on("line", (line) => {
  const wish = JSON.parse(line);
  if (client === undefined) {
    const { deviceFile, ...options } = wish;
    client = new GatewayClient({
      ...options,
      ...(deviceFile ? { deviceIdentity: undefined, hostDeps: deviceHost(deviceFile) } : {}),
      onHelloOk: (hello) => tell({ kind: "hello", hello }),
      onEvent: (frame) => tell({ kind: "event", frame }),
      onGap: (gap) => tell({ kind: "gap", ...gap }),
      onClose: (code, reason) => tell({ kind: "closed", code, reason }),
      onConnectError: (error) => tell({ kind: "connectError", error: described(error) }),
      onReconnectPaused: (info) => tell({ kind: "paused", ...info }),
    });
    client.start();
  } else if (wish.op === "request") {
    request(client, wish);
  }
});

lines.on("close", async () => {
  await client?.stopAndWait();
  process.exit(0);
});
