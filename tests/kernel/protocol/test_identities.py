"""Identities that authenticators prove: what the configuration gives them, for how long, and what a wrong one costs."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from openclaw_config.models import GatewayAuth, OperatorScope
from openclaw_kernel.api import ALL_SCOPES, Identity, IdentityRefused
from openclaw_kernel.protocol.auth import Refused, Verified, Verifier
from openclaw_kernel.protocol.handshake import Handshake, Peer, Phase, Settle
from openclaw_kernel.protocol.limiter import Caller, FailureLimiter
from tests.kernel.protocol.test_vouched import Paired
from tests.kernel.protocol.transcript import NONCE, TOKEN, Clock, accepted, connect_params, refused, request, signed_params

ISSUER = "https://id.example.org"
ALICE = Identity(issuer=ISSUER, subject="alice", email="alice@example.org", groups=("ops", "staff"))
CALLER = Caller("203.0.113.9", is_loopback=False)
READ: dict[str, Any] = {"issuer": ISSUER, "subject": "alice", "scopes": ["operator.read"]}


class Desk:
    """The verifier of a gateway with these entries in `gateway.auth.identities`."""

    def __init__(self, *entries: dict[str, Any]) -> None:
        self.clock = Clock()
        auth = {"mode": "token", "token": TOKEN, "identities": entries}
        self.verifier = Verifier(GatewayAuth.model_validate(auth), FailureLimiter())

    def prove(self, answer: Identity | IdentityRefused, caller: Caller = CALLER) -> Verified | Refused:
        return self.verifier.verify_identity(answer, caller, self.clock())

    def handshake(self, answer: Identity | IdentityRefused, *, origin: str | None = None) -> Handshake:
        peer = Peer(address=CALLER.address, direct_local=False, origin=origin, proof=self.prove(answer))
        handshake = Handshake(
            peer=peer, verifier=self.verifier, phase=lambda: Phase.SERVING, now_ms=self.clock, nonce=NONCE, pairing=Paired()
        )
        handshake.open()
        return handshake


def test_the_scopes_of_the_configuration_are_those_of_the_protocol() -> None:
    assert set(get_args(OperatorScope)) == ALL_SCOPES


@pytest.mark.parametrize(
    ("entries", "scopes"),
    [
        ([READ], {"operator.read"}),
        ([{"issuer": ISSUER, "email": "alice@example.org", "scopes": ["operator.admin"]}], {"operator.admin"}),
        ([{"issuer": ISSUER, "group": "ops", "scopes": ["operator.pairing"]}, READ], {"operator.pairing", "operator.read"}),
        ([{"issuer": ISSUER, "subject": "*", "scopes": ["operator.write"]}], {"operator.write"}),
        ([{"issuer": ISSUER, "subject": "alice", "group": "ops", "scopes": ["operator.write"]}], {"operator.write"}),
    ],
)
def test_an_identity_gets_the_sum_of_the_entries_that_fit(entries: list[dict[str, Any]], scopes: set[str]) -> None:
    verified = Desk(*entries).prove(ALICE)
    assert isinstance(verified, Verified)
    assert (verified.method, verified.principal) == ("identity", f"identity:{ISSUER}#alice")
    assert set(verified.ceiling or ()) == scopes


@pytest.mark.parametrize(
    "entry",
    [
        {"issuer": "https://other.example.org", "subject": "alice"},
        {"issuer": f"{ISSUER}/", "subject": "alice"},
        {"issuer": ISSUER, "subject": "Alice"},
        {"issuer": ISSUER, "subject": "alic"},
        {"issuer": ISSUER, "email": "ALICE@example.org"},
        {"issuer": ISSUER, "email": "example.org"},
        {"issuer": ISSUER, "email": "*"},
        {"issuer": ISSUER, "group": "op"},
        {"issuer": ISSUER, "group": "*"},
        {"issuer": ISSUER, "subject": "alice", "group": "admins"},
        {"issuer": "*", "subject": "*"},
    ],
)
def test_an_entry_that_does_not_fit_letter_by_letter_gives_nothing(entry: dict[str, Any]) -> None:
    """S18."""
    assert Desk(entry | {"scopes": ["operator.admin"]}).prove(ALICE) == Refused("identity_unknown")


def test_without_entries_nobody_gets_anything() -> None:
    desk = Desk()
    error, _ = refused(desk.handshake(ALICE).receive(request("connect", connect_params(auth={}))))
    assert (error["details"]["code"], error["details"]["authReason"]) == ("AUTH_UNAUTHORIZED", "identity_unknown")
    assert "add it to gateway.auth.identities" in error["message"]


@pytest.mark.parametrize(
    "entry", [{"issuer": ISSUER, "scopes": ["operator.read"]}, {"issuer": ISSUER, "subject": "", "scopes": ["operator.read"]}]
)
def test_an_entry_that_names_nobody_is_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        GatewayAuth.model_validate({"identities": [entry]})


@pytest.mark.parametrize(
    ("client", "origin"),
    [(("cli", "cli"), None), (("gateway-client", "backend"), None), (("webchat-ui", "webchat"), "https://chat.example.org")],
)
@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        (["operator.admin"], ("operator.read", "operator.sessions.read")),
        (["operator.read"], ("operator.read",)),
        (["operator.pairing"], ()),
        ([], ()),
        (None, ("operator.read", "operator.sessions.read")),
    ],
)
def test_an_operator_with_an_identity_gets_no_more_than_its_entries(
    client: tuple[str, str], origin: str | None, asked: list[str] | None, granted: tuple[str, ...]
) -> None:
    """S4: what is asked for only narrows."""
    params = connect_params(*client, auth={}, scopes=asked)
    if asked is None:
        del params["scopes"]
    accept = accepted(Desk(READ).handshake(ALICE, origin=origin).receive(request("connect", params)))
    assert (accept.scopes, accept.verified.method) == (granted, "identity")


def test_a_node_with_an_identity_waits_for_its_approval_like_any_other() -> None:
    desk = Desk(READ)
    params = signed_params(desk, role="node", auth={}, scopes=[])  # type: ignore[arg-type]  # only its clock is asked for
    params["client"]["displayName"] = "stranger"
    params = signed_params(desk, role="node", auth={}, scopes=[], client=params["client"])  # type: ignore[arg-type]
    (settle,) = desk.handshake(ALICE).receive(request("connect", params))
    assert isinstance(settle, Settle)
    error, _ = refused(desk.handshake(ALICE).receive(request("connect", connect_params("node-host", "node", role="node", auth={}))))
    assert error["details"]["code"] == "DEVICE_IDENTITY_REQUIRED"


def test_whoever_offers_a_secret_is_judged_by_it() -> None:
    desk = Desk(READ)
    accept = accepted(desk.handshake(ALICE).receive(request("connect", connect_params())))
    assert accept.verified.method == "token"
    error, _ = refused(desk.handshake(ALICE).receive(request("connect", connect_params(auth={"token": "wrong"}))))
    assert error["details"]["code"] == "AUTH_TOKEN_MISMATCH"
    bad = IdentityRefused(reason="token_expired", cure="sign in anew")
    assert accepted(desk.handshake(bad).receive(request("connect", connect_params()))).verified.method == "token"


def test_a_refusal_says_its_word_and_its_cure() -> None:
    desk = Desk(READ)
    bad = IdentityRefused(reason="badge_lost", cure="ask the\n porter " + "x" * 500)
    error, close = refused(desk.handshake(bad).receive(request("connect", connect_params(auth={}))))
    assert error["details"]["authReason"] == "identity_badge_lost"
    assert error["message"].startswith("unauthorized: ask the porter xxx")
    assert len(error["message"]) < 250
    assert close.code == 1008
    odd = desk.prove(IdentityRefused(reason="Of Any\nShape", cure="x"))
    assert isinstance(odd, Refused)
    assert odd.reason == "identity_refused"


def test_what_cannot_be_checked_now_is_to_be_tried_again() -> None:
    later = IdentityRefused(reason="keys_unavailable", cure="the issuer is away", temporary=True)
    error, close = refused(Desk(READ).handshake(later).receive(request("connect", connect_params(auth={}))))
    assert (error["code"], error["retryable"], error["details"]) == ("UNAVAILABLE", True, {"reason": "identity_keys_unavailable"})
    assert (close.code, close.reason) == (1013, "identity cannot be checked now")


def test_wrong_identities_lock_out_and_only_their_own_kind() -> None:
    """S3: one limiter, a key space for this kind of credential."""
    desk = Desk(READ)
    for _ in range(10):
        desk.prove(IdentityRefused(reason="signature_invalid", cure="x"))
    locked = desk.prove(ALICE)
    assert isinstance(locked, Refused)
    assert (locked.reason, locked.retry_after_ms) == ("rate_limited", 300_000)
    assert isinstance(desk.prove(ALICE, Caller("198.51.100.1", is_loopback=False)), Verified)
    assert isinstance(desk.verifier.verify_secret(TOKEN, CALLER, desk.clock()), Verified)


def test_what_is_the_issuers_fault_locks_nobody_out() -> None:
    desk = Desk(READ)
    for _ in range(20):
        desk.prove(IdentityRefused(reason="keys_unavailable", cure="x", temporary=True))
        desk.prove(IdentityRefused(reason="token_expired", cure="x", guess=False))
        desk.prove(Identity(issuer=ISSUER, subject="unknown"))
    assert isinstance(desk.prove(ALICE), Verified)


def test_a_proof_that_has_ended_proves_nothing() -> None:
    desk = Desk(READ)
    now = desk.clock()
    ended = desk.prove(Identity(issuer=ISSUER, subject="alice", expires_ms=now))
    assert ended == Refused("identity_expired")
    lasting = desk.prove(Identity(issuer=ISSUER, subject="alice", expires_ms=now + 1))
    assert isinstance(lasting, Verified)
    assert lasting.expires_ms == now + 1


def test_nobody_but_the_verifier_makes_a_proof() -> None:
    with pytest.raises(TypeError, match="only the verifier"):
        Verified("identity", "identity:x#y", object(), ceiling=("operator.admin",))


def test_users_of_a_trusted_proxy_may_be_given_less_than_everything() -> None:
    from tests.kernel.protocol.test_vouched import FROM, USER, Door

    door = Door()
    door.verifier = Verifier(
        GatewayAuth.model_validate(
            {
                "mode": "trusted-proxy",
                "trustedProxy": {"userHeader": "X-User"},
                "identities": [{"issuer": "trusted-proxy", "subject": USER[1], "scopes": ["operator.read"]}],
            }
        ),
        FailureLimiter(),
    )
    proof, _ = door.proof(FROM, USER, ("X-OpenClaw-Scopes", "operator.admin"))
    assert isinstance(proof, Verified)
    assert proof.ceiling == ("operator.read",)
    proof, _ = door.proof(FROM, ("X-User", "bob"))
    assert proof == Refused("identity_unknown")
