"""What the handshake does between a device and the pairing, as transcripts: it asks, waits, and says the last word itself."""

from __future__ import annotations

from typing import Any

import pytest

from openclaw_kernel.api import ApprovalNeeded, DeviceClaim, DeviceGrant, PairingReason, TokenVerdict, Unavailable
from openclaw_kernel.protocol.connect import ConnectParams
from openclaw_kernel.protocol.device import Proven, prove
from openclaw_kernel.protocol.handshake import Action, Close, Handshake, Phase, Settle
from tests.kernel.protocol.transcript import LOCAL, NONCE, Gate, accepted, connect_params, refused, request, signed_params

TOKEN = "token-of-the-device"


class Pairing:
    """Answers as it is told."""

    def __init__(self, *, knows: bool = False) -> None:
        self.knows = knows
        self.verdict: TokenVerdict = "unknown"
        self.claims: list[DeviceClaim] = []

    def check_token(self, device_id: str, role: str, token: str, scopes: object) -> TokenVerdict:
        """The verdict it was told."""
        return self.verdict if token == TOKEN else "unknown"

    def check_setup(self, *_: object) -> bool:
        """No setup code is good."""
        return False

    def recall(self, claim: DeviceClaim) -> DeviceGrant | None:
        """All that is asked for, where it knows the device."""
        self.claims.append(claim)
        if not self.knows:
            return None
        return DeviceGrant(device_id=claim.device_id, scopes=claim.scopes, token=TOKEN, issued_at_ms=1)

    async def settle(self, claim: DeviceClaim) -> ApprovalNeeded | None:
        """A transcript answers for it."""
        raise AssertionError(claim)


class DeviceGate(Gate):
    """A gateway that pairs devices."""

    def __init__(self, pairing: Pairing, mode: str = "token") -> None:
        super().__init__(mode=mode)
        self.pairing = pairing
        self.verifier._tokens = pairing

    def handshake(self, peer: object = LOCAL) -> Handshake:
        """A new connection."""
        return Handshake(
            peer=LOCAL, verifier=self.verifier, phase=lambda: Phase.SERVING, now_ms=self.clock, pairing=self.pairing, nonce=NONCE
        )

    def begin(self, **more: Any) -> tuple[Handshake, list[Action]]:
        """A handshake up to its first answer."""
        handshake = self.handshake()
        handshake.open()
        return handshake, handshake.receive(request("connect", signed_params(self, **more)))


def test_a_known_device_is_let_in_at_once() -> None:
    gate = DeviceGate(Pairing(knows=True))
    _, actions = gate.begin()
    accept = accepted(actions)
    assert accept.grant is not None
    assert accept.verified.principal == f"device:{accept.grant.device_id}"
    (claim,) = gate.pairing.claims
    assert (claim.local_secret, claim.by_token, claim.token) == (True, False, None)


def test_an_unknown_one_waits_for_the_pairing_and_hears_nothing_meanwhile() -> None:
    gate = DeviceGate(Pairing())
    handshake, actions = gate.begin()
    assert isinstance(actions[0], Settle)
    assert handshake.receive(request("connect", connect_params())) == []
    gate.pairing.knows = True
    accepted(handshake.resume(None))
    assert handshake.resume(None) == []


@pytest.mark.parametrize("reason", ["not-paired", "role-upgrade", "scope-upgrade", "metadata-upgrade"])
def test_each_reason_is_told_with_its_request(reason: PairingReason) -> None:
    handshake, _ = DeviceGate(Pairing()).begin()
    needed = ApprovalNeeded(reason=reason, request_id="r-1", approved_roles=("operator",), approved_scopes=("operator.read",))
    error, close = refused(handshake.resume(needed))
    assert error["code"] == "NOT_PAIRED"
    assert error["details"]["reason"] == reason
    assert error["details"]["approvedScopes"] == ["operator.read"]
    assert error["details"]["pauseReconnect"] is True
    assert close == Close(1008, "pairing required (requestId:r-1)")


def test_a_device_that_is_gone_again_when_the_pairing_has_settled_is_sent_away() -> None:
    handshake, _ = DeviceGate(Pairing()).begin()
    error, close = refused(handshake.resume(None))
    assert (error["code"], error["retryable"], close.code) == ("UNAVAILABLE", True, 1013)


def test_a_pairing_that_fails_lets_nobody_in() -> None:
    handshake, _ = DeviceGate(Pairing()).begin()
    error, close = refused(handshake.resume(Unavailable("broken")))
    assert (error["message"], close.code) == ("broken", 1011)


def test_nothing_goes_on_after_the_time_is_over() -> None:
    gate = DeviceGate(Pairing())
    handshake, _ = gate.begin()
    assert handshake.expire() == [Close(1000, "")]
    gate.pairing.knows = True
    assert handshake.resume(None) == []


@pytest.mark.parametrize(
    ("verdict", "code"),
    [("ok", None), ("unknown", "AUTH_DEVICE_TOKEN_MISMATCH"), ("scopes", "AUTH_SCOPE_MISMATCH")],
)
def test_a_device_token_opens_after_the_proof_and_the_verdict_only(verdict: TokenVerdict, code: str | None) -> None:
    gate = DeviceGate(Pairing(knows=True))
    gate.pairing.verdict = verdict
    _, actions = gate.begin(auth={"deviceToken": TOKEN})
    if code is None:
        assert accepted(actions).verified.method == "device-token"
        (claim,) = gate.pairing.claims
        assert (claim.by_token, claim.token, claim.local_secret) == (True, TOKEN, False)
    else:
        error, _ = refused(actions)
        assert error["details"]["code"] == code


def test_a_local_program_needs_no_pairing_where_no_secret_is_asked_for() -> None:
    gate = DeviceGate(Pairing(), mode="none")
    client = {"id": "gateway-client", "version": "1", "platform": "linux", "mode": "backend"}
    _, actions = gate.begin(client=client, auth={})
    assert accepted(actions).scopes == ("operator.admin",)
    _, actions = gate.begin(auth={})
    assert isinstance(actions[0], Settle)


def test_nobody_but_the_check_of_a_proof_makes_one() -> None:
    """S6."""
    with pytest.raises(TypeError, match="only prove"):
        Proven("id", "key", object())
    gate = Gate()
    params = ConnectParams.model_validate(signed_params(gate))
    assert params.device is not None
    assert isinstance(prove(params, params.device, nonce=NONCE, now_ms=gate.clock()), Proven)
    assert prove(params, params.device, nonce="other", now_ms=gate.clock()) == "device-nonce-mismatch"
