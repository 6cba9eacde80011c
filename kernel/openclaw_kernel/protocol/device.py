"""The device proof: an Ed25519 signature that binds key, client, role, scopes, credential and challenge."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from typing import Final, final

from openclaw_kernel.protocol.connect import ConnectParams, DeviceProof

MAX_SKEW_MS: Final = 120_000
_RAW_KEY_BYTES: Final = 32

CODES: Final = {
    "device-id-mismatch": "DEVICE_AUTH_DEVICE_ID_MISMATCH",
    "device-signature-stale": "DEVICE_AUTH_SIGNATURE_EXPIRED",
    "device-nonce-missing": "DEVICE_AUTH_NONCE_REQUIRED",
    "device-nonce-mismatch": "DEVICE_AUTH_NONCE_MISMATCH",
    "device-signature": "DEVICE_AUTH_SIGNATURE_INVALID",
    "device-public-key": "DEVICE_AUTH_PUBLIC_KEY_INVALID",
}
"""`details.reason` to `details.code`."""


_MINT: Final = object()


@final
@dataclass(frozen=True, slots=True)
class Proven:
    """A device that showed its key; only `prove` makes it. `id` is the SHA-256 of the raw key, `public_key` the key in base64url."""

    id: str
    public_key: str
    mint: object = field(repr=False)

    def __post_init__(self) -> None:
        if self.mint is not _MINT:
            message = "only prove makes a Proven"
            raise TypeError(message)


def prove(params: ConnectParams, device: DeviceProof, *, nonce: str, now_ms: int) -> Proven | str:
    """Check in the protocol's order; return the device, or the reason of the first failure (a key of `CODES`)."""
    raw = _raw_public_key(device.public_key)
    if raw is None:
        return "device-public-key"
    if hashlib.sha256(raw).hexdigest() != device.id:
        return "device-id-mismatch"
    if abs(now_ms - device.signed_at) > MAX_SKEW_MS:
        return "device-signature-stale"
    if not device.nonce.strip():
        return "device-nonce-missing"
    if device.nonce != nonce:
        return "device-nonce-mismatch"
    signature = _decode(device.signature)
    if signature is None or not _verified(raw, signature, params, device):
        return "device-signature"
    return Proven(device.id, base64.urlsafe_b64encode(raw).rstrip(b"=").decode(), _MINT)


def _verified(raw: bytes, signature: bytes, params: ConnectParams, device: DeviceProof) -> bool:
    # The library costs 30 ms to import and only clients with a device need it.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = Ed25519PublicKey.from_public_bytes(raw)
    for text in signed_texts(params, device):
        try:
            key.verify(signature, text.encode())
        except InvalidSignature:
            continue
        return True
    return False


def signed_texts(params: ConnectParams, device: DeviceProof) -> tuple[str, str]:
    """What version 3 and version 2 of the proof sign."""
    auth = params.auth
    token = auth.token or auth.device_token or auth.bootstrap_token or ""
    client = params.client
    common = [
        device.id,
        client.id,
        client.mode,
        params.role,
        ",".join(params.scopes or ()),
        str(device.signed_at),
        token,
        device.nonce,
    ]
    newer = [_plain(client.platform), _plain(client.device_family)]
    return "|".join(["v3", *common, *newer]), "|".join(["v2", *common])


def _plain(text: str | None) -> str:
    stripped = (text or "").strip()
    return "".join(letter.lower() if letter.isascii() else letter for letter in stripped)


def _raw_public_key(text: str) -> bytes | None:
    body = "".join(line for line in text.splitlines() if not line.startswith("-----")) if "-----BEGIN" in text else text
    decoded = _decode(body)
    if decoded is None:
        return None
    # A PEM key carries the raw 32 bytes at the end of its DER.
    if "-----BEGIN" in text:
        decoded = decoded[-_RAW_KEY_BYTES:]
    return decoded if len(decoded) == _RAW_KEY_BYTES else None


def _decode(text: str) -> bytes | None:
    normal = text.strip().replace("+", "-").replace("/", "_").rstrip("=")
    try:
        return base64.b64decode(normal + "=" * (-len(normal) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
