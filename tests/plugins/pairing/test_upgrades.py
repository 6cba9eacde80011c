"""A device that is connected asks for more scopes: a person decides, and the device alone is told its new token. S4, S5."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from openclaw_kernel.api import Forbidden, InvalidRequest, Unavailable
from openclaw_plugins.pairing.records import PENDING_MS
from tests.kernel.protocol.transcript import REMOTE, accepted, refused
from tests.plugins.pairing.harness import READ, Gate, Person, TestDevice, opened
from tests.plugins.pairing.test_withdrawals import code_of, paired, used

WRITE = ["operator.read", "operator.write"]


@pytest_asyncio.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gate]:
    """A gateway that asks a person for every device."""
    async with opened(tmp_path, policy="ask") as opened_gate:
        yield opened_gate


def own(device: TestDevice, role: str = "operator") -> Person:
    """The device itself, connected to read."""
    return Person(scopes=frozenset(READ), principal=f"device:{device.id}", role=role)


async def asked(gate: Gate, device: TestDevice, scopes: list[str]) -> str:
    """Ask; the id of the request."""
    return str((await gate.call("device.scopes.requestUpgrade", own(device), scopes=scopes))["requestId"])


@pytest.mark.parametrize("waits_first", [True, False])
async def test_what_a_person_approves_comes_with_a_token_that_has_it(gate: Gate, *, waits_first: bool) -> None:
    device = TestDevice()
    old = await paired(gate, device, READ)
    request_id = await asked(gate, device, WRITE)
    assert await asked(gate, device, WRITE) == request_id
    (row,) = (await gate.call("device.pair.list"))["pending"]
    assert (row["requestId"], row["reason"], row["scopes"]) == (request_id, "scope-upgrade", WRITE)
    waiting = asyncio.ensure_future(gate.call("device.scopes.waitUpgrade", own(device), requestId=request_id))
    if waits_first:
        await asyncio.sleep(0)
        assert not waiting.done()
    await gate.call("device.pair.approve", requestId=request_id)
    result = await waiting
    assert (result["status"], result["scopes"]) == ("approved", WRITE)
    assert await used(gate, device, result["deviceToken"], tuple(WRITE)) == result["deviceToken"]
    assert await code_of(gate, device, old, READ) == "AUTH_DEVICE_TOKEN_MISMATCH"


async def test_a_refusal_and_the_end_of_its_time_are_told_apart(gate: Gate) -> None:
    device = TestDevice()
    await paired(gate, device, READ)
    request_id = await asked(gate, device, WRITE)
    waiting = asyncio.ensure_future(gate.call("device.scopes.waitUpgrade", own(device), requestId=request_id))
    await asyncio.sleep(0)
    await gate.call("device.pair.reject", requestId=request_id)
    assert await waiting == {"status": "rejected", "requestId": request_id}
    request_id = await asked(gate, device, WRITE)
    gate.clock.now += PENDING_MS + 1
    await gate.book.expire()
    assert await gate.call("device.scopes.waitUpgrade", own(device), requestId=request_id) == {"status": "expired", "requestId": request_id}
    assert accepted(await gate.shake(device, REMOTE, scopes=READ)).scopes == READ


async def test_nobody_waits_for_the_token_of_another_device(gate: Gate) -> None:
    """S5: a token is told to the device that asked, and to no other."""
    device, other = TestDevice(), TestDevice()
    await paired(gate, device, READ)
    await paired(gate, other, READ)
    request_id = await asked(gate, device, WRITE)
    for decided in (False, True):
        if decided:
            await gate.call("device.pair.approve", requestId=request_id)
        with pytest.raises(InvalidRequest, match="unknown requestId"):
            await gate.call("device.scopes.waitUpgrade", own(other), requestId=request_id)
        with pytest.raises(InvalidRequest, match="only a paired device"):
            await gate.call("device.scopes.waitUpgrade", Person(), requestId=request_id)
        with pytest.raises(InvalidRequest, match="only a paired device"):
            await gate.call("device.scopes.waitUpgrade", own(device, role="node"), requestId=request_id)


async def test_asking_gives_nothing_and_a_device_cannot_approve_itself(gate: Gate) -> None:
    """S4, S5."""
    device = TestDevice()
    token = await paired(gate, device, ("operator.read", "operator.pairing"))
    request_id = await asked(gate, device, ["operator.admin"])
    person = Person(scopes=frozenset({"operator.pairing", "operator.read"}), principal=f"device:{device.id}")
    with pytest.raises(Forbidden, match=r"missing scope: operator\.admin"):
        await gate.call("device.pair.approve", person, requestId=request_id)
    assert await code_of(gate, device, token, ("operator.admin",)) == "PAIRING_REQUIRED"


async def test_an_upgrade_gives_a_narrowed_token_what_was_approved_and_not_the_rest_of_its_role(gate: Gate) -> None:
    """S5: who approves one scope has not undone the rotation that took the others away."""
    device = TestDevice()
    await paired(gate, device, ("operator.write",))
    await gate.call("device.token.rotate", deviceId=device.id, role="operator", scopes=["operator.read"])
    request_id = await asked(gate, device, ["operator.approvals"])
    person = Person(scopes=frozenset({"operator.pairing", "operator.approvals"}))
    await gate.call("device.pair.approve", person, requestId=request_id)
    token = (await gate.call("device.scopes.waitUpgrade", own(device), requestId=request_id))["deviceToken"]
    assert await used(gate, device, token, ("operator.read", "operator.approvals")) == token
    assert await code_of(gate, device, token, ("operator.write",)) == "AUTH_SCOPE_MISMATCH"


async def test_an_approval_of_before_does_not_undo_a_rotation_that_narrows(gate: Gate) -> None:
    """S5, S20: what was approved once is told once more, and no longer than nobody takes it away."""
    device = TestDevice()
    await paired(gate, device, READ)
    request_id = await asked(gate, device, WRITE)
    await gate.call("device.pair.approve", requestId=request_id)
    await gate.call("device.scopes.waitUpgrade", own(device), requestId=request_id)
    token = (await gate.call("device.scopes.waitUpgrade", own(device), requestId=request_id))["deviceToken"]
    await gate.call("device.token.rotate", deviceId=device.id, role="operator", scopes=list(READ))
    with pytest.raises(InvalidRequest, match="a rotation took away"):
        await gate.call("device.scopes.waitUpgrade", own(device), requestId=request_id)
    assert await code_of(gate, device, token, tuple(WRITE)) == "AUTH_SCOPE_MISMATCH"


async def test_a_request_for_something_else_gives_no_token(gate: Gate) -> None:
    device = TestDevice()
    await paired(gate, device, READ)
    error, _ = refused(await gate.shake(device, REMOTE, role="node", scopes=()))
    request_id = error["details"]["requestId"]
    await gate.call("device.pair.approve", requestId=request_id)
    with pytest.raises(InvalidRequest, match="asked for no scopes"):
        await gate.call("device.scopes.waitUpgrade", own(device), requestId=request_id)


async def test_what_cannot_be_asked_for_is_said_with_the_cure(gate: Gate) -> None:
    device = TestDevice()
    await paired(gate, device, READ)
    with pytest.raises(InvalidRequest, match="approved for these already; connect again"):
        await asked(gate, device, ["operator.sessions.read"])
    with pytest.raises(InvalidRequest, match=r"there is no scope 'operator\.all'"):
        await asked(gate, device, ["operator.all"])
    with pytest.raises(InvalidRequest, match="only a paired device"):
        await gate.call("device.scopes.requestUpgrade", Person(), scopes=WRITE)


async def test_where_too_many_wait_no_further_request_is_kept(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    device = TestDevice()
    await paired(gate, device, READ)
    monkeypatch.setattr("openclaw_plugins.pairing.tables.MOST_REQUESTS", 0)
    with pytest.raises(Unavailable, match="too many devices wait"):
        await asked(gate, device, WRITE)


async def test_a_device_removed_before_it_is_told_gets_no_token(gate: Gate) -> None:
    """S20."""
    device = TestDevice()
    await paired(gate, device, READ)
    request_id = await asked(gate, device, WRITE)
    await gate.call("device.pair.approve", requestId=request_id)
    await gate.call("device.token.revoke", deviceId=device.id, role="operator")
    with pytest.raises(InvalidRequest, match="lost what was approved"):
        await gate.call("device.scopes.waitUpgrade", own(device), requestId=request_id)
