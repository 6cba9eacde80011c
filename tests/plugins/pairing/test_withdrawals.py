"""What was taken away stays away: over rotations, restarts, and an older copy of the database put back. S20."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from openclaw_kernel.api import ConfigRejected, Unavailable
from openclaw_plugins.pairing import withdrawals
from tests.kernel.protocol.transcript import REMOTE, accepted, refused
from tests.plugins.pairing.harness import READ, Gate, Person, TestDevice, opened

ADMIN = ("operator.admin",)
DATABASE = "state.sqlite3"


@pytest_asyncio.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gate]:
    """A gateway that asks a person for every device."""
    async with opened(tmp_path, policy="ask") as opened_gate:
        yield opened_gate


async def paired(gate: Gate, device: TestDevice, scopes: tuple[str, ...] = ADMIN, role: str = "operator") -> str:
    """Approve a device; the token it was given."""
    error, _ = refused(await gate.shake(device, REMOTE, scopes=scopes, role=role))
    await gate.call("device.pair.approve", requestId=error["details"]["requestId"])
    return await used(gate, device, None, scopes, role)


async def used(gate: Gate, device: TestDevice, token: str | None, scopes: tuple[str, ...] = ADMIN, role: str = "operator") -> str:
    """Connect, with a token or the shared secret; the token that the device is told."""
    auth = None if token is None else {"deviceToken": token}
    grant = accepted(await gate.shake(device, REMOTE, auth=auth, scopes=scopes, role=role)).grant
    assert grant is not None
    await gate.settled()
    return grant.token


async def code_of(gate: Gate, device: TestDevice, token: str, scopes: tuple[str, ...] = ADMIN, role: str = "operator") -> str:
    """Why a token opens no more."""
    error, _ = refused(await gate.shake(device, REMOTE, auth={"deviceToken": token}, scopes=scopes, role=role))
    return str(error["details"]["code"])


def copy_of(folder: Path) -> Path:
    """A copy of the database as it is on disk now; its gateway does not run."""
    copy = folder / "copy"
    copy.mkdir()
    for file in folder.glob(f"{DATABASE}*"):
        shutil.copy(file, copy)
    return copy


def put_back(folder: Path, copy: Path) -> None:
    """Put the copy in the place of the database."""
    for file in folder.glob(f"{DATABASE}*"):
        file.unlink()
    for file in copy.iterdir():
        shutil.copy(file, folder)


# --- rotation ---


@pytest.mark.parametrize("restart", [False, True])
async def test_after_a_rotation_the_old_token_opens_until_the_new_one_is_shown(tmp_path: Path, *, restart: bool) -> None:
    """P18, S20: the device is told the new one when it comes with the old one, also where the gateway forgot its text meanwhile."""
    device = TestDevice()
    async with opened(tmp_path, policy="ask") as gate:
        old = await paired(gate, device)
        assert await used(gate, device, old) == old
        rotated = await gate.call("device.token.rotate", deviceId=device.id, role="operator")
        assert "token" not in rotated
        if not restart:
            await check_rotated(gate, device, old)
    if restart:
        async with opened(tmp_path, clock=gate.clock) as gate:
            await check_rotated(gate, device, old)


async def check_rotated(gate: Gate, device: TestDevice, old: str) -> None:
    new = await used(gate, device, old)
    assert new != old
    # It did not keep what it was told; it is told the same again.
    assert await used(gate, device, old) == new
    assert await used(gate, device, new) == new
    assert await code_of(gate, device, old) == "AUTH_DEVICE_TOKEN_MISMATCH"
    assert await used(gate, device, new) == new


async def test_a_device_that_rotates_itself_is_told_at_once_and_comes_back_with_either(gate: Gate) -> None:
    device = TestDevice()
    old = await paired(gate, device)
    own = Person(principal=f"device:{device.id}")
    new = (await gate.call("device.token.rotate", own, deviceId=device.id, role="operator"))["token"]
    assert await used(gate, device, old) == new
    assert await used(gate, device, new) == new
    assert await code_of(gate, device, old) == "AUTH_DEVICE_TOKEN_MISMATCH"


async def test_a_rotation_that_narrows_narrows_the_old_token_at_once(tmp_path: Path) -> None:
    """S20: nobody keeps what was taken from it by never showing the new token."""
    device = TestDevice()
    async with opened(tmp_path, policy="ask") as gate:
        old = await paired(gate, device)
        await gate.call("device.token.rotate", deviceId=device.id, role="operator", scopes=["operator.read"])
        assert await code_of(gate, device, old) == "AUTH_SCOPE_MISMATCH"
    async with opened(tmp_path, clock=gate.clock) as gate:
        assert await code_of(gate, device, old) == "AUTH_SCOPE_MISMATCH"
        told = await used(gate, device, old, READ)
        assert await code_of(gate, device, told) == "AUTH_SCOPE_MISMATCH"
        assert await used(gate, device, told, READ) == told


async def test_the_old_token_is_over_as_soon_as_the_new_one_is_shown_before_that_is_on_disk(gate: Gate) -> None:
    device = TestDevice()
    old = await paired(gate, device)
    own = Person(principal=f"device:{device.id}")
    new = (await gate.call("device.token.rotate", own, deviceId=device.id, role="operator"))["token"]
    async with gate.roster.changes.lock:
        accepted(await gate.shake(device, REMOTE, auth={"deviceToken": new}))
        assert await code_of(gate, device, old) == "AUTH_DEVICE_TOKEN_MISMATCH"


async def test_every_rotation_ends_the_connections_of_its_role(gate: Gate) -> None:
    device = TestDevice()
    await paired(gate, device)
    await gate.call("device.token.rotate", deviceId=device.id, role="operator")
    assert gate.context.connections.ended == [(f"device:{device.id}", "device-token-rotated", "operator")]


# --- an older copy of the database put back ---


async def take_away(gate: Gate, device: TestDevice, how: str, token: str) -> None:
    """Take away what the device has, in one of the ways there are."""
    if how == "removed":
        await gate.call("device.pair.remove", deviceId=device.id)
    elif how == "revoked":
        await gate.call("device.token.revoke", deviceId=device.id, role="operator")
    else:
        await gate.call("device.token.rotate", deviceId=device.id, role="operator")
        if how == "rotated and used":
            await used(gate, device, await used(gate, device, token))


@pytest.mark.parametrize("policy", ["ask", "auto"])
@pytest.mark.parametrize("how", ["removed", "revoked", "rotated", "rotated and used"])
async def test_an_older_database_gives_nothing_back(tmp_path: Path, how: str, policy: str) -> None:
    """S20: neither the token, nor the right, nor the silent approval of this machine's programs."""
    device, other = TestDevice(), TestDevice()
    async with opened(tmp_path, policy="ask") as gate:
        token, kept = await paired(gate, device), await paired(gate, other)
    copy = copy_of(tmp_path)
    async with opened(tmp_path, clock=gate.clock) as gate:
        await take_away(gate, device, how, token)
    for _ in range(2):
        put_back(tmp_path, copy)
        # A second start finds what the first one made of it.
        for _ in range(2):
            async with opened(tmp_path, policy=policy, clock=gate.clock) as gate:
                assert await code_of(gate, device, token) == "AUTH_DEVICE_TOKEN_MISMATCH"
                assert await used(gate, other, kept) == kept
                if how in {"removed", "revoked"}:
                    error, _ = refused(await gate.shake(device, scopes=READ))
                    reason = {"removed": "not-paired", "revoked": "role-upgrade"}[how]
                    assert (error["details"]["code"], error["details"]["reason"]) == ("PAIRING_REQUIRED", reason)


