"""Handshakes and sessions as transcripts: frames in, actions out, a clock that only the test moves."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from openclaw_config.models import GatewayAuth
from openclaw_kernel.protocol.auth import Verifier
from openclaw_kernel.protocol.connect import ConnectParams
from openclaw_kernel.protocol.device import signed_texts
from openclaw_kernel.protocol.handshake import Accept, Action, Close, Delay, Handshake, Peer, Phase, Send
from openclaw_kernel.protocol.limiter import FailureLimiter

TOKEN = "the-shared-token"
NONCE = "nonce-1"
LOCAL = Peer(address="127.0.0.1", direct_local=True)
REMOTE = Peer(address="203.0.113.9", direct_local=False)


class Clock:
    """Unix milliseconds that stand still."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now


class Gate:
    """What every handshake of one gateway shares."""

    def __init__(self, *, mode: str = "token", phase: Phase = Phase.SERVING, secret: str | None = TOKEN) -> None:
        auth = {"mode": mode} | ({} if mode == "none" or secret is None else {mode: secret})
        self.clock = Clock()
        self.phase = phase
        self.verifier = Verifier(GatewayAuth.model_validate(auth), FailureLimiter())

    def handshake(self, peer: Peer = LOCAL) -> Handshake:
        """A new connection."""
        return Handshake(peer=peer, verifier=self.verifier, phase=lambda: self.phase, now_ms=self.clock, nonce=NONCE)

    def connect(self, params: dict[str, Any], peer: Peer = LOCAL) -> list[Action]:
        """A whole handshake with these connect params."""
        handshake = self.handshake(peer)
        handshake.open()
        return handshake.receive(request("connect", params))


def request(method: str, params: Any = None, request_id: str = "1") -> str:
    """A request frame."""
    frame: dict[str, Any] = {"type": "req", "id": request_id, "method": method}
    return json.dumps(frame if params is None else frame | {"params": params})


def connect_params(client: str = "cli", mode: str = "cli", /, **more: Any) -> dict[str, Any]:
    """Connect params of a native client with the right token; `more` replaces."""
    base: dict[str, Any] = {
        "minProtocol": 4,
        "maxProtocol": 4,
        "client": {"id": client, "version": "1.0", "platform": "linux", "mode": mode},
        "scopes": ["operator.admin"],
        "auth": {"token": TOKEN},
    }
    return base | more


def signed_params(gate: Gate, *, version: int = 3, nonce: str = NONCE, **more: Any) -> dict[str, Any]:
    """Connect params with a device proof that is right in every part."""
    key = Ed25519PrivateKey.generate()
    raw = key.public_key().public_bytes_raw()
    params = connect_params(**more)
    params["device"] = {
        "id": hashlib.sha256(raw).hexdigest(),
        "publicKey": encode(raw),
        "signature": "x",
        "signedAt": gate.clock(),
        "nonce": nonce,
    }
    model = ConnectParams.model_validate(params)
    assert model.device is not None
    newer, older = signed_texts(model, model.device)
    params["device"]["signature"] = encode(key.sign((newer if version == 3 else older).encode()))
    return params


def encode(raw: bytes) -> str:
    """Unpadded base64url."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def accepted(actions: list[Action]) -> Accept:
    """The one action of a handshake that went well."""
    assert len(actions) == 1, actions
    assert isinstance(actions[0], Accept)
    return actions[0]


def refused(actions: list[Action]) -> tuple[dict[str, Any], Close]:
    """Error and close of a refusal, whatever was held back before."""
    sends = [action for action in actions if not isinstance(action, Delay)]
    assert len(sends) == 2, actions
    frame, close = sends
    assert isinstance(frame, Send)
    assert isinstance(close, Close)
    response = json.loads(frame.frame)
    assert response["ok"] is False
    return response["error"], close
