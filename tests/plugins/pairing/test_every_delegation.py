"""S5: caller x operation x target, whole: everything that gives or takes a right is done by those alone who have it themselves."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from openclaw_kernel.api import ALL_SCOPES, Forbidden, Scope, effective_scopes
from openclaw_plugins.pairing.setups import PROFILES, SETUP_MS
from tests.kernel.protocol.transcript import REMOTE, accepted, refused
from tests.plugins.pairing.harness import Gate, Person, TestDevice, opened
from tests.plugins.pairing.test_setup_codes import read_code

HELD = [
    (),
    *((scope,) for scope in sorted(ALL_SCOPES)),
    *(("operator.pairing", scope) for scope in sorted(ALL_SCOPES - {"operator.pairing"})),
    ("operator.pairing", "operator.approvals", "operator.talk.secrets", "operator.write"),
    tuple(sorted(ALL_SCOPES - {"operator.admin"})),
]
"""What callers have: nothing, each scope alone and beside the one for devices, much, and all but one."""

STORED = ("operator.approvals", "operator.read")
CAMERA = {"caps": ["camera"], "commands": ["camera.list"]}
SHELL = {"caps": [], "commands": ["system.run"]}
BARE: dict[str, Any] = {"caps": ["screen"], "commands": []}

Target = tuple[str, dict[str, Any]]
"""The device that an operation is on, and the params that name it."""


async def waiting(gate: Gate, **asked: Any) -> Target:
    """A device that waits."""
    device = TestDevice()
    error, _ = refused(await gate.shake(device, REMOTE, **asked))
    return device.id, {"requestId": error["details"]["requestId"]}


async def paired(gate: Gate, role: str = "operator", **more: Any) -> str:
    """A device that a person approved."""
    device = TestDevice()
    asked: dict[str, Any] = {"role": role, "scopes": STORED if role == "operator" else ()} | more
    error, _ = refused(await gate.shake(device, REMOTE, **asked))
    await gate.call("device.pair.approve", requestId=error["details"]["requestId"])
    accepted(await gate.shake(device, REMOTE, **asked))
    await gate.settled()
    return device.id


async def on_device(gate: Gate, role: str | None = None, **params: Any) -> Target:
    """An approved device."""
    device_id = await paired(gate, "operator" if role is None else role)
    return device_id, {"deviceId": device_id, **({} if role is None else {"role": role}), **params}


async def surface(gate: Gate, declared: dict[str, Any]) -> Target:
    """A node whose surface waits."""
    node_id = await paired(gate, "node", surface=declared, client=("node-host", "node"))
    (row,) = [row for row in (await gate.call("node.pair.list"))["pending"] if row["nodeId"] == node_id]
    return node_id, {"requestId": row["requestId"]}


async def on_node(gate: Gate, **params: Any) -> Target:
    """A node."""
    node_id = await paired(gate, "node", client=("node-host", "node"))
    return node_id, {"nodeId": node_id, **params}


async def nobody(_gate: Gate, **params: Any) -> Target:
    """No device yet."""
    return "", params


ANY, OWN, ADMINS = "whatever device", "a device itself, or an admin", "admins"
Operation = tuple[str, Callable[[Gate], Awaitable[Target]], set[str], str]
OPERATIONS: dict[str, Operation] = {
    "approve an operator": ("device.pair.approve", lambda gate: waiting(gate, scopes=STORED), {*STORED}, OWN),
    "approve an admin": ("device.pair.approve", lambda gate: waiting(gate, scopes=("operator.admin",)), {"operator.admin"}, OWN),
    "approve one without scopes": ("device.pair.approve", lambda gate: waiting(gate, scopes=()), set(), OWN),
    "approve a node": ("device.pair.approve", lambda gate: waiting(gate, role="node", scopes=()), set(), ADMINS),
    "reject an operator": ("device.pair.reject", lambda gate: waiting(gate, scopes=STORED), set(), OWN),
    "reject a node": ("device.pair.reject", lambda gate: waiting(gate, role="node", scopes=()), set(), ADMINS),
    "rename": ("device.pair.rename", lambda gate: on_device(gate, label="desk"), set(), OWN),
    "remove an operator": ("device.pair.remove", on_device, set(), OWN),
    "rotate": ("device.token.rotate", lambda gate: on_device(gate, "operator"), {*STORED}, OWN),
    "rotate for less": ("device.token.rotate", lambda gate: on_device(gate, "operator", scopes=[STORED[0]]), {STORED[0]}, OWN),
    "rotate for nothing": ("device.token.rotate", lambda gate: on_device(gate, "operator", scopes=[]), set(), OWN),
    "rotate a node": ("device.token.rotate", lambda gate: on_device(gate, "node"), set(), ADMINS),
    "revoke": ("device.token.revoke", lambda gate: on_device(gate, "operator"), set(), OWN),
    "revoke a node": ("device.token.revoke", lambda gate: on_device(gate, "node"), set(), ADMINS),
    "approve a bare surface": ("node.pair.approve", lambda gate: surface(gate, BARE), set(), ANY),
    "approve a camera": ("node.pair.approve", lambda gate: surface(gate, CAMERA), {"operator.write"}, ANY),
    "approve a shell": ("node.pair.approve", lambda gate: surface(gate, SHELL), {"operator.admin"}, ANY),
    "reject a surface": ("node.pair.reject", lambda gate: surface(gate, SHELL), set(), ANY),
    "remove a node": ("node.pair.remove", on_node, set(), ADMINS),
    "rename a node": ("node.rename", lambda gate: on_node(gate, displayName="shelf"), set(), ANY),
    "a limited code": ("device.pair.setupCode", lambda gate: nobody(gate, bootstrapProfile="limited"), set(), ADMINS),
    "a code for a node": ("device.pair.setupCode", lambda gate: nobody(gate, bootstrapProfile="node"), set(), ADMINS),
}
READING = {"device.pair.list", "device.pair.setupStatus", "node.pair.list"}


@pytest_asyncio.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gate]:
    """A gateway that asks a person for everything."""
    async with opened(tmp_path, policy="ask") as opened_gate:
        yield opened_gate


def may(held: frozenset[str], needed: set[str], whom: str, *, foreign: bool) -> bool:
    """Whether a caller who has this may do it; to a device that is not the caller's own, where the caller is one."""
    if not {"operator.pairing", *needed} <= held:
        return False
    return "operator.admin" in held or whom == ANY or (whom == OWN and not foreign)


