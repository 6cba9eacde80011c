// What a program that uses the reference client brings along: a key of its own, and a file for the tokens it is given.
import { createHash, generateKeyPairSync, createPrivateKey, createPublicKey, sign } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";

const rawKey = (pem) => createPublicKey(pem).export({ type: "spki", format: "der" }).subarray(-32);

export function deviceHost(file) {
  const read = () => (existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : { tokens: {} });
  const write = (state) => writeFileSync(file, JSON.stringify(state));

  function loadOrCreateDeviceIdentity() {
    const state = read();
    if (!state.privateKeyPem) {
      state.privateKeyPem = generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" });
      write(state);
    }
    const publicKeyPem = createPublicKey(state.privateKeyPem).export({ type: "spki", format: "pem" });
    const deviceId = createHash("sha256").update(rawKey(publicKeyPem)).digest("hex");
    return { deviceId, publicKeyPem, privateKeyPem: state.privateKeyPem };
  }

  return {
    loadOrCreateDeviceIdentity,
    signDevicePayload: (pem, payload) => sign(null, Buffer.from(payload), createPrivateKey(pem)).toString("base64url"),
    publicKeyRawBase64UrlFromPem: (pem) => rawKey(pem).toString("base64url"),
    loadDeviceAuthToken: ({ role }) => read().tokens[role] ?? null,
    storeDeviceAuthToken: ({ role, token, scopes }) => {
      const state = read();
      state.tokens[role] = { token, scopes };
      write(state);
    },
    clearDeviceAuthToken: ({ role }) => {
      const state = read();
      delete state.tokens[role];
      write(state);
    },
  };
}
