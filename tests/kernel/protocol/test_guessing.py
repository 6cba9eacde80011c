"""S3: whatever else is in a frame, wrong tries are counted, lock out, and burn nobody else's budget."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from openclaw_kernel.protocol.handshake import Accept, Action, Handshake, Peer, Phase, Settle
from openclaw_kernel.protocol.limiter import FAILURES
from tests.kernel.protocol.test_device_handshake import TOKEN as DEVICE_TOKEN
from tests.kernel.protocol.test_device_handshake import DeviceGate, Pairing
from tests.kernel.protocol.transcript import NONCE, REMOTE, TOKEN, connect_params, refused, request, signed_params

FIELDS = ("token", "password", "deviceToken", "bootstrapToken", "approvalRuntimeToken", "agentRuntimeIdentityToken")
SUBSETS = [subset for size in range(len(FIELDS) + 1) for subset in itertools.combinations(FIELDS, size)]
ELSEWHERE = Peer(address="203.0.113.77", direct_local=False)


class Door(DeviceGate):
    """A gateway that knows one device token, and every device that shows it or the secret."""

    def __init__(self, mode: str = "token") -> None:
        pairing = Pairing(knows=True)
        pairing.verdict = "ok"
        super().__init__(pairing, mode)

    def knock(self, auth: dict[str, str], *, device: bool, peer: Peer = REMOTE) -> list[Action]:
        """A whole handshake."""
        params = signed_params(self, auth=auth) if device else connect_params(auth=auth)
        handshake = Handshake(
            peer=peer, verifier=self.verifier, phase=lambda: Phase.SERVING, now_ms=self.clock, pairing=self.pairing, nonce=NONCE
        )
        handshake.open()
        return handshake.receive(request("connect", params))


def wrong(fields: tuple[str, ...], number: int) -> dict[str, str]:
    """A wrong text in each field, no two alike."""
    return {field: f"wrong-{field}-{number}" for field in fields}


def guessed(fields: tuple[str, ...], *, device: bool) -> set[str]:
    """The kinds of credentials that are tried with these fields."""
    if device and "bootstrapToken" in fields:
        return {"bootstrap-token"}
    kinds = {"shared-secret"} if {"token", "password"} & {*fields} else set()
    return kinds | ({"device-token"} if device and {"token", "deviceToken"} & {*fields} else set())


def reason(actions: list[Action]) -> str | None:
    """Why it was refused, None where it was not."""
    if isinstance(actions[-1], Accept | Settle):
        return None
    return str(refused(actions)[0]["details"]["authReason"])


@pytest.mark.parametrize("mode", ["token", "password"])
@pytest.mark.parametrize("device", [False, True])
def test_every_subset_of_the_fields_locks_out_what_it_guesses_and_nothing_else(mode: str, device: bool) -> None:
    for fields in SUBSETS:
        door, kinds = Door(mode), guessed(fields, device=device)
        for number in range(FAILURES):
            assert reason(door.knock(wrong(fields, number), device=device)) is not None
        assert (reason(door.knock(wrong(fields, FAILURES), device=device)) == "rate_limited") is bool(kinds), fields
        right: dict[str, tuple[dict[str, str], bool]] = {
            "shared-secret": ({mode: TOKEN}, False),
            "device-token": ({"deviceToken": DEVICE_TOKEN}, True),
        }
        for kind, (auth, with_device) in right.items():
            found = reason(door.knock(auth, device=with_device))
            assert (found is None) is (kind not in kinds), (fields, kind, found)
            assert reason(door.knock(auth, device=with_device, peer=ELSEWHERE)) is None, (fields, kind)


@pytest.mark.parametrize("device", [False, True])
def test_who_is_locked_out_cannot_step_aside_by_what_else_it_sends(device: bool) -> None:
    """CVE-2026-62220 and its like: a further field must not lead past the limiter."""
    door = Door()
    for number in range(FAILURES):
        door.knock(wrong(("token",), number), device=False)
    for fields in SUBSETS:
        auth: dict[str, str] = wrong(fields, 0) | {"token": TOKEN}
        assert reason(door.knock(auth, device=device)) is not None, fields
        assert reason(door.knock({**wrong(fields, 0), "password": TOKEN}, device=device)) is not None, fields


@pytest.mark.parametrize("device", [False, True])
@pytest.mark.parametrize(("same", "frames"), [(True, FAILURES), (False, FAILURES // 2)])
def test_two_texts_in_one_frame_are_two_guesses(same: bool, frames: int, device: bool) -> None:
    door = Door()
    for number in range(frames):
        auth: dict[str, Any] = {"token": f"wrong-{number}", "password": f"wrong-{number}" if same else f"other-{number}"}
        assert reason(door.knock(auth, device=device)) == "token_mismatch"
    assert reason(door.knock({"token": TOKEN}, device=False)) == "rate_limited"


def test_two_texts_beside_a_good_device_token_are_two_guesses_too() -> None:
    door = Door()
    for number in range(FAILURES // 2):
        auth = {"token": f"wrong-{number}", "password": f"other-{number}", "deviceToken": DEVICE_TOKEN}
        assert reason(door.knock(auth, device=True)) is None
    assert reason(door.knock({"token": TOKEN}, device=False)) == "rate_limited"