def standing(gate: Gate) -> list[dict[Any, Any]]:
    """All that there is of devices, nodes and codes."""
    roster, nodes = gate.roster, gate.nodes
    return [dict(part) for part in (roster.devices, roster.requests, roster.setups, nodes.nodes, nodes.requests)]


async def test_every_operation_that_gives_or_takes_a_right_is_walked_through(gate: Gate) -> None:
    changing = {name for name, method in gate.methods.items() if method.scopes & {Scope.PAIRING, Scope.ADMIN}} - READING
    assert changing == {method for method, *_ in OPERATIONS.values()}


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_who_lacks_what_an_operation_takes_changes_nothing(operation: str, gate: Gate) -> None:
    method, prepare, needed, whom = OPERATIONS[operation]
    target, params = await prepare(gate)
    for scopes, kind in itertools.product(HELD, ("a person", "the device itself", "another device")):
        principal = {"a person": "token", "the device itself": f"device:{target}", "another device": f"device:{'0' * 64}"}[kind]
        person = Person(scopes=frozenset(scopes), principal=principal)
        before = standing(gate)
        allowed = may(effective_scopes(scopes), needed, whom, foreign=kind == "another device")
        if allowed:
            await gate.call(method, person, **params)
            await gate.settled()
            # Devices, requests and codes are bounded.
            gate.clock.now += SETUP_MS + 1
            target, params = await prepare(gate)
            continue
        with pytest.raises(Forbidden) as refusal:
            await gate.call(method, person, **params)
        assert refusal.value.details is not None
        assert refusal.value.details["missingScope"] not in effective_scopes(scopes)
        assert standing(gate) == before


@pytest.mark.parametrize("profile", ["limited", "node"])
async def test_a_code_gives_nobody_more_than_it_was_made_for(profile: str, gate: Gate) -> None:
    """S4: each role and scope asked for, with the code, and then with the token that came of it."""
    given = PROFILES[profile]  # type: ignore[index]  # one of them
    every = [(), *((scope,) for scope in sorted(ALL_SCOPES)), tuple(sorted(ALL_SCOPES))]
    for role, asked in itertools.product(("operator", "node"), every):
        gate.clock.now += SETUP_MS + 1
        code = await gate.call("device.pair.setupCode", bootstrapProfile=profile)
        (setup,) = [setup for setup in gate.roster.setups.values() if setup.setup_id == code["setupId"]]
        assert setup.access == profile
        device, scopes = TestDevice(), asked if role == "operator" else ()
        bootstrap = {"bootstrapToken": str(read_code(code["setupCode"])["bootstrapToken"])}
        actions = await gate.shake(device, REMOTE, auth=bootstrap, role=role, scopes=scopes)
        if role not in given:
            refused(actions)
            continue
        accept = accepted(actions)
        limit = effective_scopes(given[role])
        assert accept.grant is not None
        assert effective_scopes(accept.scopes) <= limit
        again = await gate.shake(device, REMOTE, auth={"deviceToken": accept.grant.token}, role=role, scopes=scopes)
        last = again[-1]
        assert effective_scopes(getattr(last, "scopes", ())) <= limit
        await gate.call("device.pair.remove", deviceId=device.id)
