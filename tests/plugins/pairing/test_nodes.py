"""The second gate of a node: what it declares counts once a person approved it. S4, S5, S20."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from openclaw_kernel.api import DeviceGrant, Forbidden, InvalidRequest, effective_scopes
from openclaw_plugins.pairing import node_tables
from openclaw_plugins.pairing.node_tables import MOST_REQUESTS
from openclaw_plugins.pairing.records import PENDING_MS
from tests.kernel.protocol.transcript import REMOTE, accepted, refused
from tests.plugins.pairing.harness import Gate, Person, TestDevice, opened
from tests.plugins.pairing.test_withdrawals import copy_of, put_back, rows

CAMERA = {"caps": ["camera"], "commands": ["camera.list"], "permissions": {"camera": True, "contacts": False}}
SHELL = {"caps": ["camera", "system"], "commands": ["camera.list", "system.run"], "permissions": {"camera": True}}
NOTHING: dict[str, Any] = {"caps": ["screen"], "commands": []}


@pytest_asyncio.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gate]:
    """A gateway that asks a person for every device."""
    async with opened(tmp_path, policy="ask") as opened_gate:
        yield opened_gate


async def connected(gate: Gate, node: TestDevice, surface: dict[str, Any]) -> DeviceGrant:
    """Connect a node whose device is let in, once for all."""
    asked: dict[str, Any] = {"role": "node", "scopes": (), "surface": surface, "client": ("node-host", "node")}
    actions = await gate.shake(node, REMOTE, **asked)
    if len(actions) > 1:
        await gate.call("device.pair.approve", requestId=refused(actions)[0]["details"]["requestId"])
        actions = await gate.shake(node, REMOTE, **asked)
    grant = accepted(actions).grant
    assert grant is not None
    await gate.settled()
    return grant


async def pending(gate: Gate) -> list[dict[str, Any]]:
    """The surfaces that wait."""
    found: list[dict[str, Any]] = (await gate.call("node.pair.list"))["pending"]
    return found


async def approved(gate: Gate, node: TestDevice, surface: dict[str, Any]) -> None:
    """Connect a node, and approve what it declares."""
    await connected(gate, node, surface)
    (row,) = await pending(gate)
    await gate.call("node.pair.approve", requestId=row["requestId"])


async def state(gate: Gate, node: TestDevice) -> str:
    """How far a node is."""
    return str((await gate.call("node.describe", nodeId=node.id))["approvalState"])


async def test_a_paired_device_is_a_node_without_anything_until_its_surface_is_approved(tmp_path: Path) -> None:
    node = TestDevice()
    async with opened(tmp_path, policy="ask") as gate:
        grant = await connected(gate, node, CAMERA)
        assert (grant.caps, grant.commands) == ((), ())
        (row,) = await pending(gate)
        assert (row["nodeId"], row["caps"], row["commands"]) == (node.id, ["camera"], ["camera.list"])
        assert (row["permissions"], row["requiredApproveScopes"]) == ({"camera": True}, ["operator.pairing", "operator.write"])
        assert gate.context.events.sent[-1] == ("node.pair.requested", row)
        assert await state(gate, node) == "pending-approval"
        result = await gate.call("node.pair.approve", requestId=row["requestId"])
        assert result["node"]["commands"] == ["camera.list"]
        # The connection that is open has it at once.
        assert gate.context.connections.surfaces == [(f"device:{node.id}", ("camera",), ("camera.list",))]
        assert gate.context.events.resolved("node") == [(row["requestId"], "approved")]
    async with opened(tmp_path, policy="ask", clock=gate.clock) as gate:
        grant = await connected(gate, node, CAMERA)
        assert (grant.caps, grant.commands) == (("camera",), ("camera.list",))
        assert (await pending(gate), await state(gate, node)) == ([], "approved")


async def test_a_surface_that_grew_keeps_what_was_approved_and_one_that_shrank_loses_it(gate: Gate) -> None:
    """S4: nothing is given for being declared."""
    node = TestDevice()
    await approved(gate, node, CAMERA)
    grant = await connected(gate, node, SHELL)
    assert (grant.caps, grant.commands) == (("camera",), ("camera.list",))
    assert await state(gate, node) == "pending-reapproval"
    (row,) = await pending(gate)
    assert row["commands"] == ["camera.list", "system.run"]
    await gate.call("node.pair.reject", requestId=row["requestId"])
    assert await state(gate, node) == "approved"
    assert (await connected(gate, node, SHELL)).commands == ("camera.list",)
    assert (await connected(gate, node, NOTHING)).commands == ()


async def test_the_same_surface_keeps_its_request_and_another_takes_its_place(gate: Gate) -> None:
    node = TestDevice()
    await connected(gate, node, CAMERA)
    (first,) = await pending(gate)
    await connected(gate, node, CAMERA)
    assert await pending(gate) == [first]
    await connected(gate, node, SHELL)
    (second,) = await pending(gate)
    assert second["requestId"] != first["requestId"]
    assert gate.context.events.resolved("node") == [(first["requestId"], "rejected")]
    with pytest.raises(InvalidRequest, match="unknown requestId"):
        await gate.call("node.pair.approve", requestId=first["requestId"])


async def test_a_request_waits_while_its_node_is_connected_and_five_minutes_after(gate: Gate) -> None:
    node = TestDevice()
    await connected(gate, node, CAMERA)
    (row,) = await pending(gate)
    gate.context.connections.open.add(f"device:{node.id}")
    gate.clock.now += PENDING_MS + 1
    await gate.book.expire()
    assert await pending(gate) == [row]
    gate.context.connections.open.clear()
    await gate.book.expire()
    assert await pending(gate) == []
    assert gate.context.events.resolved("node") == [(row["requestId"], "expired")]


CALLERS = {
    "nothing": frozenset[str](),
    "reader": frozenset({"operator.read"}),
    "writer": frozenset({"operator.write"}),
    "pairing": frozenset({"operator.pairing"}),
    "pairing writer": frozenset({"operator.pairing", "operator.write"}),
    "admin": frozenset({"operator.admin"}),
}
SURFACES = {
    "no commands": (NOTHING, {"operator.pairing"}),
    "ordinary": (CAMERA, {"operator.pairing", "operator.write"}),
    **{
        command: ({"caps": [], "commands": ["camera.list", command]}, {"operator.pairing", "operator.admin"})
        for command in ("system.run", "system.run.prepare", "system.which", "browser.proxy", "fs.listDir", "system.execApprovals.set")
    },
}


@pytest.mark.parametrize("surface", SURFACES)
async def test_who_approves_a_surface_has_what_it_takes(gate: Gate, surface: str) -> None:
    """S5: caller x surface, also for a device that approves another's."""
    declared, needed = SURFACES[surface]
    for caller, is_device in itertools.product(CALLERS, (False, True)):
        node = TestDevice()
        await connected(gate, node, declared)
        (row,) = await pending(gate)
        assert set(row["requiredApproveScopes"]) == needed
        person = Person(scopes=CALLERS[caller], principal=f"device:{'0' * 64}" if is_device else "token")
        if needed <= effective_scopes(person.scopes):
            await gate.call("node.pair.approve", person, requestId=row["requestId"])
        else:
            with pytest.raises(Forbidden, match="missing scope"):
                await gate.call("node.pair.approve", person, requestId=row["requestId"])
            await gate.call("node.pair.reject", requestId=row["requestId"])
        assert (node.id in gate.nodes.nodes) is (needed <= effective_scopes(person.scopes))


