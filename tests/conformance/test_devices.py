"""The reference client with a device of its own: paired silently, known again, refused once it was removed."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.method_calls import OF_DEVICES
from tests.conformance.reference_client import ReferenceClient, reference_client
from tests.support import contract
from tests.support.gateway import RunningGateway, StartGateway

pytestmark = pytest.mark.requires("node24", "gateway-client", "contract")


def kept(file: Path) -> dict[str, Any]:
    """The token the client keeps."""
    tokens: dict[str, Any] = json.loads(file.read_text())["tokens"]
    operator: dict[str, Any] = tokens.get("operator", {})
    return operator


async def test_the_client_pairs_silently_keeps_its_token_and_is_refused_once_it_is_removed(gateway: RunningGateway, tmp_path: Path) -> None:
    file = tmp_path / "device.json"
    async with reference_client(gateway.ws_url, token=gateway.token, deviceFile=str(file)) as client:
        hello = (await client.wait("hello"))["hello"]
        contract.validate_hello(hello)
        token = hello["auth"]["deviceToken"]
        assert kept(file) == {"token": token, "scopes": ["operator.admin"]}
        (row,) = (await client.request("device.pair.list", {}))["paired"]
        assert (row["connected"], row["approvedVia"]) == (True, "silent")
    # From now on with what it kept, and without the shared secret.
    async with reference_client(gateway.ws_url, token=None, deviceFile=str(file)) as client:
        hello = (await client.wait("hello"))["hello"]
        assert hello["auth"]["deviceToken"] == token
        assert hello["auth"]["scopes"] == ["operator.admin"]
        async with gateway.connect() as owner:
            position = len(client.lines)
            await owner.request("device.pair.remove", {"deviceId": row["deviceId"]})
            closed = await client.wait("closed", after=position)
            assert (closed["code"], closed["reason"]) == (4001, "client invalidated: device-pair-removed")
        paused = await client.wait("paused", after=position)
        assert paused["detailCode"] == "AUTH_DEVICE_TOKEN_MISMATCH"
        assert kept(file) == {}
    await gateway.kill()
    await gateway.start()
    async with reference_client(gateway.ws_url, token=gateway.token, deviceFile=str(file)) as client:
        error = (await client.wait("connectError"))["error"]
        assert (error["code"], error["details"]["reason"]) == ("NOT_PAIRED", "not-paired")


async def test_a_waiting_client_is_in_once_a_person_approved_it(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway({"gateway": {"pairing": {"local": "ask"}}})
    file = tmp_path / "device.json"
    async with reference_client(gateway.ws_url, token=gateway.token, deviceFile=str(file)) as client:
        details = (await client.wait("connectError"))["error"]["details"]
        async with gateway.connect() as owner:
            await owner.request("device.pair.approve", {"requestId": details["requestId"]})
        hello = (await client.wait("hello"))["hello"]
        assert hello["auth"]["scopes"] == ["operator.admin"]
        assert "paused" not in client.kinds()


async def test_a_program_that_runs_once_is_told_to_stop_and_whom_to_ask(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway({"gateway": {"pairing": {"local": "ask"}}})
    options = {"deviceFile": str(tmp_path / "device.json"), "clientName": "cli", "mode": "cli"}
    async with reference_client(gateway.ws_url, token=gateway.token, **options) as client:
        paused = await client.wait("paused")
        assert paused["detailCode"] == "PAIRING_REQUIRED"
        details = (await client.wait("connectError"))["error"]["details"]
        assert paused["reason"] == f"pairing required (requestId:{details['requestId']})"


async def test_a_rotated_client_keeps_what_it_is_told_and_comes_back_with_it(gateway: RunningGateway, tmp_path: Path) -> None:
    file = tmp_path / "device.json"
    async with reference_client(gateway.ws_url, token=gateway.token, deviceFile=str(file)) as client:
        await client.wait("hello")
    old = kept(file)["token"]
    # Without the shared secret: all it has is its token.
    async with reference_client(gateway.ws_url, token=None, deviceFile=str(file)) as client:
        await client.wait("hello")
        (row,) = (await client.request("device.pair.list", {}))["paired"]
        async with gateway.connect() as owner:
            for _ in range(2):
                position = len(client.lines)
                await owner.request("device.token.rotate", {"deviceId": row["deviceId"], "role": "operator"})
                closed = await client.wait("closed", after=position)
                assert (closed["code"], closed["reason"]) == (4001, "client invalidated: device-token-rotated")
                told = (await client.wait("hello", after=position))["hello"]["auth"]["deviceToken"]
                assert told not in {old, None}
                assert kept(file)["token"] == told
                old = told
            # Revoked in the middle of what it reads.
            await client.request("sessions.subscribe", {})
            await owner.request("device.token.revoke", {"deviceId": row["deviceId"], "role": "operator"})
        closed = await client.wait("closed", lambda line: "revoked" in line["reason"])
        assert closed["code"] == 4001
        paused = await client.wait("paused")
        assert paused["detailCode"] == "AUTH_DEVICE_TOKEN_MISMATCH"
        assert kept(file) == {}


async def test_a_client_with_a_setup_code_pairs_as_operator_and_as_node_and_keeps_its_tokens(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway({"gateway": {"pairing": {"local": "ask"}}})
    for role, scopes in (("operator", ["operator.admin"]), ("node", [])):
        file = tmp_path / f"{role}.json"
        mode = {"mode": "node", "clientName": "node-host"} if role == "node" else {}
        async with gateway.connect() as owner:
            setup = await owner.request("device.pair.setupCode", {"bootstrapProfile": "node"} if role == "node" else {})
            code = setup["setupCode"]
            said = json.loads(base64.urlsafe_b64decode(code + "=" * (-len(code) % 4)))
            options = {"deviceFile": str(file), "role": role, "scopes": scopes, **mode}
            async with reference_client(
                gateway.ws_url, token=None, bootstrapToken=said["bootstrapToken"], preferBootstrapToken=True, **options
            ) as client:
                hello = (await client.wait("hello"))["hello"]
                contract.validate_hello(hello)
                assert (hello["auth"]["role"], hello["auth"]["scopes"]) == (role, scopes)
            done = await owner.expect_event("device.pair.setup.completed")
            assert done["payload"]["setupId"] == setup["setupId"]
            status = await owner.request("device.pair.setupStatus", {"setupId": setup["setupId"]})
            assert status["completion"]["deviceId"] == done["payload"]["deviceId"]
        # From now on with what it was given.
        async with reference_client(gateway.ws_url, token=None, **options) as client:
            assert (await client.wait("hello"))["hello"]["auth"]["role"] == role
        async with reference_client(
            gateway.ws_url, token=None, bootstrapToken=said["bootstrapToken"], deviceFile=str(tmp_path / f"other-{role}.json"), role=role
        ) as client:
            assert (await client.wait("paused"))["detailCode"] == "AUTH_BOOTSTRAP_TOKEN_INVALID"


SURFACE = {"caps": ["camera"], "commands": ["camera.list"], "permissions": {"camera": True}}


async def check_its_surface(owner: ReferenceClient, call: Callable[[str, dict[str, Any]], Awaitable[Any]], node_id: str) -> None:
    """The second gate: refused once, then approved."""
    named = {"nodeId": node_id}
    asked = (await owner.wait("event", lambda line: line["frame"]["event"] == "node.pair.requested"))["frame"]["payload"]
    assert (asked["nodeId"], asked["commands"]) == (node_id, ["camera.list"])
    assert (await call("node.describe", named))["approvalState"] == "pending-approval"
    await call("node.pair.approve", {"requestId": asked["requestId"]})
    await call("node.rename", {**named, "displayName": "hall"})
    found = await call("node.describe", named)
    assert (found["approvalState"], found["commands"], found["displayName"], found["connected"]) == (
        "approved",
        ["camera.list"],
        "hall",
        True,
    )


async def ask_for_more(owner: ReferenceClient, reader: ReferenceClient, called: set[str]) -> None:
    """A client that only reads asks for more, waits, and is given a token that has it."""
    asked = await reader.request("device.scopes.requestUpgrade", {"scopes": ["operator.write"]})
    await owner.request("device.pair.approve", asked)
    result = await reader.request("device.scopes.waitUpgrade", asked)
    for method, answer in (("device.scopes.requestUpgrade", asked), ("device.scopes.waitUpgrade", result)):
        contract.validate_result(method, answer)
        called.add(method)
    assert (result["status"], result["scopes"]) == ("approved", ["operator.write"])


async def test_every_method_on_devices_answers_the_client(gateway: RunningGateway, tmp_path: Path) -> None:
    called: set[str] = set()
    async with (
        reference_client(gateway.ws_url, token=gateway.token, deviceFile=str(tmp_path / "owner.json")) as owner,
        reference_client(
            gateway.ws_url, token=gateway.token, deviceFile=str(tmp_path / "node.json"), role="node", scopes=[], **SURFACE
        ) as node,
        reference_client(gateway.ws_url, token=gateway.token, deviceFile=str(tmp_path / "other.json"), role="node", scopes=[]) as other,
    ):
        await owner.wait("hello")
        options = {"deviceFile": str(tmp_path / "reader.json"), "scopes": ["operator.read"]}
        async with reference_client(gateway.ws_url, token=gateway.token, **options) as reader:
            await reader.wait("hello")
            await ask_for_more(owner, reader, called)

        async def call(method: str, params: dict[str, Any]) -> Any:
            result = await owner.request(method, params)
            contract.validate_params(method, params)
            contract.validate_result(method, result)
            called.add(method)
            return result

        waiting = (await node.wait("connectError"))["error"]["details"]
        approved = await call("device.pair.approve", {"requestId": waiting["requestId"]})
        device = {"deviceId": approved["device"]["deviceId"], "role": "node"}
        await node.wait("hello")
        await call("device.pair.rename", {"deviceId": device["deviceId"], "label": "hall"})
        await check_its_surface(owner, call, device["deviceId"])
        assert (await call("device.token.rotate", device))["tokenDelivery"] == "withheld-cross-device"
        await node.wait("hello", after=len(node.lines) if node.lines[-1]["kind"] == "closed" else 0)
        await call("node.pair.remove", {"nodeId": device["deviceId"]})
        waiting = (await node.wait("connectError", lambda line: line["error"]["details"].get("reason") == "role-upgrade"))["error"][
            "details"
        ]
        await call("device.pair.approve", {"requestId": waiting["requestId"]})
        await call("device.token.revoke", device)
        await call("device.pair.remove", {"deviceId": device["deviceId"]})
        rejected = (await other.wait("connectError"))["error"]["details"]
        await call("device.pair.reject", {"requestId": rejected["requestId"]})
        again = await other.wait(
            "connectError", lambda line: line["error"]["details"].get("requestId") not in {None, rejected["requestId"]}
        )
        position = len(owner.lines)
        await call("device.pair.approve", {"requestId": again["error"]["details"]["requestId"]})
        await other.wait("hello")
        asked = await owner.wait("event", lambda line: line["frame"]["event"] == "node.pair.requested", after=position)
        await call("node.pair.reject", {"requestId": asked["frame"]["payload"]["requestId"]})
    assert called == OF_DEVICES
