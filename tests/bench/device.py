"""A device that proves its key in each handshake."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class Device:
    """A key, and the token that the gateway gave for it; without one yet, the gateway's own secret."""

    def __init__(self, secret: str) -> None:
        self._key = Ed25519PrivateKey.generate()
        self._public = self._key.public_key().public_bytes_raw()
        self._auth = {"token": secret}

    def proof(self, connect: dict[str, Any], challenge: str) -> dict[str, Any]:
        """Connect params with the signature over the challenge, as version 3 of the proof has it."""
        nonce = json.loads(challenge)["payload"]["nonce"]
        client, scopes = connect["client"], connect["scopes"]
        identity, signed_at = hashlib.sha256(self._public).hexdigest(), time.time_ns() // 1_000_000
        fields = (identity, client["id"], client["mode"], "operator", ",".join(scopes), str(signed_at), self._auth["token"], nonce)
        text = "|".join(("v3", *fields, client["platform"], ""))
        device = {
            "id": identity,
            "publicKey": _encoded(self._public),
            "signature": _encoded(self._key.sign(text.encode())),
            "signedAt": signed_at,
            "nonce": nonce,
        }
        return connect | {"role": "operator", "auth": self._auth, "device": device}

    def admitted(self, answer: str) -> None:
        """Keep the token of a hello; raise `AssertionError` where it is a refusal."""
        frame = json.loads(answer)
        assert frame["ok"], frame
        token = frame["payload"]["auth"]["deviceToken"]
        self._auth = {"token": token, "deviceToken": token}


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
