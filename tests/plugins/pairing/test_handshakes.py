"""Devices at the door: who is let in, who waits, and what each is told. S3, S4, S6, S17, S18, S20."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from openclaw_kernel.api import Forbidden, InvalidRequest, effective_scopes
from openclaw_kernel.protocol.handshake import Close, Peer
from openclaw_plugins.pairing.records import LONGEST_PENDING_MS, PENDING_MS
from openclaw_plugins.pairing.tables import MOST_PER_ADDRESS, MOST_REQUESTS
from tests.kernel.protocol.transcript import LOCAL, REMOTE, TOKEN, accepted, refused
from tests.plugins.pairing.harness import READ, Gate, Person, TestDevice, opened

BROWSER = Peer(address="127.0.0.1", direct_local=True, origin="http://127.0.0.1:18789")
FORWARDED = Peer(address="127.0.0.1", direct_local=False)
ADMIN = ("operator.admin",)
SECRET = {"token": TOKEN}


@pytest_asyncio.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gate]:
    """A gateway that asks a person for every device."""
    async with opened(tmp_path, policy="ask") as opened_gate:
        yield opened_gate


async def waits(gate: Gate, device: TestDevice, peer: Peer = LOCAL, **more: Any) -> dict[str, Any]:
    """The details of the refusal of a device that waits."""
    error, close = refused(await gate.shake(device, peer, **more))
    details: dict[str, Any] = error["details"]
    assert error["code"] == "NOT_PAIRED"
    assert error["message"].startswith("pairing required: ")
    assert details["code"] == "PAIRING_REQUIRED"
    if "requestId" in details:
        assert close == Close(1008, f"pairing required (requestId:{details['requestId']})")
    return details


async def paired(gate: Gate, *, scopes: tuple[str, ...] = ADMIN, **more: Any) -> TestDevice:
    """A device that a person approved."""
    device = TestDevice()
    details = await waits(gate, device, scopes=scopes, **more)
    await gate.call("device.pair.approve", requestId=details["requestId"])
    return device


async def token_of(gate: Gate, device: TestDevice, **more: Any) -> str:
    """The token the device is given."""
    grant = accepted(await gate.shake(device, **more)).grant
    assert grant is not None
    return grant.token


# --- the one silent approval (S17) ---


@pytest.mark.parametrize("peer", [LOCAL, REMOTE, BROWSER, FORWARDED], ids=["local", "remote", "browser", "forwarded"])
@pytest.mark.parametrize("role", ["operator", "node"])
@pytest.mark.parametrize("mode", ["token", "password", "none"])
@pytest.mark.parametrize("policy", ["auto", "ask"])
async def test_only_a_local_program_with_the_secret_is_approved_by_itself(
    tmp_path: Path, peer: Peer, role: str, mode: str, policy: str
) -> None:
    """S2, S17: neither address nor header nor Origin gives a right; the policy is the only exception, and needs the secret."""
    auth = {} if mode == "none" else {mode: TOKEN}
    client = ("openclaw-control-ui", "ui") if peer is BROWSER else ("test", "test")
    async with opened(tmp_path, policy=policy, mode=mode) as gate:
        actions = await gate.shake(TestDevice(), peer, auth=auth, role=role, client=client, scopes=ADMIN)
        if (peer, role, policy) == (LOCAL, "operator", "auto") and mode != "none":
            accept = accepted(actions)
            assert accept.scopes == ADMIN
            assert accept.verified.principal.startswith("device:")
        else:
            error, _ = refused(actions)
            assert error["details"]["reason"] == "not-paired"
            assert (await gate.call("device.pair.list"))["paired"] == []


@pytest.mark.parametrize("upgrade", [{"scopes": ADMIN}, {"platform": "windows"}])
async def test_what_a_local_program_changes_about_itself_is_approved_as_it_was(tmp_path: Path, upgrade: dict[str, Any]) -> None:
    async with opened(tmp_path) as gate:
        device = TestDevice()
        accepted(await gate.shake(device))
        accepted(await gate.shake(device, **upgrade))
        details = await waits(gate, device, REMOTE, **(upgrade | {"platform": "amiga"}))
        assert details["reason"] == "metadata-upgrade"


async def test_a_local_program_never_gets_another_role_by_itself(tmp_path: Path) -> None:
    async with opened(tmp_path) as gate:
        device = TestDevice()
        accepted(await gate.shake(device))
        assert (await waits(gate, device, role="node", scopes=()))["reason"] == "role-upgrade"


# --- waiting for a person ---


async def test_a_device_that_waits_is_told_everything_it_needs(gate: Gate) -> None:
    device = TestDevice()
    details = await waits(gate, device, scopes=ADMIN, client=("openclaw-macos", "ui"))
    assert details == {
        "code": "PAIRING_REQUIRED",
        "reason": "not-paired",
        "requestId": details["requestId"],
        "remediationHint": f"run `openclaw-kernel devices approve {details['requestId']}` where the gateway runs, then connect again",
        "deviceId": device.id,
        "requestedRole": "operator",
        "requestedScopes": ["operator.admin"],
        "recommendedNextStep": "wait_then_retry",
        "pauseReconnect": False,
    }
    ((event, payload),) = gate.context.events.sent
    assert event == "device.pair.requested"
    assert (payload["requestId"], payload["deviceId"], payload["isRepair"]) == (details["requestId"], device.id, False)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"platform": "windows"}, "metadata-upgrade"),
        ({"family": "phone"}, "metadata-upgrade"),
        ({"role": "node", "scopes": ()}, "role-upgrade"),
        ({"scopes": ("operator.write",)}, "scope-upgrade"),
    ],
)
async def test_each_upgrade_waits_for_a_person_and_is_given_by_one(gate: Gate, change: dict[str, Any], reason: str) -> None:
    device = await paired(gate, scopes=READ, family="laptop" if "family" in change else None)
    details = await waits(gate, device, **change)
    assert details["reason"] == reason
    assert (details["approvedRoles"], details["approvedScopes"]) == (["operator"], ["operator.read"])
    await gate.call("device.pair.approve", requestId=details["requestId"])
    accept = accepted(await gate.shake(device, **change))
    assert accept.scopes == tuple(change.get("scopes", READ))
    assert gate.context.events.resolved()[-1] == (details["requestId"], "approved")


async def test_the_version_of_a_platform_may_change(gate: Gate) -> None:
    device = await paired(gate, platform="iOS 18.1")
    accepted(await gate.shake(device, platform="ios 19.0"))
    assert (await waits(gate, device, platform="android 15"))["reason"] == "metadata-upgrade"


async def test_the_same_ask_keeps_its_request_and_another_takes_its_place(gate: Gate) -> None:
    device = TestDevice()
    first = (await waits(gate, device))["requestId"]
    gate.clock.now += PENDING_MS - 1
    assert (await waits(gate, device))["requestId"] == first
    gate.clock.now += PENDING_MS - 1
    assert (await waits(gate, device))["requestId"] == first
    other = (await waits(gate, device, scopes=ADMIN))["requestId"]
    assert other != first
    assert gate.context.events.resolved() == [(first, "rejected")]
    with pytest.raises(InvalidRequest, match="unknown requestId"):
        await gate.call("device.pair.approve", requestId=first)
    assert [row["requestId"] for row in (await gate.call("device.pair.list"))["pending"]] == [other]


async def test_a_request_nobody_answers_ends_after_five_minutes_and_that_is_told(gate: Gate) -> None:
    device = TestDevice()
    first = (await waits(gate, device))["requestId"]
    gate.clock.now += PENDING_MS
    await gate.book.expire()
    assert gate.context.events.resolved() == []
    gate.clock.now += 1
    with pytest.raises(InvalidRequest, match="unknown requestId"):
        await gate.call("device.pair.approve", requestId=first)
    await gate.book.expire()
    assert gate.context.events.resolved() == [(first, "expired")]
    second = (await waits(gate, device))["requestId"]
    gate.clock.now += PENDING_MS + 1
    # Who asks again is not the one that makes the end go untold.
    assert len({first, second, (await waits(gate, device))["requestId"]}) == 3
    assert gate.context.events.resolved() == [(first, "expired"), (second, "expired")]


async def test_requests_end_by_themselves_while_the_plugin_runs(gate: Gate) -> None:
    request_id = (await waits(gate, TestDevice()))["requestId"]
    gate.context.events.told.clear()
    gate.clock.now += PENDING_MS + 1
    running = asyncio.ensure_future(gate.book.run_expiry())
    try:
        async with asyncio.timeout(5):
            await gate.context.events.told.wait()
    finally:
        running.cancel()
    assert gate.context.events.resolved() == [(request_id, "expired")]


async def test_asking_again_lengthens_a_request_to_half_an_hour_at_most(gate: Gate) -> None:
    device = TestDevice()
    first, expires_ms = (await waits(gate, device))["requestId"], 0
    for _ in range(LONGEST_PENDING_MS // PENDING_MS):
        gate.clock.now += PENDING_MS - 1
        assert (await waits(gate, device))["requestId"] == first
        (row,) = (await gate.call("device.pair.list"))["pending"]
        expires_ms = row["expiresAtMs"]
        assert expires_ms == min(gate.clock.now + PENDING_MS, row["ts"] + LONGEST_PENDING_MS)
    gate.clock.now = expires_ms + 1
    assert (await waits(gate, device))["requestId"] != first
    assert gate.context.events.resolved() == [(first, "expired")]


async def test_a_request_whose_time_is_over_is_decided_by_nobody_also_where_memory_still_has_it(gate: Gate) -> None:
    """The disk has the last word on it, inside the write that lets the device in."""
    request_id = (await waits(gate, TestDevice()))["requestId"]
    approval = gate.call("device.pair.approve", requestId=request_id)
    async with gate.roster.changes.lock:
        waiting = asyncio.ensure_future(approval)
        await asyncio.sleep(0)
        gate.clock.now += PENDING_MS + 1
    with pytest.raises(InvalidRequest, match="unknown requestId"):
        await waiting
    assert gate.roster.devices == {}


async def test_devices_that_ask_at_once_each_get_one_request(gate: Gate) -> None:
    devices = [TestDevice() for _ in range(2)]
    details = await asyncio.gather(*(waits(gate, device) for device in devices * 4))
    assert len({found["requestId"] for found in details}) == 2
    assert len((await gate.call("device.pair.list"))["pending"]) == 2


async def test_requests_are_bounded_by_address_and_in_all(gate: Gate) -> None:
    addresses = (Peer(address=f"203.0.113.{number}", direct_local=False) for number in itertools.count(1))
    kept = 0
    while kept < MOST_REQUESTS:
        peer = next(addresses)
        for _ in range(MOST_PER_ADDRESS):
            assert "requestId" in await waits(gate, TestDevice(), peer)
            kept += 1
        assert "requestId" not in await waits(gate, TestDevice(), peer)
    details = await waits(gate, TestDevice(), next(addresses))
    assert "requestId" not in details
    assert "devices list" in details["remediationHint"]
    gate.clock.now += PENDING_MS + 1
    assert "requestId" in await waits(gate, TestDevice(), REMOTE)


async def test_what_a_device_says_of_itself_is_kept_short_and_plain(gate: Gate) -> None:
    await waits(gate, TestDevice(), name="\x1b[2Jnice\u202e" + "n" * 500, platform="linux\n")
    (row,) = (await gate.call("device.pair.list"))["pending"]
    assert row["displayName"] == ("[2Jnice" + "n" * 500)[:128]
    assert row["platform"] == "linux"


async def test_requests_survive_a_restart(tmp_path: Path) -> None:
    device = TestDevice()
    async with opened(tmp_path, policy="ask") as gate:
        first = (await waits(gate, device))["requestId"]
    async with opened(tmp_path, policy="ask", clock=gate.clock) as again:
        assert (await waits(again, device))["requestId"] == first
        await again.call("device.pair.approve", requestId=first)
        accepted(await again.shake(device))


# --- scopes (S4) ---


@pytest.mark.parametrize("by_token", [False, True])
@pytest.mark.parametrize("approved", [(), READ, ("operator.write",), ("operator.pairing", "operator.read"), ADMIN])
async def test_no_connection_has_more_than_was_approved(gate: Gate, approved: tuple[str, ...], *, by_token: bool) -> None:
    """S4: whatever is asked, at the first and every later connection. Who names no scopes asks for none, which is what its proof says."""
    device = await paired(gate, scopes=approved)
    auth = {"token": await token_of(gate, device, scopes=approved)} if by_token else SECRET
    asked: list[tuple[str, ...] | None] = [None, (), READ, ("operator.write",), ADMIN, ("operator.everything",), (*ADMIN, *READ)]
    for scopes in asked * 2:
        actions = await gate.shake(device, auth=auth, scopes=scopes)
        known = {scope for scope in scopes or () if scope != "operator.everything"}
        if known <= effective_scopes(approved):
            assert set(accepted(actions).scopes) == known
        else:
            error, _ = refused(actions)
            assert error["details"]["reason"] == "scope-upgrade"
            await gate.call("device.pair.reject", requestId=error["details"]["requestId"])


# --- tokens ---


async def test_a_token_opens_for_its_device_and_role_only(gate: Gate) -> None:
    device, other = await paired(gate), await paired(gate)
    token = await token_of(gate, device)
    assert accepted(await gate.shake(device, auth={"token": token})).verified.method == "device-token"
    error, _ = refused(await gate.shake(other, auth={"deviceToken": token}))
    assert error["details"]["authReason"] == "device_token_mismatch"
    error, _ = refused(await gate.shake(device, auth={"deviceToken": token}, role="node"))
    assert error["details"]["authReason"] == "device_token_mismatch"


@pytest.mark.parametrize(
    ("auth", "reason", "code"),
    [
        ({"deviceToken": "x"}, "device_token_mismatch", "AUTH_DEVICE_TOKEN_MISMATCH"),
        ({"token": "x", "deviceToken": "x"}, "device_token_mismatch", "AUTH_DEVICE_TOKEN_MISMATCH"),
        ({"token": "x"}, "token_mismatch", "AUTH_TOKEN_MISMATCH"),
        ({"password": "x"}, "token_mismatch", "AUTH_TOKEN_MISMATCH"),
        ({}, "token_missing", "AUTH_TOKEN_MISSING"),
        ({"bootstrapToken": "x"}, "bootstrap_token_invalid", "AUTH_BOOTSTRAP_TOKEN_INVALID"),
        ({"token": TOKEN, "bootstrapToken": "x"}, "bootstrap_token_invalid", "AUTH_BOOTSTRAP_TOKEN_INVALID"),
    ],
)
async def test_each_wrong_credential_of_a_device_has_its_code(gate: Gate, auth: dict[str, str], reason: str, code: str) -> None:
    device = await paired(gate)
    error, close = refused(await gate.shake(device, auth=auth))
    assert (error["details"]["authReason"], error["details"]["code"], close.code) == (reason, code, 1008)
    assert error["details"]["canRetryWithDeviceToken"] is (auth == {"token": "x"})


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_garbage_never_passes_whatever_it_is_put_in(gate: Gate, size: int) -> None:
    """S6: each field alone and together, signed by a device that is approved for everything."""
    device = await paired(gate)
    fields = ("token", "password", "deviceToken", "bootstrapToken", "approvalRuntimeToken", "agentRuntimeIdentityToken")
    for chosen in itertools.combinations(fields, size):
        refused(await gate.shake(device, auth=dict.fromkeys(chosen, "garbage")))


@pytest.mark.parametrize("pair", [*itertools.combinations(("id", "publicKey", "signature", "nonce", "signedAt"), 2), ("id", "id")])
@pytest.mark.parametrize("garbage", ["", " ", "AAAA", "0" * 64, "é"])
async def test_no_flawed_proof_passes_with_good_credentials(gate: Gate, pair: tuple[str, str], garbage: str) -> None:
    """S6: the shared secret and a token are good, the proof is not."""
    device = await paired(gate)
    token = await token_of(gate, device)
    flawed: Mapping[str, Any] = {name: 0 if name == "signedAt" else garbage for name in pair}
    for auth in (SECRET, {"token": token, "deviceToken": token}):
        error, _ = refused(await gate.shake(device, auth=auth, proof=flawed))
        assert error["code"] == "INVALID_REQUEST"


@pytest.mark.parametrize(
    "auth",
    [{"deviceToken": "x"}, {"token": "x"}, {"password": "x"}, {"token": "x", "deviceToken": "y"}, {"password": "x", "deviceToken": "y"}],
)
async def test_wrong_tries_lock_out_whatever_fields_carry_them(gate: Gate, auth: dict[str, str]) -> None:
    """S3: no field that is added keeps a try from being counted."""
    device = await paired(gate)
    for _ in range(10):
        error, _ = refused(await gate.shake(device, REMOTE, auth=auth))
        assert error["details"]["authReason"] != "rate_limited"
    error, _ = refused(await gate.shake(device, REMOTE, auth=auth))
    assert error["details"]["code"] == "AUTH_RATE_LIMITED"
    if auth.keys() != {"deviceToken"}:
        # What was guessed beside the device token was counted as well.
        error, _ = refused(await gate.shake(device, REMOTE, auth=SECRET))
        assert error["details"]["code"] == "AUTH_RATE_LIMITED"


async def test_a_good_device_token_is_no_wrong_guess_of_the_secret(gate: Gate) -> None:
    device = await paired(gate)
    token = await token_of(gate, device)
    for _ in range(15):
        accepted(await gate.shake(device, REMOTE, auth={"token": token, "deviceToken": token}))
    accepted(await gate.shake(device, REMOTE, auth=SECRET))


@pytest.mark.parametrize("field", ["token", "password"])
async def test_a_device_with_a_good_token_cannot_guess_the_secret_beside_it(gate: Gate, field: str) -> None:
    """S3: neither uncounted from elsewhere, nor without a wait from here."""
    device = await paired(gate)
    token = await token_of(gate, device)
    for number in range(10):
        accepted(await gate.shake(device, REMOTE, auth={field: f"guess-{number}", "deviceToken": token}))
    accept = accepted(await gate.shake(device, REMOTE, auth={field: TOKEN, "deviceToken": token}))
    assert accept.verified.method == "device-token"
    for guess, waited_ms in (("x", 250), ("y", 500), (token, 0)):
        accepted(await gate.shake(device, auth={field: guess, "deviceToken": token}))
        assert gate.waited_ms == waited_ms


async def test_a_new_token_is_issued_once_and_the_old_one_stays_good_until_it_is_seen(tmp_path: Path) -> None:
    device = TestDevice()
    async with opened(tmp_path) as gate:
        old = await token_of(gate, device)
        assert await token_of(gate, device) == old
        assert await token_of(gate, device, auth={"deviceToken": old}) == old
    async with opened(tmp_path, clock=gate.clock) as gate:
        new = await token_of(gate, device)
        assert new != old
        assert await token_of(gate, device) == new
        assert await token_of(gate, device, auth={"deviceToken": old}) == old
        assert await token_of(gate, device, auth={"deviceToken": new}) == new
        await gate.settled()
        refused(await gate.shake(device, auth={"deviceToken": old}))
    async with opened(tmp_path, clock=gate.clock) as gate:
        refused(await gate.shake(device, auth={"deviceToken": old}))
        assert await token_of(gate, device, auth={"deviceToken": new}) == new


async def test_a_token_that_was_told_outlives_upgrades_and_restarts_until_a_later_one_is_seen(tmp_path: Path) -> None:
    device = TestDevice()
    told: list[str] = []
    for scopes in (READ, ADMIN):
        async with opened(tmp_path, policy="auto") as gate:
            told.append(await token_of(gate, device, scopes=scopes))
    async with opened(tmp_path) as gate:
        assert len(set(told)) == 2
        for token in told:
            assert accepted(await gate.shake(device, REMOTE, auth={"token": token}, scopes=ADMIN)).scopes == ADMIN
        await gate.settled()
        refused(await gate.shake(device, REMOTE, auth={"token": told[0]}))


async def test_a_known_device_that_shows_its_token_costs_no_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as gate:
        device = TestDevice()
        token = await token_of(gate, device)
        accepted(await gate.shake(device, auth={"deviceToken": token}))
        await gate.settled()
        monkeypatch.setattr(gate.context.store, "write", None)
        accepted(await gate.shake(device, auth={"deviceToken": token}))
        accepted(await gate.shake(device))


async def test_a_narrowed_token_opens_for_no_more_than_it_has(gate: Gate) -> None:
    device = await paired(gate)
    own = Person(principal=f"device:{device.id}")
    rotated = await gate.call("device.token.rotate", own, deviceId=device.id, role="operator", scopes=["operator.read"])
    auth = {"deviceToken": rotated["token"]}
    assert accepted(await gate.shake(device, auth=auth, scopes=READ)).scopes == READ
    error, _ = refused(await gate.shake(device, auth=auth, scopes=ADMIN))
    assert (error["details"]["code"], error["details"]["authReason"]) == ("AUTH_SCOPE_MISMATCH", "scope_mismatch")
    assert await token_of(gate, device, scopes=ADMIN) != rotated["token"]


# --- what was taken away (S20) ---


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("how", ["remove", "revoke"])
async def test_what_a_person_took_away_only_a_person_gives_back(tmp_path: Path, how: str, *, restart: bool) -> None:
    """S20: also after a restart, also where programs of this machine are approved by themselves."""
    device = TestDevice()
    async with opened(tmp_path) as gate:
        token = await token_of(gate, device, scopes=ADMIN)
        if how == "remove":
            await gate.call("device.pair.remove", deviceId=device.id)
        else:
            await gate.call("device.token.revoke", deviceId=device.id, role="operator")
        if not restart:
            await check_taken_away(gate, device, token, how)
    if restart:
        async with opened(tmp_path, clock=gate.clock) as gate:
            await check_taken_away(gate, device, token, how)


async def check_taken_away(gate: Gate, device: TestDevice, token: str, how: str) -> None:
    error, _ = refused(await gate.shake(device, auth={"deviceToken": token}))
    assert error["details"]["code"] == "AUTH_DEVICE_TOKEN_MISMATCH"
    details = await waits(gate, device, scopes=READ)
    assert details["reason"] == ("not-paired" if how == "remove" else "role-upgrade")
    await gate.call("device.pair.approve", requestId=details["requestId"])
    # What was approved before does not come back with it.
    assert accepted(await gate.shake(device, scopes=READ)).scopes == READ
    assert (await waits(gate, device, REMOTE, scopes=ADMIN))["reason"] == "scope-upgrade"
    refused(await gate.shake(device, auth={"deviceToken": token}))


@pytest.mark.parametrize("restart", [False, True])
async def test_a_removed_device_that_comes_back_as_a_node_is_no_operator_by_itself(tmp_path: Path, *, restart: bool) -> None:
    """S20: a person gave it back one role, not the other."""
    device = TestDevice()
    async with opened(tmp_path) as gate:
        accepted(await gate.shake(device, scopes=ADMIN))
        await gate.call("device.pair.remove", deviceId=device.id)
        node: dict[str, Any] = {"role": "node", "scopes": ()}
        await gate.call("device.pair.approve", requestId=(await waits(gate, device, **node))["requestId"])
        accepted(await gate.shake(device, **node))
        if not restart:
            assert (await waits(gate, device, scopes=ADMIN))["reason"] == "role-upgrade"
    if restart:
        async with opened(tmp_path, clock=gate.clock) as gate:
            assert (await waits(gate, device, scopes=ADMIN))["reason"] == "role-upgrade"


@pytest.mark.parametrize("how", ["remove", "revoke"])
async def test_what_was_asked_before_it_was_taken_away_gives_nothing_back(gate: Gate, how: str) -> None:
    """S20: an approval that somebody had still open on the screen."""
    device = await paired(gate, scopes=READ)
    request_id = (await waits(gate, device, scopes=("operator.read", "operator.write")))["requestId"]
    if how == "remove":
        await gate.call("device.pair.remove", deviceId=device.id)
    else:
        await gate.call("device.token.revoke", deviceId=device.id, role="operator")
    assert gate.context.events.resolved()[-1] == (request_id, "rejected")
    with pytest.raises(InvalidRequest, match="unknown requestId"):
        await gate.call("device.pair.approve", requestId=request_id)
    await waits(gate, device, scopes=READ)


@pytest.mark.parametrize("how", ["remove", "revoke", "rotate"])
async def test_nothing_that_waited_is_done_for_a_device_whose_right_was_taken_meanwhile(gate: Gate, how: str) -> None:
    """S20: the right is looked at where the change is made, not where it was asked for."""
    caller, device = await paired(gate), TestDevice()
    request_id = (await waits(gate, device))["requestId"]
    own = Person(principal=f"device:{caller.id}")
    method = "device.pair.remove" if how == "remove" else f"device.token.{how}"
    params: dict[str, Any] = {"deviceId": caller.id} | ({} if how == "remove" else {"role": "operator"})
    taken, approval = gate.call(method, **params), gate.call("device.pair.approve", own, requestId=request_id)
    ends = await asyncio.gather(taken, approval, return_exceptions=True)
    assert isinstance(ends[1], Forbidden), ends
    await waits(gate, device)


async def test_a_device_removed_while_it_connects_is_not_let_in(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """S20: the last word is said where nothing can come in between."""
    device = await paired(gate)
    settle = gate.book.settle

    async def settled_too_late(claim: Any) -> Any:
        outcome = await settle(claim)
        await gate.call("device.pair.remove", deviceId=device.id)
        return outcome

    # A token that was issued before the gateway started is told to nobody, so a new one is issued on the way.
    gate.roster.issued.clear()
    monkeypatch.setattr(gate.book, "settle", settled_too_late)
    error, close = refused(await gate.shake(device))
    assert (error["code"], close.code) == ("UNAVAILABLE", 1013)


async def test_nobody_is_let_in_while_the_book_is_closed(gate: Gate) -> None:
    device = await paired(gate)
    token = await token_of(gate, device)
    gate.book.close()
    for auth in (SECRET, {"deviceToken": token}):
        error, close = refused(await gate.shake(device, auth=auth))
        assert (error["code"], close.code) == ("UNAVAILABLE", 1011)