async def test_what_a_person_gave_back_since_the_copy_is_asked_for_again_and_what_the_copy_had_is_not(tmp_path: Path) -> None:
    device = TestDevice()
    async with opened(tmp_path, policy="ask") as gate:
        await paired(gate, device)
    copy = copy_of(tmp_path)
    async with opened(tmp_path, policy="ask", clock=gate.clock) as gate:
        await gate.call("device.pair.remove", deviceId=device.id)
        narrow = await paired(gate, device, READ)
    async with opened(tmp_path, policy="ask", clock=gate.clock) as gate:
        assert await used(gate, device, narrow, READ) == narrow
    put_back(tmp_path, copy)
    async with opened(tmp_path, policy="ask", clock=gate.clock) as gate:
        error, _ = refused(await gate.shake(device, scopes=READ))
        assert error["details"]["reason"] == "not-paired"
        again = await paired(gate, device, READ)
    async with opened(tmp_path, policy="ask", clock=gate.clock) as gate:
        assert await used(gate, device, again, READ) == again


async def test_a_request_that_an_older_database_has_is_no_longer_there(tmp_path: Path) -> None:
    device, asking = TestDevice(), TestDevice()
    async with opened(tmp_path, policy="ask") as gate:
        await paired(gate, device)
        refused(await gate.shake(asking, REMOTE, scopes=ADMIN))
    copy = copy_of(tmp_path)
    async with opened(tmp_path, policy="ask", clock=gate.clock) as gate:
        await gate.call("device.pair.remove", deviceId=device.id)
    put_back(tmp_path, copy)
    async with opened(tmp_path, policy="ask", clock=gate.clock) as gate:
        assert (await gate.call("device.pair.list"))["pending"] == []


