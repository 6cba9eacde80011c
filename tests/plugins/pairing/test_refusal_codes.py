"""Every refusal that the protocol has for a device, as one transcript: what is sent, and code, reason and close of the answer."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from tests.kernel.protocol.transcript import REMOTE, accepted, refused, request
from tests.plugins.pairing.harness import READ, Gate, TestDevice, encode, opened

WRITE = ("operator.read", "operator.write")


@pytest_asyncio.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gate]:
    """A gateway that asks a person for every device."""
    async with opened(tmp_path, policy="ask") as opened_gate:
        yield opened_gate


async def told(gate: Gate, device: TestDevice, **more: Any) -> tuple[str, str, str, str, int]:
    """Code of the error, code of its details, reason, next step and close of a refusal."""
    error, close = refused(await gate.shake(device, REMOTE, **more))
    details = error["details"]
    reason = details.get("reason") or details.get("authReason", "")
    return error["code"], details["code"], reason, details.get("recommendedNextStep", ""), close.code


async def test_every_refusal_of_a_devices_proof(gate: Gate) -> None:
    now_ms, other = gate.clock(), TestDevice()
    flaws: dict[str, tuple[dict[str, Any], str]] = {
        "device-id-mismatch": ({"id": other.id}, "DEVICE_AUTH_DEVICE_ID_MISMATCH"),
        "device-signature-stale": ({"signedAt": now_ms - 120_001}, "DEVICE_AUTH_SIGNATURE_EXPIRED"),
        "device-nonce-missing": ({"nonce": " "}, "DEVICE_AUTH_NONCE_REQUIRED"),
        "device-nonce-mismatch": ({"nonce": "another"}, "DEVICE_AUTH_NONCE_MISMATCH"),
        "device-signature": ({"signature": encode(b"x" * 64)}, "DEVICE_AUTH_SIGNATURE_INVALID"),
        "device-public-key": ({"publicKey": base64.b64encode(b"short").decode()}, "DEVICE_AUTH_PUBLIC_KEY_INVALID"),
    }
    for reason, (proof, code) in flaws.items():
        assert await told(gate, TestDevice(), proof=proof) == ("INVALID_REQUEST", code, reason, "", 1008)


async def test_every_refusal_of_a_devices_credential(gate: Gate) -> None:
    device = TestDevice()
    waits = refused(await gate.shake(device, REMOTE, scopes=READ))[0]["details"]
    await gate.call("device.pair.approve", requestId=waits["requestId"])
    grant = accepted(await gate.shake(device, REMOTE, scopes=READ)).grant
    assert grant is not None

    def refusal(code: str, reason: str, step: str) -> tuple[str, str, str, str, int]:
        return "INVALID_REQUEST", code, reason, step, 1008

    credentials, review = "update_auth_credentials", "review_auth_configuration"
    assert await told(gate, device, auth={}) == refusal("AUTH_TOKEN_MISSING", "token_missing", "update_auth_configuration")
    assert await told(gate, device, auth={"token": "wrong"}) == refusal("AUTH_TOKEN_MISMATCH", "token_mismatch", "retry_with_device_token")
    assert await told(gate, device, auth={"token": "wrong", "password": "x"}) == refusal(
        "AUTH_TOKEN_MISMATCH", "token_mismatch", credentials
    )
    assert await told(gate, device, auth={"deviceToken": "wrong"}) == refusal(
        "AUTH_DEVICE_TOKEN_MISMATCH", "device_token_mismatch", credentials
    )
    assert await told(gate, device, auth={"bootstrapToken": "wrong"}) == refusal(
        "AUTH_BOOTSTRAP_TOKEN_INVALID", "bootstrap_token_invalid", review
    )
    await gate.call("device.token.rotate", deviceId=device.id, role="operator", scopes=[])
    assert await told(gate, device, auth={"deviceToken": grant.token}, scopes=READ) == refusal(
        "AUTH_SCOPE_MISMATCH", "scope_mismatch", review
    )
    for _ in range(10):
        await told(gate, device, auth={"deviceToken": "wrong"})
    assert await told(gate, device, auth={"deviceToken": grant.token}) == refusal("AUTH_RATE_LIMITED", "rate_limited", "wait_then_retry")


async def test_every_refusal_of_a_device_that_has_to_be_approved(gate: Gate) -> None:
    device, app = TestDevice(), ("gateway-client", "ui")

    async def waits(reason: str, **more: Any) -> None:
        error, close = refused(await gate.shake(device, REMOTE, client=app, **more))
        details = error["details"]
        assert (error["code"], details["code"], details["reason"]) == ("NOT_PAIRED", "PAIRING_REQUIRED", reason)
        assert (details["deviceId"], details["requestedRole"]) == (device.id, more.get("role", "operator"))
        assert details["requestedScopes"] == list(more.get("scopes", READ))
        assert (details["recommendedNextStep"], details["pauseReconnect"]) == ("wait_then_retry", False)
        assert ("approvedRoles" in details) is (reason != "not-paired")
        assert (close.code, close.reason) == (1008, f"pairing required (requestId:{details['requestId']})")
        await gate.call("device.pair.approve", requestId=details["requestId"])
        accepted(await gate.shake(device, REMOTE, client=app, **more))

    await waits("not-paired")
    await waits("scope-upgrade", scopes=WRITE)
    await waits("role-upgrade", role="node", scopes=())
    await waits("metadata-upgrade", platform="windows")


async def test_every_refusal_for_want_of_a_device(gate: Gate) -> None:
    for client, role, code, close_code in (
        (("cli", "cli"), "node", ("NOT_PAIRED", "DEVICE_IDENTITY_REQUIRED"), 1008),
        (("openclaw-tui", "cli"), "operator", ("INVALID_REQUEST", "CONTROL_UI_DEVICE_IDENTITY_REQUIRED"), 1008),
    ):
        handshake = gate.handshakes.begin(REMOTE)
        handshake.open()
        params = TestDevice().params("nonce", gate.clock(), client=client, role=role)
        del params["device"]
        error, close = refused(handshake.receive(request("connect", params)))
        assert ((error["code"], error["details"]["code"]), close.code) == (code, close_code)
