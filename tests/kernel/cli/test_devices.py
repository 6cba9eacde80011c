"""`devices`: what waits, who is approved, and the decisions."""

from __future__ import annotations

import asyncio
import json

from openclaw_kernel.cli.exits import FAILED, USAGE
from tests.kernel.cli.command import Outcome, run_command
from tests.plugins.pairing.device_client import Device
from tests.support.gateway import RunningGateway, StartGateway

ASK = {"gateway": {"pairing": {"local": "ask"}}}


async def devices(gateway: RunningGateway, *arguments: str) -> Outcome:
    """Run the command against the gateway of this state folder."""
    return await run_command("devices", *arguments, home=gateway.home)


async def waiting(gateway: RunningGateway, device: Device) -> str:
    """Let a device ask; the id of its request."""
    failed, _, _ = await device.refused(gateway.ws_url, auth={"token": gateway.token})
    assert f"openclaw-kernel devices approve {failed.details['requestId']}" in failed.details["remediationHint"]
    return str(failed.details["requestId"])


async def test_a_device_is_listed_approved_by_a_part_of_its_id_and_removed(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(ASK)
    empty = await devices(gateway)
    assert (empty.status, empty.out) == (0, "no device waits, and none is approved\n")
    device = Device()
    request_id = await waiting(gateway, device)
    listed = await devices(gateway, "list")
    assert request_id in listed.out
    assert "not-paired" in listed.out
    approved = await devices(gateway, "approve", request_id[:10])
    assert approved.status == 0, approved.err
    assert approved.out == f"approved: cli linux ({device.id[:12]}) as operator, with read\n"
    async with device.connect(gateway.ws_url, auth={"token": gateway.token}) as client:
        rows = (await devices(gateway, "list", "--json")).json()["paired"]
        assert [(row["deviceId"], row["connected"]) for row in rows] == [(device.id, True)]
        removed = await devices(gateway, "remove", device.id[:8], "--json")
        assert removed.json() == {"deviceId": device.id}
        assert (await client.closed(deadline=5)).code == 4001
    await waiting(gateway, device)


async def test_the_newest_of_several_is_approved_and_the_others_wait(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(ASK)
    ids = [await waiting(gateway, Device()) for _ in range(2)]
    result = await devices(gateway, "approve", "--latest", "--json")
    assert result.json()["requestId"] == ids[1]
    rejected = await devices(gateway, "reject", ids[0])
    assert rejected.out.startswith("rejected: cli linux (")
    left = (await devices(gateway, "list", "--json")).json()
    assert left["pending"] == []


async def test_a_device_is_renamed_rotated_and_revoked_by_a_part_of_its_id(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(ASK)
    device = Device()
    await devices(gateway, "approve", await waiting(gateway, device))
    async with device.connect(gateway.ws_url, auth={"token": gateway.token}) as client:
        renamed = await devices(gateway, "rename", device.id[:9], "kitchen tablet")
        assert renamed.out == f"renamed: cli linux ({device.id[:12]}) is now kitchen tablet\n"
        assert "kitchen tablet cli linux" in (await devices(gateway, "list")).out
        rotated = await devices(gateway, "rotate", device.id[:9], "--scope", "read")
        assert rotated.out == f"rotated: kitchen tablet cli linux ({device.id[:12]}) as operator, with read\n"
        assert (await client.closed(deadline=5)).reason == "client invalidated: device-token-rotated"
    old = str(device.token)
    async with device.connect(gateway.ws_url, auth={"deviceToken": old}) as client:
        assert device.token != old
        revoked = await devices(gateway, "revoke", device.id[:9], "--json")
        assert (revoked.json()["deviceId"], revoked.json()["role"]) == (device.id, "operator")
        assert (await client.closed(deadline=5)).reason == "client invalidated: device-token-revoked"
    without = await devices(gateway, "rotate", device.id[:9])
    assert without.status == USAGE
    assert without.err == "devices rotate: the device has these roles: none; say which with --role\n"


async def test_what_cannot_be_done_is_said_with_the_cure(gateway: RunningGateway) -> None:
    outcomes = await asyncio.gather(
        devices(gateway, "approve"),
        devices(gateway, "approve", "--latest"),
        devices(gateway, "approve", "nobody"),
        devices(gateway, "remove", "nobody"),
        devices(gateway, "reject", "nobody", "--json"),
    )
    assert [outcome.status for outcome in outcomes] == [USAGE, FAILED, FAILED, FAILED, FAILED]
    assert outcomes[0].err == "devices approve: give the id of a request, or --latest; devices list shows them\n"
    assert outcomes[1].err == "devices approve: no device waits for approval; let it connect, then try again\n"
    assert outcomes[2].err == "devices approve: there is no request 'nobody'; devices list shows them\n"
    assert outcomes[3].err == "devices remove: there is no device 'nobody'; devices list shows them\n"
    assert json.loads(outcomes[4].err)["error"]["message"].startswith("devices reject: there is no request")
