"""Setup codes: one device, once, within ten minutes, and nothing that whoever made the code may not hand out. S5, S20."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import zxingcpp

from openclaw_kernel.api import Forbidden, InvalidRequest, Unavailable, effective_scopes
from openclaw_kernel.protocol.handshake import Settle
from openclaw_plugins.pairing.setup_tables import MOST_OPEN
from openclaw_plugins.pairing.setups import PROFILES, SETUP_MS
from tests.kernel.protocol.transcript import REMOTE, TOKEN, accepted, refused, request
from tests.plugins.pairing.harness import READ, Gate, Person, TestDevice, opened
from tests.plugins.pairing.test_withdrawals import copy_of, put_back, used

ADMIN = ("operator.admin",)
SAFE = "wss://gateway.example.org"


@pytest_asyncio.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gate]:
    """A gateway that asks a person for every device."""
    async with opened(tmp_path, policy="ask") as opened_gate:
        yield opened_gate


async def minted(gate: Gate, person: Person | None = None, **params: Any) -> tuple[dict[str, Any], str]:
    """Ask for a code; the answer, and the bootstrap token in it."""
    setup = await gate.call("device.pair.setupCode", person, **({"publicUrl": SAFE, "includeQr": False} | params))
    return setup, str(read_code(setup["setupCode"])["bootstrapToken"])


def read_code(code: str) -> dict[str, Any]:
    """What a setup code says."""
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(code + "=" * (-len(code) % 4)))
    return found


async def refusal(gate: Gate, device: TestDevice, auth: dict[str, str], **more: Any) -> dict[str, Any]:
    """The error of a device that is not let in."""
    error, close = refused(await gate.shake(device, REMOTE, auth=auth, **more))
    assert close.code == 1008
    return error


def code_of(error: dict[str, Any]) -> tuple[str, str]:
    """Code and reason of a failed credential."""
    return error["details"]["code"], error["details"]["authReason"]


SPENT = ("AUTH_BOOTSTRAP_TOKEN_INVALID", "bootstrap_token_invalid")


@pytest.mark.parametrize(("role", "other"), [("operator", "node"), ("node", "operator")])
async def test_a_code_pairs_a_device_from_anywhere_and_gives_it_a_token_for_each_role(tmp_path: Path, role: str, other: str) -> None:
    device = TestDevice()
    async with opened(tmp_path, policy="ask") as gate:
        setup, token = await minted(gate)
        assert (setup["access"], setup["gatewayUrl"], setup["urlSource"]) == ("full", SAFE, "request.publicUrl")
        assert read_code(setup["setupCode"]) == {"url": SAFE, "bootstrapToken": token}
        assert setup["expiresAtMs"] == gate.clock.now + SETUP_MS
        scopes = ADMIN if role == "operator" else ()
        grant = accepted(await gate.shake(device, REMOTE, auth={"bootstrapToken": token}, role=role, scopes=scopes)).grant
        assert grant is not None
        (further,) = grant.further
        assert (grant.scopes, further.role, further.scopes) == (scopes, other, PROFILES["full"][other])
        await gate.settled()
    async with opened(tmp_path, policy="ask", clock=gate.clock) as gate:
        assert await used(gate, device, grant.token, scopes, role) == grant.token
        more = ADMIN if other == "operator" else ()
        assert await used(gate, device, further.token, more, other) == further.token


@pytest.mark.parametrize("profile", ["limited", "node"])
async def test_a_narrow_code_gives_what_it_was_made_for_whatever_is_asked(gate: Gate, profile: str) -> None:
    """S4."""
    setup, token = await minted(gate, bootstrapProfile=profile)
    assert setup["access"] == profile
    device, asked = TestDevice(), ("operator.admin", "operator.read", "operator.pairing")
    if profile == "node":
        # The other role is none of the code's, and trying it does not use the code up.
        assert code_of(await refusal(gate, device, {"bootstrapToken": token}, scopes=asked)) == SPENT
        assert accepted(await gate.shake(device, REMOTE, auth={"bootstrapToken": token}, scopes=asked, role="node")).scopes == ()
        assert list(gate.roster.devices[device.id].roles) == ["node"]
    else:
        scopes = accepted(await gate.shake(device, REMOTE, auth={"bootstrapToken": token}, scopes=asked)).scopes
        assert "operator.read" in scopes
        assert not {"operator.admin", "operator.pairing"} & set(scopes)
        assert set(scopes) <= effective_scopes(PROFILES["limited"]["operator"])


async def test_full_access_is_not_sent_over_a_way_that_is_not_encrypted(gate: Gate) -> None:
    setup, _ = await minted(gate, publicUrl="http://192.0.2.7:18789/agents/")
    assert (setup["access"], setup["accessDowngraded"], setup["gatewayUrl"]) == ("limited", True, "ws://192.0.2.7:18789/agents")
    setup, _ = await minted(gate, publicUrl="ws://192.0.2.7", bootstrapProfile="node")
    assert (setup["access"], "accessDowngraded" in setup) == ("node", False)
    setup = await gate.call("device.pair.setupCode", includeQr=False)
    assert (setup["access"], setup["gatewayUrl"], setup["urlSource"]) == ("full", "ws://127.0.0.1:18789", "gateway.bind=loopback")


@pytest.mark.parametrize(
    "url", ["gateway.example.org", "ftp://x", "wss://", "wss://user:secret@x", "wss://x?token=1", "wss://x#code", "wss://[::1"]
)
async def test_what_is_no_address_is_refused_with_the_cure(gate: Gate, url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"publicUrl: found .*; give an address such as wss://"):
        await minted(gate, publicUrl=url)


# --- one use (S20) ---


async def test_a_code_opens_once_also_for_the_device_that_used_it(gate: Gate) -> None:
    _, token = await minted(gate)
    device = TestDevice()
    accepted(await gate.shake(device, REMOTE, auth={"bootstrapToken": token}, scopes=READ))
    for again in (device, TestDevice()):
        assert code_of(await refusal(gate, again, {"bootstrapToken": token})) == SPENT
    assert list(gate.roster.devices) == [device.id]


async def test_of_devices_that_show_one_code_at_once_one_is_in(gate: Gate) -> None:
    """All were checked before the first had used it up."""
    _, token = await minted(gate)
    devices = [TestDevice() for _ in range(8)]
    ends = await asyncio.gather(*(gate.shake(device, REMOTE, auth={"bootstrapToken": token}, scopes=READ) for device in devices))
    lost = [actions for actions in ends if len(actions) > 1]
    assert len(lost) == 7
    assert all(code_of(refused(actions)[0]) == SPENT for actions in lost)
    assert len(gate.roster.devices) == 1


async def test_a_known_device_that_shows_a_code_uses_it_up_and_is_approved_for_what_it_gives(gate: Gate) -> None:
    _, first = await minted(gate, bootstrapProfile="node")
    device = TestDevice()
    accepted(await gate.shake(device, REMOTE, auth={"bootstrapToken": first}, role="node", scopes=()))
    _, second = await minted(gate)
    accepted(await gate.shake(device, REMOTE, auth={"bootstrapToken": second}, role="node", scopes=()))
    assert code_of(await refusal(gate, device, {"bootstrapToken": second})) == SPENT
    assert gate.roster.devices[device.id].live_roles == ("node", "operator")


async def test_a_narrow_code_gives_a_narrowed_device_nothing_that_a_rotation_took_away(gate: Gate) -> None:
    """S5: the role is approved for more, which nobody has given back."""
    device = TestDevice()
    _, first = await minted(gate)
    accepted(await gate.shake(device, REMOTE, auth={"bootstrapToken": first}, scopes=ADMIN))
    await gate.call("device.token.rotate", deviceId=device.id, role="operator", scopes=list(READ))
    _, second = await minted(gate, bootstrapProfile="limited")
    grant = accepted(await gate.shake(device, REMOTE, auth={"bootstrapToken": second}, scopes=(*ADMIN, "operator.write"))).grant
    assert grant is not None
    assert "operator.write" in grant.scopes
    assert {"operator.admin", "operator.pairing"}.isdisjoint(grant.scopes)
    error = await refusal(gate, device, {"deviceToken": grant.token}, scopes=ADMIN)
    assert code_of(error)[0] == "AUTH_SCOPE_MISMATCH"


async def test_a_code_is_over_after_ten_minutes_and_not_before(gate: Gate) -> None:
    (_, first), (_, second) = await minted(gate), await minted(gate)
    gate.clock.now += SETUP_MS
    accepted(await gate.shake(TestDevice(), REMOTE, auth={"bootstrapToken": first}, scopes=READ))
    gate.clock.now += 1
    assert code_of(await refusal(gate, TestDevice(), {"bootstrapToken": second})) == SPENT


async def test_a_code_survives_a_restart_and_its_use_an_older_database(tmp_path: Path) -> None:
    """S20: neither by a restart nor by a copy put back is it good twice."""
    async with opened(tmp_path, policy="ask") as gate:
        (_, token), (_, unused) = await minted(gate), await minted(gate)
    copy = copy_of(tmp_path)
    async with opened(tmp_path, policy="ask", clock=gate.clock) as gate:
        accepted(await gate.shake(TestDevice(), REMOTE, auth={"bootstrapToken": token}, scopes=READ))
    async with opened(tmp_path, policy="ask", clock=gate.clock) as gate:
        assert code_of(await refusal(gate, TestDevice(), {"bootstrapToken": token})) == SPENT
        assert gate.setups.check(unused, "operator")
    put_back(tmp_path, copy)
    async with opened(tmp_path, policy="ask", clock=gate.clock) as gate:
        for one in (token, unused):
            assert code_of(await refusal(gate, TestDevice(), {"bootstrapToken": one})) == SPENT


@pytest.mark.parametrize("how", ["device.pair.remove", "device.token.revoke"])
async def test_a_code_ends_with_the_right_of_whoever_made_it(tmp_path: Path, how: str) -> None:
    """S20: authority that was taken away does not come back by what it left behind."""
    admin = TestDevice()
    async with opened(tmp_path, policy="ask") as gate:
        _, token = await minted(gate)
        accepted(await gate.shake(admin, REMOTE, auth={"bootstrapToken": token}, scopes=ADMIN))
        _, left = await minted(gate, Person(principal=f"device:{admin.id}"))
        _, other = await minted(gate)
        params: dict[str, Any] = {"role": "operator"} if how.endswith("revoke") else {}
        await gate.call(how, deviceId=admin.id, **params)
        assert code_of(await refusal(gate, TestDevice(), {"bootstrapToken": left})) == SPENT
    async with opened(tmp_path, policy="ask", clock=gate.clock) as gate:
        assert code_of(await refusal(gate, TestDevice(), {"bootstrapToken": left})) == SPENT
        assert gate.setups.check(other, "operator")


async def test_a_code_ends_with_the_rotation_that_narrows_whoever_made_it(gate: Gate) -> None:
    """S20."""
    admin = TestDevice()
    _, token = await minted(gate)
    accepted(await gate.shake(admin, REMOTE, auth={"bootstrapToken": token}, scopes=ADMIN))
    _, left = await minted(gate, Person(principal=f"device:{admin.id}"))
    _, other = await minted(gate)
    await gate.call("device.token.rotate", deviceId=admin.id, role="operator")
    assert gate.setups.check(left, "operator")
    await gate.call("device.token.rotate", deviceId=admin.id, role="operator", scopes=list(READ))
    assert code_of(await refusal(gate, TestDevice(), {"bootstrapToken": left})) == SPENT
    assert gate.setups.check(other, "operator")


async def test_nobody_makes_a_code_for_more_than_it_has(gate: Gate) -> None:
    """S5: looked at again where the code is made."""
    for scopes in (frozenset[str](), frozenset({"operator.pairing"}), frozenset({"operator.pairing", "operator.write"})):
        for profile in ({}, {"bootstrapProfile": "limited"}, {"bootstrapProfile": "node"}):
            with pytest.raises(Forbidden, match="missing scope"):
                await minted(gate, Person(scopes=scopes), **profile)
    leaving = Person()
    async with gate.roster.changes.lock:
        asking = asyncio.ensure_future(minted(gate, leaving))
        await asyncio.sleep(0)
        leaving.invalidated = True
    with pytest.raises(Forbidden):
        await asking


async def test_codes_are_bounded(gate: Gate) -> None:
    for _ in range(MOST_OPEN):
        await minted(gate)
    with pytest.raises(Unavailable, match="20 setup codes are open"):
        await minted(gate)
    gate.clock.now += SETUP_MS + 1
    await minted(gate)


async def test_no_code_is_kept_on_disk(gate: Gate, tmp_path: Path) -> None:
    setup, token = await minted(gate)
    files = b"".join(path.read_bytes() for path in tmp_path.glob("state.sqlite3*"))
    assert token.encode() not in files
    assert setup["setupCode"].encode() not in files
    assert setup["setupId"].encode() in files


# --- what is told of it ---


async def test_who_made_a_code_learns_what_became_of_it(gate: Gate) -> None:
    setup, token = await minted(gate)
    assert await gate.call("device.pair.setupStatus", setupId=setup["setupId"]) == {}
    device = TestDevice()
    accepted(await gate.shake(device, REMOTE, auth={"bootstrapToken": token}, scopes=READ, name="phone"))
    await gate.settled()
    expected = {"setupId": setup["setupId"], "deviceId": device.id, "deviceName": "phone", "access": "full", "ts": gate.clock.now}
    assert await gate.call("device.pair.setupStatus", setupId=setup["setupId"]) == {"completion": expected}
    assert gate.context.events.sent[-1] == ("device.pair.setup.completed", expected)


async def test_a_device_that_was_lost_before_its_answer_is_told_apart(gate: Gate) -> None:
    setup, token = await minted(gate)
    device = TestDevice()
    handshake = gate.handshakes.begin(REMOTE)
    (challenge,) = handshake.open()
    nonce = str(challenge.frame).split('"nonce":"')[1].split('"')[0]  # type: ignore[union-attr]
    (step,) = handshake.receive(request("connect", device.params(nonce, gate.clock(), auth={"bootstrapToken": token})))
    assert isinstance(step, Settle)
    assert await gate.handshakes.settle(step.claim) is None
    status = await gate.call("device.pair.setupStatus", setupId=setup["setupId"])
    assert status["deliveryUncertain"]["deviceId"] == device.id


async def test_making_and_using_a_code_are_rows_of_the_audit_log(gate: Gate) -> None:
    setup, token = await minted(gate)
    device = TestDevice()
    accepted(await gate.shake(device, REMOTE, auth={"bootstrapToken": token}, scopes=READ))

    def read(connection: Any) -> list[Any]:
        found: list[Any] = connection.execute("SELECT action, actor, subject FROM kernel_audit ORDER BY sequence").fetchall()
        return found

    subject, who = f"setup:{setup['setupId']}", f"device:{device.id}"
    assert await gate.context.store.read(read) == [
        ("setup-code.issued", "token", subject),
        ("setup-code.used", who, subject),
        ("device.approved", "token", who),
    ]


# --- a secret of one kind in the field of another (P18) ---


@pytest.mark.parametrize("field", ["token", "password", "deviceToken", "bootstrapToken"])
@pytest.mark.parametrize("kind", ["secret", "device token", "bootstrap token", "setup code"])
async def test_a_secret_of_the_wrong_kind_is_named_and_opens_nothing(gate: Gate, field: str, kind: str) -> None:
    setup, bootstrap = await minted(gate)
    device = TestDevice()
    _, token = await minted(gate)
    grant = accepted(await gate.shake(device, REMOTE, auth={"bootstrapToken": token}, scopes=READ)).grant
    assert grant is not None
    secrets = {"secret": TOKEN, "device token": grant.token, "bootstrap token": bootstrap, "setup code": setup["setupCode"]}
    right = {"secret": {"token", "password"}, "device token": {"token", "deviceToken"}, "bootstrap token": {"bootstrapToken"}}
    if field in right.get(kind, ()):
        accepted(await gate.shake(device, REMOTE, auth={field: secrets[kind]}, scopes=READ))
        return
    error = await refusal(gate, device, {field: secrets[kind]})
    named = {
        "bootstrap token": f"auth.{field} holds a bootstrap token",
        "setup code": f"auth.{field} holds a setup code" if field != "bootstrapToken" else "holds a whole setup code",
    }
    expected = named.get(kind, "holds no bootstrap token" if field == "bootstrapToken" else f"{FIELDS[field]} mismatch")
    assert expected in error["message"], error["message"]
    assert all(secret not in error["message"] for secret in secrets.values())


FIELDS = {"token": "token", "password": "token", "deviceToken": "device token"}


async def test_a_bootstrap_token_without_a_device_is_told_what_it_lacks(gate: Gate) -> None:
    _, token = await minted(gate)
    handshake = gate.handshakes.begin(REMOTE)
    (challenge,) = handshake.open()
    nonce = str(challenge.frame).split('"nonce":"')[1].split('"')[0]  # type: ignore[union-attr]
    params = TestDevice().params(nonce, gate.clock(), auth={"bootstrapToken": token})
    del params["device"]
    error, _ = refused(handshake.receive(request("connect", params)))
    assert "a bootstrap token opens for a client with a device identity only" in error["message"]


async def test_wrong_codes_lock_out_and_leave_the_other_kinds_alone(gate: Gate) -> None:
    """S3."""
    codes = [code_of(await refusal(gate, TestDevice(), {"bootstrapToken": "ocs_nothing"})) for _ in range(11)]
    assert codes == [SPENT] * 10 + [("AUTH_RATE_LIMITED", "rate_limited")]
    _, token = await minted(gate)
    assert code_of(await refusal(gate, TestDevice(), {"bootstrapToken": token}))[1] == "rate_limited"
    error = await refusal(gate, TestDevice(), {"token": TOKEN})
    assert error["details"]["code"] == "PAIRING_REQUIRED"


# --- the picture ---


def pixels(png: bytes) -> tuple[bytes, int, int]:
    """The pixels of a black and white PNG, one byte each, and its width and height."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    position, data, width, height = 8, b"", 0, 0
    while position < len(png):
        length, kind = struct.unpack(">I4s", png[position : position + 8])
        body = png[position + 8 : position + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
            assert (depth, colour) == (1, 0)
        data += body if kind == b"IDAT" else b""
        position += length + 12
    rows, stride = zlib.decompress(data), (width + 7) // 8 + 1
    out, above = bytearray(), bytes(stride - 1)
    for y in range(height):
        kind_of_filter, line = rows[y * stride], rows[y * stride + 1 : (y + 1) * stride]
        assert kind_of_filter in {0, 2}
        above = line if kind_of_filter == 0 else bytes((one + other) % 256 for one, other in zip(line, above, strict=True))
        out += bytes(255 if above[x // 8] >> (7 - x % 8) & 1 else 0 for x in range(width))
    return bytes(out), width, height


async def test_the_picture_reads_as_the_code(gate: Gate) -> None:
    setup, _ = await minted(gate, includeQr=True)
    head, _, data = setup["qrDataUrl"].partition(",")
    assert head == "data:image/png;base64"
    raw, width, height = pixels(base64.b64decode(data))
    (found,) = zxingcpp.read_barcodes(memoryview(raw).cast("B", (height, width)))
    assert found.text == setup["setupCode"]
    assert "qrDataUrl" not in (await minted(gate))[0]