@pytest.mark.parametrize("how", ["node.pair.remove", "device.pair.remove", "device.token.revoke"])
async def test_a_node_that_is_removed_has_nothing_left_also_when_it_comes_back(tmp_path: Path, how: str) -> None:
    """S20: neither over a restart nor from an older copy of the database."""
    node = TestDevice()
    async with opened(tmp_path, policy="ask") as gate:
        await approved(gate, node, CAMERA)
    copy = copy_of(tmp_path)
    async with opened(tmp_path, policy="ask", clock=gate.clock) as gate:
        await connected(gate, node, SHELL)
        (row,) = await pending(gate)
        params = {"node.pair.remove": {"nodeId": node.id}, "device.pair.remove": {"deviceId": node.id}}
        await gate.call(how, **params.get(how, {"deviceId": node.id, "role": "node"}))  # type: ignore[arg-type]
        assert gate.context.events.resolved("node") == [(row["requestId"], "removed")]
        assert gate.context.connections.ended[0][0] == f"device:{node.id}"
        assert await gate.call("node.pair.list") == {"pending": [], "paired": []}
        assert ("node.removed", "token", f"device:{node.id}") in await rows(gate)
    for restore in (False, True):
        if restore:
            put_back(tmp_path, copy)
        async with opened(tmp_path, policy="ask", clock=gate.clock) as gate:
            # Once the device is let in again, its surface still waits.
            grant = await connected(gate, node, CAMERA)
            assert (grant.caps, grant.commands) == ((), ())
            assert await state(gate, node) == "pending-approval"
            await gate.call("device.pair.remove", deviceId=node.id)


