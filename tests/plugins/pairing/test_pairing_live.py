"""Pairing over real sockets with real keys."""

from __future__ import annotations

from typing import Any

from tests.plugins.pairing.device_client import Device
from tests.support.gateway import RunningGateway

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
    async with device.connect(gateway.ws_url, auth={"deviceToken": token}, scopes=None) as client:
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
    # The write that withdraws the old one follows the connection; another change waits for it.
    async with gateway.connect() as owner:
        await owner.request("device.token.rotate", {"deviceId": device.id, "role": "operator"})
    failed, _, _ = await device.refused(gateway.ws_url, auth={"deviceToken": old})
    assert failed.details["code"] == "AUTH_DEVICE_TOKEN_MISMATCH"
