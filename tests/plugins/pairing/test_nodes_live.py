"""A node over a real socket: what its open connection may, before and after its surface is approved."""

from __future__ import annotations

from pathlib import Path

from openclaw_kernel.testing import run_gateway
from tests.plugins.pairing.device_client import Device
from tests.support.ws_client import connect


async def test_an_approval_reaches_the_connection_that_is_open(tmp_path: Path) -> None:
    node = Device(client=("node-host", "node"))
    node.surface = {"caps": ["camera"], "commands": ["camera.list", "camera.snap"]}
    async with run_gateway(tmp_path, {"models": {"providers": {"echo": {}}}}) as gateway:
        url = gateway.url.replace("http", "ws", 1)
        shared = {"token": gateway.token}
        async with connect(url, token=gateway.token) as owner:
            failed, _, _ = await node.refused(url, auth=shared, role="node", scopes=())
            await owner.request("device.pair.approve", {"requestId": failed.details["requestId"]})
            async with node.connect(url, auth=shared, role="node", scopes=()) as client:
                asked = (await owner.expect_event("node.pair.requested"))["payload"]
                (open_one,) = [one for one in gateway.app._open if one.role == "node"]
                assert (open_one.caps, open_one.commands) == (frozenset(), frozenset())
                await owner.request("node.pair.approve", {"requestId": asked["requestId"]})
                assert (open_one.caps, open_one.commands) == (frozenset({"camera"}), frozenset({"camera.list", "camera.snap"}))
                (row,) = (await owner.request("node.list", {}))["nodes"]
                assert (row["connected"], row["approvalState"]) == (True, "approved")
                await owner.request("node.pair.remove", {"nodeId": node.id})
                assert (await client.closed(deadline=5)).reason == "client invalidated: device-token-revoked"
