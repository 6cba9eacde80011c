"""Pairing over real sockets with real keys."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.pairing.device_client import Device
from tests.support.gateway import RunningGateway, StartGateway
from tests.support.ws_client import ConnectionEnded, RequestFailed

ADMIN = ("operator.admin",)
ASK = {"gateway": {"pairing": {"local": "ask"}}}


def shared(gateway: RunningGateway) -> dict[str, str]:
    """The shared secret."""
    return {"token": gateway.token}


async def listed(gateway: RunningGateway) -> dict[str, Any]:
    """What device.pair.list tells an admin."""
    async with gateway.connect() as owner:
        found: dict[str, Any] = await owner.request("device.pair.list", {})
        return found


async def approve(gateway: RunningGateway, device: Device, **more: Any) -> dict[str, Any]:
    """Ask as the device does, and approve it as its owner."""
    failed, _, _ = await device.refused(gateway.ws_url, auth=shared(gateway), **more)
    async with gateway.connect() as owner:
        result: dict[str, Any] = await owner.request("device.pair.approve", {"requestId": failed.details["requestId"]})
        return result


async def test_a_local_device_with_the_secret_is_paired_silently_and_comes_back_with_its_token(gateway: RunningGateway) -> None:
    device = Device()
    async with device.connect(gateway.ws_url, auth=shared(gateway), scopes=ADMIN) as client:
        assert client.hello["auth"]["scopes"] == ["operator.admin"]
        assert client.hello["auth"]["role"] == "operator"
        assert client.hello["auth"]["issuedAtMs"] > 0
        await client.request("status", {})
    first = device.token
    assert first is not None
    assert len(first) == 43
    async with device.connect(gateway.ws_url, auth={"token": first, "deviceToken": first}, scopes=ADMIN) as client:
        assert device.token == first
        await client.request("status", {})
    (row,) = (await listed(gateway))["paired"]
    assert row["deviceId"] == device.id
    assert row["approvedVia"] == "silent"
    assert row["scopes"] == ["operator.admin"]
    files = b"".join(path.read_bytes() for path in gateway.home.glob("state.sqlite3*"))
    assert first.encode() not in files


async def test_a_device_that_shows_no_token_is_told_the_same_one_again(gateway: RunningGateway) -> None:
    device = Device()
    tokens = []
    for _ in range(3):
        async with device.connect(gateway.ws_url, auth=shared(gateway)):
            tokens.append(device.token)
    assert len(set(tokens)) == 1


async def test_pairing_and_tokens_survive_a_restart(gateway: RunningGateway) -> None:
    device = Device()
    async with device.connect(gateway.ws_url, auth=shared(gateway), scopes=ADMIN):
        pass
    token = str(device.token)
    await gateway.kill()
    await gateway.start()
    async with device.connect(gateway.ws_url, auth={"deviceToken": token}, scopes=ADMIN) as client:
        assert client.hello["auth"]["scopes"] == ["operator.admin"]
        assert device.token == token


async def test_a_new_token_leaves_the_one_in_use_good_until_it_is_seen(gateway: RunningGateway) -> None:
    device = Device()
    async with device.connect(gateway.ws_url, auth=shared(gateway)):
        old = str(device.token)
    async with device.connect(gateway.ws_url, auth={"deviceToken": old}):
        pass
    await gateway.stop()
    await gateway.start()
    async with device.connect(gateway.ws_url, auth=shared(gateway)):
        new = str(device.token)
    assert new != old
    async with device.connect(gateway.ws_url, auth={"deviceToken": old}):
        assert device.token == old
    async with device.connect(gateway.ws_url, auth={"deviceToken": new}):
        assert device.token == new


@pytest.mark.parametrize(
    ("method", "params", "reason"),
    [
        ("device.pair.remove", {}, "device-pair-removed"),
        ("device.token.revoke", {"role": "operator"}, "device-token-revoked"),
        ("device.token.rotate", {"role": "operator"}, "device-token-rotated"),
    ],
)
async def test_what_is_taken_away_ends_the_open_connections_within_a_second(
    gateway: RunningGateway, method: str, params: dict[str, str], reason: str
) -> None:
    """S20: the socket is shut and nothing it still sends runs; who did it to itself gets its answer first."""
    device = Device()
    async with (
        device.connect(gateway.ws_url, auth=shared(gateway), scopes=ADMIN) as one,
        device.connect(gateway.ws_url, auth=shared(gateway), scopes=ADMIN) as other,
    ):
        result = await one.request(method, {"deviceId": device.id, **params})
        assert result["deviceId"] == device.id
        with pytest.raises(ConnectionEnded):
            await one.request("system-event", {"text": "too late", "instanceId": "late"})
        for client in (one, other):
            # A second, with room for a busy machine.
            ended = await client.closed(deadline=5)
            assert (ended.code, ended.reason) == (4001, f"client invalidated: {reason}")
    async with gateway.connect() as owner:
        assert "late" not in [entry.get("instanceId") for entry in await owner.request("system-presence")]
        assert device.id not in [row["deviceId"] for row in (await listed(gateway))["paired"] if row["connected"]]
    old = str(device.token)
    await gateway.kill()
    await gateway.start()
    if method == "device.token.rotate":
        async with device.connect(gateway.ws_url, auth={"deviceToken": old}, scopes=ADMIN):
            assert device.token != old
        async with device.connect(gateway.ws_url, auth={"deviceToken": str(device.token)}, scopes=ADMIN):
            pass
    failed, code, _ = await device.refused(gateway.ws_url, auth={"deviceToken": old})
    assert (failed.details["code"], code) == ("AUTH_DEVICE_TOKEN_MISMATCH", 1008)


async def test_a_restored_backup_gives_a_revoked_device_nothing_back(gateway: RunningGateway, tmp_path: Path) -> None:
    """S20: the database alone was put back; the programs of this machine are approved by themselves here, and yet not this one."""
    device = Device()
    async with device.connect(gateway.ws_url, auth=shared(gateway), scopes=ADMIN):
        pass
    token = str(device.token)
    await gateway.stop()
    backup = tmp_path / "backup.sqlite3"
    shutil.copy(gateway.home / "state.sqlite3", backup)
    await gateway.start()
    async with gateway.connect() as owner:
        await owner.request("device.token.revoke", {"deviceId": device.id, "role": "operator"})
    await gateway.stop()
    for file in gateway.home.glob("state.sqlite3*"):
        file.unlink()
    shutil.copy(backup, gateway.home / "state.sqlite3")
    gateway.expect_log("the audit log is not as it was left")
    await gateway.start()
    failed, _, _ = await device.refused(gateway.ws_url, auth={"deviceToken": token}, scopes=ADMIN)
    assert failed.details["code"] == "AUTH_DEVICE_TOKEN_MISMATCH"
    failed, _, _ = await device.refused(gateway.ws_url, auth=shared(gateway), scopes=ADMIN)
    assert failed.details["reason"] == "role-upgrade"


async def test_events_about_a_device_reach_those_whom_its_list_would_show_it_also_later(gateway: RunningGateway) -> None:
    """A device with operator.pairing and no operator.admin hears of itself alone, at once and on replay by cursor."""
    pairing, other = Device(), Device()
    scopes = ("operator.pairing", "operator.read")
    async with (
        gateway.connect() as owner,
        pairing.connect(gateway.ws_url, auth=shared(gateway), scopes=scopes) as live,
        pairing.connect(gateway.ws_url, auth=shared(gateway), scopes=scopes) as later,
    ):
        cursor = (await later.request("events.subscribe", {}))["cursor"]
        await later.expect_event("events.current")
        await later.request("events.unsubscribe", {})
        node: dict[str, Any] = {"role": "node", "scopes": ()}
        refused_ids = [
            (await device.refused(gateway.ws_url, auth=shared(gateway), **node))[0].details["requestId"] for device in (other, pairing)
        ]
        for request_id in refused_ids:
            asked = await owner.expect_event("device.pair.requested")
            assert (asked["payload"]["requestId"], asked["payload"]["role"]) == (request_id, "node")
        for request_id in refused_ids:
            await owner.request("device.pair.reject", {"requestId": request_id})
        frames = await live.events_until("device.pair.resolved")
        heard = [frame["payload"]["deviceId"] for frame in frames if frame["event"].startswith("device.pair.")]
        assert heard == [pairing.id] * 2
        await later.request("events.subscribe", {"since": cursor})
        replayed = await later.events_until("events.current")
        items = [frame["payload"] for frame in replayed if frame["event"] == "events.item"]
        told = [(item["event"], item["payload"]["deviceId"]) for item in items if item["event"].startswith("device.pair.")]
        assert told == [("device.pair.requested", pairing.id), ("device.pair.resolved", pairing.id)]


async def test_a_page_waits_until_a_person_approves_it_whatever_it_knows(gateway: RunningGateway) -> None:
    """S2, S17: an Origin is never approved by itself; the page comes back by itself and is in once it was approved."""
    page = Device(client=("openclaw-control-ui", "ui"))
    headers = {"Origin": gateway.url}
    async with gateway.connect() as owner:
        failed, code, reason = await page.refused(gateway.ws_url, auth=shared(gateway), scopes=ADMIN, headers=headers)
        request_id = failed.details["requestId"]
        assert (failed.code, code) == ("NOT_PAIRED", 1008)
        assert reason.endswith(f"(requestId:{request_id})")
        assert failed.details["recommendedNextStep"] == "wait_then_retry"
        assert failed.details["pauseReconnect"] is False
        asked = (await owner.expect_event("device.pair.requested"))["payload"]
        assert (asked["requestId"], asked["clientId"], asked["role"]) == (request_id, "openclaw-control-ui", "operator")
        again, _, _ = await page.refused(gateway.ws_url, auth=shared(gateway), scopes=ADMIN, headers=headers)
        assert again.details["requestId"] == request_id
        await owner.request("device.pair.approve", {"requestId": request_id})
        resolved = (await owner.expect_event("device.pair.resolved"))["payload"]
        assert (resolved["requestId"], resolved["decision"]) == (request_id, "approved")
    async with page.connect(gateway.ws_url, auth=shared(gateway), scopes=ADMIN, headers=headers) as client:
        await client.request("status", {})
        mine = [entry for entry in await client.request("system-presence") if entry.get("deviceId") == page.id]
        assert [entry["mode"] for entry in mine] == ["ui"]
    async with page.connect(gateway.ws_url, auth={"deviceToken": str(page.token)}, scopes=ADMIN, headers=headers) as client:
        assert client.hello["auth"]["scopes"] == ["operator.admin"]


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via", "X-Forwarded-Host", "X-Forwarded-Proto"])
async def test_what_a_proxy_forwards_is_never_approved_by_itself(gateway: RunningGateway, header: str) -> None:
    """S17."""
    for value in ("127.0.0.1", "for=127.0.0.1"):
        failed, _, _ = await Device().refused(gateway.ws_url, auth=shared(gateway), headers={header: value})
        assert failed.details["code"] == "PAIRING_REQUIRED"


async def test_what_a_silent_proxy_passes_on_is_not_approved_by_itself(gateway: RunningGateway) -> None:
    """S17: all that such a proxy leaves of the truth is the host that was asked for."""
    failed, _, _ = await Device().refused(gateway.ws_url, auth=shared(gateway), headers={"Host": "gateway.example.org"})
    assert failed.details["code"] == "PAIRING_REQUIRED"
    async with Device().connect(gateway.ws_url, auth=shared(gateway), headers={"Host": "localhost:18789"}) as client:
        await client.request("health")


@pytest.mark.parametrize("protocol", [(4, 4), (3, 4), (3, 3)])
async def test_a_node_of_this_version_and_the_one_before_connects_once_it_is_approved(
    gateway: RunningGateway, protocol: tuple[int, int]
) -> None:
    node = Device(client=("node-host", "node"), platform="linux")
    asked: dict[str, Any] = {"role": "node", "scopes": (), "protocol": protocol}
    await approve(gateway, node, **asked)
    async with node.connect(gateway.ws_url, auth=shared(gateway), **asked) as client:
        assert client.hello["auth"]["role"] == "node"
        assert client.hello["auth"]["scopes"] == []
        assert client.hello["auth"]["deviceToken"] == node.token
        assert (await client.request("health", {}))["ok"] is True
        with pytest.raises(RequestFailed, match="unauthorized role: node"):
            await client.request("status", {})
    async with node.connect(gateway.ws_url, auth={"deviceToken": str(node.token)}, **asked):
        pass


async def test_two_devices_wait_beside_each_other(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(ASK)
    devices = [Device(), Device()]
    refusals = await asyncio.gather(*(device.refused(gateway.ws_url, auth=shared(gateway)) for device in devices * 2))
    assert len({failed.details["requestId"] for failed, _, _ in refusals}) == 2
    await gateway.kill()
    await gateway.start()
    pending = (await listed(gateway))["pending"]
    assert {row["deviceId"] for row in pending} == {device.id for device in devices}


async def test_without_the_plugin_no_device_is_let_in(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"plugins": {"entries": {"pairing": {"enabled": False}}}})
    failed, code, _ = await Device().refused(gateway.ws_url, auth=shared(gateway))
    assert (failed.code, failed.details["code"], code) == ("NOT_PAIRED", "PAIRING_REQUIRED", 1008)
    assert "enable the plugin 'pairing'" in failed.details["remediationHint"]
    failed, _, _ = await Device().refused(gateway.ws_url, auth={"deviceToken": "x"})
    assert failed.code == "INVALID_REQUEST"
    async with gateway.connect() as owner:
        await owner.request("status", {})
