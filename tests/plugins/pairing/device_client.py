"""A device with a real key, connecting over a real socket."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from openclaw_kernel.protocol.connect import ConnectParams
from openclaw_kernel.protocol.device import signed_texts
from tests.support.ws_client import Identity, RequestFailed, WsClient


@dataclass
class Device:
    """A device: its key, what it says of itself, and the token it was given last."""

    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    client: tuple[str, str] = ("cli", "cli")
    platform: str = "linux"
    family: str | None = None
    token: str | None = None
    surface: dict[str, Any] = field(default_factory=dict)
    """What it declares as a node."""

    @property
    def id(self) -> str:
        """The device's id."""
        return hashlib.sha256(self.key.public_key().public_bytes_raw()).hexdigest()

    def identity(self, client: WsClient, *, role: str = "operator", scopes: Sequence[str] | None = ("operator.read",)) -> Identity:
        """Who this device is on a connection, proved with what the gateway challenged it with."""
        return _Proving(self, client, role, scopes, (4, 4))

    @asynccontextmanager
    async def connect(
        self,
        url: str,
        *,
        auth: Mapping[str, str],
        scopes: Sequence[str] | None = ("operator.read",),
        role: str = "operator",
        headers: Mapping[str, str] | None = None,
        protocol: tuple[int, int] = (4, 4),
    ) -> AsyncIterator[WsClient]:
        """A client that has shaken hands; raise `RequestFailed` where it was refused."""
        async with WsClient.open(url, headers=headers) as client:
            identity = _Proving(self, client, role, scopes, protocol)
            hello = await client.handshake(auth=auth, identity=identity)
            self.token = hello["auth"].get("deviceToken", self.token)
            yield client

    async def refused(self, url: str, **more: Any) -> tuple[RequestFailed, int | None, str]:
        """Connect and be refused: the error, and code and reason of the close."""
        async with WsClient.open(url, headers=more.pop("headers", None)) as client:
            role, scopes = more.pop("role", "operator"), more.pop("scopes", ("operator.read",))
            identity = _Proving(self, client, role, scopes, more.pop("protocol", (4, 4)))
            try:
                hello = await client.handshake(auth=more.pop("auth"), identity=identity)
            except RequestFailed as failed:
                ended = await client.closed()
                return failed, ended.code, ended.reason
            raise AssertionError(f"the device was let in: {hello['auth']}")


class _Proving(Identity):
    """Signs the challenge of one connection."""

    def __init__(self, device: Device, client: WsClient, role: str, scopes: Sequence[str] | None, protocol: tuple[int, int]) -> None:
        super().__init__(id=device.client[0], mode=device.client[1], platform=device.platform, role=role)
        object.__setattr__(self, "_rest", (device, client, scopes, protocol))

    def params(self, auth: Mapping[str, Any]) -> dict[str, Any]:
        """Connect params with the proof."""
        device, client, scopes, (low, high) = self.__dict__["_rest"]
        params = super().params(auth)
        params |= {"minProtocol": low, "maxProtocol": high}
        params |= device.surface
        params["client"] |= {} if device.family is None else {"deviceFamily": device.family}
        del params["scopes"]
        if scopes is not None:
            params["scopes"] = list(scopes)
        raw = device.key.public_key().public_bytes_raw()
        nonce = client.challenge["payload"]["nonce"]
        signed_at = time.time_ns() // 1_000_000
        params["device"] = {"id": device.id, "publicKey": _encode(raw), "signature": "x", "signedAt": signed_at, "nonce": nonce}
        model = ConnectParams.model_validate(params)
        assert model.device is not None
        newer, _ = signed_texts(model, model.device)
        params["device"]["signature"] = _encode(device.key.sign(newer.encode()))
        return params


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
