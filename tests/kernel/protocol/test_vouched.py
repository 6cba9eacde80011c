"""Mode trusted-proxy: whom a proxy may name, what it leaves them, and everybody else who names somebody (S17)."""

from __future__ import annotations

from typing import Any

import pytest
from multidict import CIMultiDict

from openclaw_config.models import GatewayAuth
from openclaw_kernel.api.grants import narrowed
from openclaw_kernel.api.pairing import ApprovalNeeded, DeviceClaim, DeviceGrant
from openclaw_kernel.protocol.auth import Refused, Verified, Verifier
from openclaw_kernel.protocol.handshake import Action, Handshake, Peer, Phase, Settle
from openclaw_kernel.protocol.limiter import FailureLimiter
from openclaw_kernel.protocol.proxy import Proxies
from tests.kernel.protocol.transcript import NONCE, Clock, accepted, connect_params, refused, request, signed_params

PROXY = "10.0.0.5"
ORIGIN = "https://chat.example.org"
USER = ("X-User", "alice@example.org")
FROM = ("X-Forwarded-For", "203.0.113.9")
SETTINGS: dict[str, Any] = {"userHeader": "X-User"}


class Door:
    """One gateway in mode trusted-proxy."""

    def __init__(self, *proxies: str, secret: str | None = None, **settings: Any) -> None:
        auth = {"mode": "trusted-proxy", "trustedProxy": SETTINGS | settings} | ({} if secret is None else {"token": secret})
        self.clock = Clock()
        marks = ["x-openclaw-scopes", "X-User", *settings.get("requiredHeaders", ())]
        self.proxies = Proxies(proxies or [PROXY], marks=marks)
        self.verifier = Verifier(GatewayAuth.model_validate(auth), FailureLimiter())

    def proof(self, *headers: tuple[str, str], peer: str = PROXY, origin: str | None = ORIGIN) -> tuple[Verified | Refused, Peer]:
        """What these headers prove, and the peer that the handshake sees."""
        every = CIMultiDict([("Host", "127.0.0.1:18789"), *headers])
        arrival = self.proxies.arrival(peer, every)
        proof = self.verifier.verify_proxied(arrival, every, origin, self.clock())
        return proof, Peer(address=arrival.address, direct_local=arrival.direct_local, crowd=arrival.is_crowd, origin=origin, proof=proof)

    def connect(self, params: dict[str, Any], *headers: tuple[str, str], **more: Any) -> list[Action]:
        """A whole handshake behind these headers."""
        _, peer = self.proof(*headers, **more)
        handshake = Handshake(
            peer=peer, verifier=self.verifier, phase=lambda: Phase.SERVING, now_ms=self.clock, nonce=NONCE, pairing=Paired()
        )
        handshake.open()
        return handshake.receive(request("connect", params))


class Paired:
    """Knows every device, with all scopes."""

    def check_token(self, *_: Any) -> Any:
        return "unknown"

    def check_setup(self, *_: object) -> bool:
        """No setup code is good."""
        return False

    def recall(self, claim: DeviceClaim) -> DeviceGrant | None:
        if claim.display_name == "stranger":
            return None
        return DeviceGrant(device_id=claim.device_id, scopes=("operator.admin",), token="t", issued_at_ms=0)

    async def settle(self, claim: DeviceClaim) -> ApprovalNeeded | None:
        raise AssertionError(claim)


def page(**more: Any) -> dict[str, Any]:
    """Connect params of the Control UI without any credential."""
    return connect_params("openclaw-control-ui", "ui", **({"auth": {}} | more))


def test_the_control_ui_of_a_named_user_needs_no_device() -> None:
    accept = accepted(Door().connect(page(scopes=["operator.admin"]), FROM, USER))
    assert (accept.verified.method, accept.verified.principal) == ("trusted-proxy", "user:alice@example.org")
    assert accept.scopes == ("operator.admin",)


def test_the_control_ui_of_a_named_user_gets_the_same_with_a_device() -> None:
    door = Door()
    params = signed_params(door, **page(scopes=["operator.admin"]))  # type: ignore[arg-type]  # only its clock is asked for
    params["client"] = page()["client"]
    params = signed_like(door, params)
    accept = accepted(door.connect(params, FROM, USER))
    assert (accept.verified.principal, accept.scopes, accept.grant) == ("user:alice@example.org", ("operator.admin",), None)