@pytest.mark.parametrize("how", ["device.pair.remove", "device.token.revoke"])
async def test_a_node_that_is_removed_while_it_asks_leaves_no_request(gate: Gate, how: str) -> None:
    """S20."""
    node = TestDevice()
    await approved(gate, node, CAMERA)
    async with gate.roster.changes.lock:
        params: dict[str, Any] = {"role": "node"} if how.endswith("revoke") else {}
        removing = asyncio.ensure_future(gate.call(how, deviceId=node.id, **params))
        # The removal is the first to wait for its turn.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        accepted(await gate.shake(node, REMOTE, role="node", scopes=(), surface=SHELL, client=("node-host", "node")))
    await removing
    await gate.settled()
    assert await gate.call("node.pair.list") == {"pending": [], "paired": []}
    assert await gate.context.store.read(node_tables.load) == ([], [])


async def test_taking_a_node_away_is_for_those_who_may_give_the_role(gate: Gate) -> None:
    """S5."""
    node = TestDevice()
    await approved(gate, node, CAMERA)
    for person in (Person(scopes=frozenset({"operator.pairing", "operator.write"})), Person(scopes=frozenset({"operator.write"}))):
        with pytest.raises(Forbidden):
            await gate.call("node.pair.remove", person, nodeId=node.id)
    await gate.call("node.pair.remove", nodeId=node.id)
    with pytest.raises(InvalidRequest, match="unknown nodeId"):
        await gate.call("node.pair.remove", nodeId=node.id)


async def test_a_node_is_called_what_a_person_calls_it(gate: Gate) -> None:
    node = TestDevice()
    await approved(gate, node, CAMERA)
    assert await gate.call("node.rename", nodeId=node.id, displayName="hall\x1b camera") == {
        "nodeId": node.id,
        "displayName": "hall camera",
    }
    (row,) = (await gate.call("node.list"))["nodes"]
    assert (row["displayName"], row["version"], row["paired"]) == ("hall camera", "1", True)
    for name in ("\x1b", "n" * 65):
        with pytest.raises(InvalidRequest, match="displayName: has"):
            await gate.call("node.rename", nodeId=node.id, displayName=name)
    with pytest.raises(InvalidRequest, match="unknown nodeId"):
        await gate.call("node.rename", nodeId="nobody", displayName="x")


async def test_surfaces_that_wait_are_bounded_and_so_is_each(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openclaw_plugins.pairing.node_tables.MOST_REQUESTS", 2)
    for _ in range(3):
        await connected(gate, TestDevice(), CAMERA)
    assert len(await pending(gate)) == 2
    assert MOST_REQUESTS == 100
    (first, _) = await pending(gate)
    await gate.call("node.pair.reject", requestId=first["requestId"])
    node = TestDevice()
    names = [f"name{number}" for number in range(1000)]
    await connected(gate, node, {"caps": [*names, "x" * 200, "e\x1bvil"], "commands": names})
    (row,) = [row for row in await pending(gate) if row["nodeId"] == node.id]
    assert len(row["caps"]) == len(row["commands"]) == 256
    assert not {"x" * 200, "e\x1bvil", "evil"} & set(row["caps"])


async def test_the_gates_of_a_node_are_rows_of_the_audit_log(gate: Gate) -> None:
    node = TestDevice()
    await approved(gate, node, CAMERA)
    await connected(gate, node, SHELL)
    (row,) = await pending(gate)
    await gate.call("node.pair.reject", requestId=row["requestId"])
    subject = f"device:{node.id}"
    assert [one for one in await rows(gate) if one[0].startswith("node.")] == [
        ("node.requested", subject, subject),
        ("node.approved", "token", subject),
        ("node.requested", subject, subject),
        ("node.rejected", "token", subject),
    ]
