"""The published reference client over TLS: it pins the certificate by its fingerprint."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.reference_client import reference_client
from tests.support.certificates import Issued
from tests.support.gateway import StartGateway

pytestmark = pytest.mark.requires("node24", "gateway-client")


async def test_the_printed_fingerprint_is_what_it_pins_and_another_keeps_it_out(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway({"gateway": {"tls": {"enabled": True}}}, home=tmp_path / "state")
    pin = gateway.ready["tlsFingerprint"]
    async with reference_client(gateway.ws_url, token=gateway.token, tlsFingerprint=pin) as client:
        await client.wait("hello")
        assert (await client.request("status"))["tls"]["fingerprint"] == pin
        answer = await client.request("chat.send", {"sessionKey": "main", "message": "hello", "idempotencyKey": "k"})
        assert answer["runId"] == "k"
        await client.event("chat", lambda payload: payload["state"] == "final")
    async with reference_client(gateway.ws_url, token=gateway.token, tlsFingerprint=Issued.make().fingerprint) as client:
        told = await client.wait("connectError")
        assert "fingerprint mismatch" in told["error"]["message"]
        assert "hello" not in client.kinds()