async def test_a_crash_between_the_file_and_the_database_takes_away_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = TestDevice()
    async with opened(tmp_path, policy="ask") as gate:
        token = await paired(gate, device)

        async def fails(*_: Any) -> Any:
            raise Unavailable("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(gate.context.store, "write", fails)
            with pytest.raises(Unavailable, match="disk is full"):
                await gate.call("device.token.revoke", deviceId=device.id, role="operator")
        assert gate.context.connections.ended == [(f"device:{device.id}", "device-token-revoked", "operator")]
        assert await code_of(gate, device, token) == "AUTH_DEVICE_TOKEN_MISMATCH"
    async with opened(tmp_path, clock=gate.clock) as gate:
        assert await code_of(gate, device, token) == "AUTH_DEVICE_TOKEN_MISMATCH"


async def test_where_the_file_cannot_be_written_nothing_is_withdrawn_and_that_is_said(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = TestDevice()
    token = await paired(gate, device)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(withdrawals, "_replace", full)
        with pytest.raises(Unavailable, match=r"withdrawn\.json: cannot be written \(no space left on device\); nothing was withdrawn"):
            await gate.call("device.pair.remove", deviceId=device.id)
    assert await used(gate, device, token) == token
    await gate.call("device.pair.remove", deviceId=device.id)
    assert set(json.loads((tmp_path / "withdrawn.json").read_text())["devices"]) == {device.id}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"generation": 1e999, "forgotten": 0, "devices": {}}',
        '{"generation": 1, "forgotten": 0, "devices": {"one": {"removed": [1]}}}',
        "[" * 100_000,
    ],
    ids=["empty", "truncated", "a list", "endless", "half a row", "deep"],
)
async def test_a_file_that_cannot_be_read_lets_nobody_in(tmp_path: Path, content: str) -> None:
    async with opened(tmp_path):
        pass
    (tmp_path / "withdrawn.json").write_text(content)
    with pytest.raises(ConfigRejected, match="no device is let in; put the file back"):
        async with opened(tmp_path):
            pass


