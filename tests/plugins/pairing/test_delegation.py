"""Who may do what to whose device: nobody hands out, or takes, more than it has. S5."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from openclaw_kernel.api import Forbidden, GatewayError, InvalidRequest, effective_scopes
from tests.kernel.protocol.transcript import accepted, refused
from tests.plugins.pairing.harness import Gate, Person, TestDevice, opened

PAIRING = frozenset({"operator.pairing"})
CALLERS = {
    "nothing": frozenset[str](),
    "pairing": PAIRING,
    "reader": PAIRING | {"operator.read"},
    "writer": PAIRING | {"operator.write"},
    "admin": frozenset({"operator.admin"}),
}
METHODS = ["device.pair.approve", "device.pair.reject", "device.pair.remove", "device.token.rotate", "device.token.revoke"]
ASKED = [
    (),
    ("operator.read",),
    ("operator.write", "operator.talk"),
    ("operator.pairing",),
    ("operator.admin",),
    ("operator.talk.secrets",),
]


@pytest_asyncio.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gate]:
    """A gateway that asks a person for every device."""
    async with opened(tmp_path, policy="ask") as opened_gate:
        yield opened_gate


async def waiting(gate: Gate, device: TestDevice, **more: Any) -> str:
    """The id of the request of a device."""
    error, _ = refused(await gate.shake(device, **more))
    return str(error["details"]["requestId"])


async def paired(gate: Gate, scopes: tuple[str, ...], role: str = "operator") -> TestDevice:
    """A device that the owner approved."""
    device = TestDevice()
    await gate.call("device.pair.approve", requestId=await waiting(gate, device, scopes=scopes, role=role))
    return device


def may(caller: frozenset[str], role: str, scopes: tuple[str, ...]) -> bool:
    """Whether a person with these scopes may hand out that."""
    held = effective_scopes(caller)
    return {"operator.pairing", *scopes} <= held and (role == "operator" or "operator.admin" in held)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("role", ["operator", "node"])
async def test_nobody_approves_or_rotates_beyond_its_own_scopes(gate: Gate, caller: str, role: str) -> None:
    """S5: caller x asked x operation."""
    person = Person(scopes=CALLERS[caller])
    for scopes in ASKED:
        asked = scopes if role == "operator" else ()
        device = TestDevice()
        request_id = await waiting(gate, device, scopes=scopes, role=role)
        if may(person.scopes, role, asked):
            await gate.call("device.pair.approve", person, requestId=request_id)
        else:
            with pytest.raises(Forbidden, match=r"missing scope: operator\."):
                await gate.call("device.pair.approve", person, requestId=request_id)
            refused(await gate.shake(device, scopes=scopes, role=role))
            await gate.call("device.pair.approve", requestId=request_id)
        grant = accepted(await gate.shake(device, scopes=scopes, role=role)).grant
        assert grant is not None
        try:
            await gate.call("device.token.rotate", person, deviceId=device.id, role=role)
            assert may(person.scopes, role, asked)
        except Forbidden:
            assert not may(person.scopes, role, asked)
            auth = {"deviceToken": grant.token}
            accepted(await gate.shake(device, auth=auth, scopes=scopes, role=role))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("caller_scopes", [PAIRING | {"operator.read"}, frozenset({"operator.admin"})])
async def test_a_device_manages_itself_and_others_only_as_an_admin(gate: Gate, method: str, caller_scopes: frozenset[str]) -> None:
    for is_own in (True, False):
        device, role = await paired(gate, ("operator.read",)), "operator"
        person = Person(scopes=caller_scopes, principal=f"device:{device.id if is_own else '0' * 64}")
        params: dict[str, Any] = {"deviceId": device.id, "role": role}
        if method == "device.pair.remove":
            params = {"deviceId": device.id}
        elif method.startswith("device.pair"):
            params = {"requestId": await waiting(gate, device, scopes=("operator.read", "operator.pairing"))}
        if is_own or "operator.admin" in caller_scopes:
            result = await gate.call(method, person, **params)
            if method == "device.token.rotate":
                assert ("token" in result) is is_own
                assert result["tokenDelivery"] == ("in-band" if is_own else "withheld-cross-device")
        else:
            with pytest.raises(Forbidden, match="manages only itself"):
                await gate.call(method, person, **params)


async def test_a_device_cannot_raise_itself(gate: Gate) -> None:
    """S5: what a device asks for itself, it cannot approve."""
    device = await paired(gate, ("operator.pairing",))
    own = Person(scopes=PAIRING, principal=f"device:{device.id}")
    with pytest.raises(Forbidden, match=r"missing scope: operator\.admin"):
        await gate.call("device.pair.approve", own, requestId=await waiting(gate, device, scopes=("operator.admin",)))
    with pytest.raises(Forbidden, match=r"missing scope: operator\.read"):
        await gate.call("device.token.rotate", own, deviceId=device.id, role="operator", scopes=["operator.read"])
    with pytest.raises(Forbidden, match=r"missing scope: operator\.admin"):
        await gate.call("device.pair.approve", own, requestId=await waiting(gate, device, scopes=(), role="node"))


@pytest.mark.parametrize("asked", [(), ("operator.read",)])
@pytest.mark.parametrize("role", ["operator", "node"])
async def test_who_lets_a_changed_device_back_in_hands_out_all_that_it_had(gate: Gate, asked: tuple[str, ...], role: str) -> None:
    """S5: the pin is all that keeps it out."""
    device = await paired(gate, ("operator.admin",))
    if role == "node":
        await gate.call("device.token.revoke", deviceId=device.id, role="operator")
        await gate.call("device.pair.approve", requestId=await waiting(gate, device, scopes=("operator.read",)))
        await gate.call("device.pair.approve", requestId=await waiting(gate, device, scopes=(), role="node"))
    request_id = await waiting(gate, device, scopes=asked, platform="windows")
    with pytest.raises(Forbidden, match=r"missing scope: operator\.admin"):
        await gate.call("device.pair.approve", Person(scopes=PAIRING | {"operator.read"}), requestId=request_id)
    refused(await gate.shake(device, scopes=asked, platform="windows"))
    await gate.call("device.pair.approve", requestId=await waiting(gate, device, scopes=asked, platform="windows"))
    accepted(await gate.shake(device, scopes=asked, platform="windows"))


async def test_nothing_is_rotated_beyond_what_the_device_is_approved_for(gate: Gate) -> None:
    device = await paired(gate, ("operator.read",))
    with pytest.raises(InvalidRequest, match=r"not approved for operator\.write"):
        await gate.call("device.token.rotate", deviceId=device.id, role="operator", scopes=["operator.write"])
    with pytest.raises(InvalidRequest, match="has no role 'node'; it has operator"):
        await gate.call("device.token.rotate", deviceId=device.id, role="node")


async def test_a_device_that_is_no_admin_sees_only_itself(gate: Gate) -> None:
    first, second = await paired(gate, ("operator.pairing",)), await paired(gate, ("operator.pairing",))
    await waiting(gate, TestDevice())
    own = await gate.call("device.pair.list", Person(scopes=PAIRING, principal=f"device:{first.id}"))
    assert ([row["deviceId"] for row in own["paired"]], own["pending"]) == ([first.id], [])
    everybody = await gate.call("device.pair.list")
    assert {row["deviceId"] for row in everybody["paired"]} == {first.id, second.id}
    assert len(everybody["pending"]) == 1


async def test_each_decision_is_made_once(gate: Gate) -> None:
    request_id = await waiting(gate, TestDevice())
    for first, second in itertools.product(["approve", "reject"], repeat=2):
        request_id = await waiting(gate, TestDevice())
        await gate.call(f"device.pair.{first}", requestId=request_id)
        with pytest.raises(GatewayError, match="unknown requestId"):
            await gate.call(f"device.pair.{second}", requestId=request_id)


async def test_approvals_at_once_do_not_slip_past_the_bound_of_devices(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [await waiting(gate, TestDevice()) for _ in range(4)]
    monkeypatch.setattr("openclaw_plugins.pairing.book.MOST_DEVICES", 2)
    approvals = [gate.call("device.pair.approve", requestId=request_id) for request_id in requests]
    answers = await asyncio.gather(*approvals, return_exceptions=True)
    assert [isinstance(answer, InvalidRequest) for answer in answers] == [False, False, True, True]
    assert len(gate.roster.devices) == 2


async def test_what_is_taken_away_ends_the_connections_of_its_role(gate: Gate) -> None:
    device = await paired(gate, ("operator.read",))
    principal = f"device:{device.id}"
    await gate.call("device.token.rotate", deviceId=device.id, role="operator")
    await gate.call("device.token.revoke", deviceId=device.id, role="operator")
    await gate.call("device.pair.remove", deviceId=device.id)
    assert gate.context.connections.ended == [
        (principal, "device-token-rotated", "operator"),
        (principal, "device-token-revoked", "operator"),
        (principal, "device-pair-removed", None),
    ]