def signed_like(door: Door, params: dict[str, Any]) -> dict[str, Any]:
    """The params signed anew for the client that they name."""
    client = params["client"]
    more = {key: value for key, value in params.items() if key not in {"client", "device"}}
    return signed_params(door, client=client, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("client", "mode", "role"), [("cli", "cli", "operator"), ("gateway-client", "backend", "operator"), ("node-host", "node", "node")]
)
def test_other_clients_of_a_named_user_need_a_device_and_its_approval(client: str, mode: str, role: str) -> None:
    door = Door()
    params = connect_params(client, mode, auth={}, role=role)
    error, _ = refused(door.connect(params, FROM, USER, origin=None))
    assert error["details"]["code"] == "DEVICE_IDENTITY_REQUIRED"
    named = params["client"] | {"displayName": "stranger"}
    (settle,) = door.connect(signed_params(door, **(params | {"client": named})), FROM, USER, origin=None)  # type: ignore[arg-type]
    assert isinstance(settle, Settle)
    assert not settle.claim.local_secret


def test_a_device_with_a_setup_code_is_judged_by_the_code() -> None:
    door = Door()
    params = signed_params(door, auth={"bootstrapToken": "no-such-code"})  # type: ignore[arg-type]
    error, _ = refused(door.connect(params, FROM, USER, origin=None))
    assert error["details"]["code"] == "AUTH_BOOTSTRAP_TOKEN_INVALID"


@pytest.mark.parametrize(
    ("cap", "scopes"),
    [
        (["operator.read"], ("operator.read", "operator.sessions.read")),
        (["operator.read,  operator.write , x"], None),
        ([""], ()),
        (["root"], ()),
        (["operator.admin"], ("operator.admin",)),
        (["operator.admin", "operator.read"], ("operator.read", "operator.sessions.read")),
        (["operator.admin", ""], ()),
    ],
)
def test_the_proxy_caps_the_scopes_and_two_caps_both_hold(cap: list[str], scopes: tuple[str, ...] | None) -> None:
    headers = [FROM, USER, *(("X-OpenClaw-Scopes", text) for text in cap)]
    door = Door()
    accept = accepted(door.connect(page(scopes=["operator.admin"]), *headers))
    expected = narrowed(["operator.admin"], ["operator.read", "operator.write"]) if scopes is None else scopes
    assert accept.scopes == expected
    device = signed_params(door, auth={}, scopes=["operator.admin"])  # type: ignore[arg-type]
    assert accepted(door.connect(device, *headers, origin=None)).scopes == expected


@pytest.mark.parametrize(
    ("headers", "settings", "code", "reason"),
    [
        ([FROM], {}, "AUTH_IDENTITY_HEADER_REQUIRED", "trusted_proxy_missing_header_x-user"),
        ([FROM, ("X-User", " ")], {}, "AUTH_IDENTITY_HEADER_REQUIRED", "trusted_proxy_missing_header_x-user"),
        ([FROM, USER], {"requiredHeaders": ["X-Signed"]}, "AUTH_IDENTITY_HEADER_REQUIRED", "trusted_proxy_missing_header_x-signed"),
        ([FROM, USER, USER], {}, "AUTH_UNAUTHORIZED", "trusted_proxy_ambiguous_header"),
        ([FROM, USER, ("x-user", "")], {}, "AUTH_UNAUTHORIZED", "trusted_proxy_ambiguous_header"),
        ([FROM, ("X-User", "a" * 300)], {}, "AUTH_UNAUTHORIZED", "trusted_proxy_ambiguous_header"),
        ([FROM, ("X-User", "alice@example.org\u00a0")], {}, "AUTH_UNAUTHORIZED", "trusted_proxy_ambiguous_header"),
        ([FROM, ("X-User", "\u3000alice@example.org")], {}, "AUTH_UNAUTHORIZED", "trusted_proxy_ambiguous_header"),
        ([FROM, ("X-User", "alice\x00")], {}, "AUTH_UNAUTHORIZED", "trusted_proxy_ambiguous_header"),
        ([FROM, USER], {"allowUsers": ["bob@example.org"]}, "AUTH_UNAUTHORIZED", "trusted_proxy_user_not_allowed"),
        ([FROM, USER], {"allowUsers": ["ALICE@example.org"]}, "AUTH_UNAUTHORIZED", "trusted_proxy_user_not_allowed"),
        ([FROM, USER], {"allowUsers": ["example.org"]}, "AUTH_UNAUTHORIZED", "trusted_proxy_user_not_allowed"),
        ([FROM, USER], {"allowUsers": []}, "AUTH_UNAUTHORIZED", "trusted_proxy_user_not_allowed"),
    ],
)
def test_each_refusal_of_a_proxy_has_its_code(headers: list[tuple[str, str]], settings: dict[str, Any], code: str, reason: str) -> None:
    error, close = refused(Door(**settings).connect(page(), *headers))
    assert (error["details"]["code"], error["details"]["authReason"]) == (code, reason)
    assert error["details"]["recommendedNextStep"] == "review_auth_configuration"
    assert close.code == 1008