async def test_a_file_that_is_gone_is_written_anew_from_the_database(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    device, node = TestDevice(), TestDevice()
    async with opened(tmp_path, policy="ask") as gate:
        await paired(gate, device)
        await paired(gate, node, (), "node")
        await gate.call("device.token.revoke", deviceId=device.id, role="operator")
        await gate.call("device.pair.remove", deviceId=node.id)
    copy = copy_of(tmp_path)
    (tmp_path / "withdrawn.json").unlink()
    async with opened(tmp_path, clock=gate.clock):
        pass
    assert "withdrawn.json was there before and is gone" in caplog.text
    assert set(json.loads((tmp_path / "withdrawn.json").read_text())["devices"]) == {device.id, node.id}
    put_back(tmp_path, copy)
    async with opened(tmp_path, clock=gate.clock) as gate:
        refused(await gate.shake(device, scopes=READ))


async def test_a_database_older_than_what_the_file_still_keeps_is_believed_in_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(withdrawals, "MOST", 2)
    devices = [TestDevice() for _ in range(4)]
    async with opened(tmp_path, policy="ask") as gate:
        for device in devices:
            await paired(gate, device)
    copy = copy_of(tmp_path)
    async with opened(tmp_path, policy="ask", clock=gate.clock) as gate:
        for device in devices[:3]:
            await gate.call("device.pair.remove", deviceId=device.id)
        assert len(gate.roster.devices) == 1
    assert len(json.loads((tmp_path / "withdrawn.json").read_text())["devices"]) == 2
    async with opened(tmp_path, policy="ask", clock=gate.clock) as gate:
        assert len(gate.roster.devices) == 1
    put_back(tmp_path, copy)
    async with opened(tmp_path, policy="ask", clock=gate.clock) as gate:
        assert gate.roster.devices == {}


async def test_the_first_use_of_the_only_token_costs_no_withdrawal(gate: Gate, tmp_path: Path) -> None:
    device = TestDevice()
    token = await paired(gate, device)
    await used(gate, device, token)
    assert not (tmp_path / "withdrawn.json").exists()


# --- what is written down ---


async def rows(gate: Gate) -> list[tuple[str, str, str]]:
    """Action, actor and subject of each row of the audit log."""

    def read(connection: Any) -> list[tuple[str, str, str]]:
        return connection.execute("SELECT action, actor, subject FROM kernel_audit ORDER BY sequence").fetchall()  # type: ignore[no-any-return]

    found: list[tuple[str, str, str]] = await gate.context.store.read(read)
    return found


async def test_each_step_of_a_device_is_a_row_of_the_audit_log(gate: Gate) -> None:
    device = TestDevice()
    token, subject = await paired(gate, device), f"device:{device.id}"
    await gate.call("device.pair.rename", deviceId=device.id, label="laptop")
    await gate.call("device.token.rotate", deviceId=device.id, role="operator")
    await used(gate, device, await used(gate, device, token))
    error, _ = refused(await gate.shake(device, REMOTE, role="node", scopes=()))
    await gate.call("device.pair.reject", requestId=error["details"]["requestId"])
    await gate.call("device.token.revoke", deviceId=device.id, role="operator")
    await gate.call("device.pair.remove", deviceId=device.id)
    assert await rows(gate) == [
        ("device.requested", subject, subject),
        ("device.approved", "token", subject),
        ("token.issued", subject, subject),
        ("device.renamed", "token", subject),
        ("token.rotated", "token", subject),
        ("token.retired", subject, subject),
        ("device.requested", subject, subject),
        ("device.rejected", "token", subject),
        ("token.revoked", "token", subject),
        ("device.removed", "token", subject),
    ]


# --- names ---


async def test_a_device_is_called_what_a_person_calls_it_and_keeps_what_it_says_of_itself(tmp_path: Path) -> None:
    device = TestDevice()
    async with opened(tmp_path, policy="ask") as gate:
        await paired(gate, device)
        told = await gate.call("device.pair.rename", deviceId=device.id, label="kitchen\x1b[2J \u202etablet ")
        assert told == {"deviceId": device.id, "label": "kitchen[2J tablet"}
    async with opened(tmp_path, policy="ask", clock=gate.clock) as gate:
        (row,) = (await gate.call("device.pair.list"))["paired"]
        assert row["label"] == "kitchen[2J tablet"