@pytest.mark.parametrize("peer", ["203.0.113.9", "10.0.0.6", "127.0.0.1", "::1"])
def test_nobody_but_the_proxy_names_users(peer: str) -> None:
    """S17: whatever else such a peer sends, it is nobody."""
    for headers in ([USER], [USER, FROM], [USER, ("X-OpenClaw-Scopes", "operator.admin")], [USER, ("Forwarded", f"for={PROXY}")]):
        door = Door()
        for params in (page(), connect_params("gateway-client", "backend", auth={}), connect_params(auth={})):
            origin = ORIGIN if params["client"]["id"] == "openclaw-control-ui" else None
            error, _ = refused(door.connect(params, *headers, peer=peer, origin=origin))
            assert error["details"]["authReason"] == "trusted_proxy_untrusted_source"


def test_a_proxy_on_this_machine_names_users_only_with_consent() -> None:
    error, _ = refused(Door("127.0.0.1").connect(page(), FROM, USER, peer="127.0.0.1"))
    assert error["details"]["authReason"] == "trusted_proxy_loopback_source"
    accepted(Door("127.0.0.1", allowLoopback=True).connect(page(), FROM, USER, peer="127.0.0.1"))


def test_whom_a_proxy_names_that_adds_nothing_else_is_not_taken_for_a_program_of_this_machine() -> None:
    """A user header of any name marks what was forwarded."""
    door = Door("127.0.0.1", allowLoopback=True)
    backend = connect_params("gateway-client", "backend", auth={}, scopes=["operator.admin"])
    error, _ = refused(door.connect(backend, USER, ("X-OpenClaw-Scopes", ""), peer="127.0.0.1", origin=None))
    assert error["details"]["code"] == "DEVICE_IDENTITY_REQUIRED"


def test_a_program_of_this_machine_shows_the_secret_and_nobody_else_does() -> None:
    secret = "the-secret-of-this-machine"
    door = Door(secret=secret)
    cli = connect_params(auth={"token": secret})
    accept = accepted(door.connect(cli, peer="127.0.0.1", origin=None))
    assert (accept.verified.method, accept.scopes) == ("token", ("operator.admin",))
    for peer, headers in (("203.0.113.9", []), (PROXY, [FROM]), ("127.0.0.1", [FROM])):
        error, _ = refused(door.connect(cli, *headers, peer=peer, origin=None))
        assert error["details"]["code"] in {"AUTH_UNAUTHORIZED", "AUTH_IDENTITY_HEADER_REQUIRED"}
    error, _ = refused(Door().connect(cli, peer="127.0.0.1", origin=None))
    assert error["details"]["authReason"] == "trusted_proxy_untrusted_source"


def test_users_that_are_not_allowed_are_locked_out_like_wrong_secrets() -> None:
    door = Door(allowUsers=["bob"])
    for _ in range(10):
        proof, _ = door.proof(FROM, USER)
        assert proof == Refused("trusted_proxy_user_not_allowed")
    proof, _ = door.proof(FROM, ("X-User", "bob"))
    assert isinstance(proof, Refused)
    assert (proof.reason, proof.retry_after_ms) == ("rate_limited", 300_000)
    proof, _ = door.proof(("X-Forwarded-For", "198.51.100.1"), ("X-User", "bob"))
    assert isinstance(proof, Verified)
