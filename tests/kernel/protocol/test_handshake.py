"""The handshake, as transcripts without sockets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openclaw_kernel.api import effective_scopes
from openclaw_kernel.protocol.auth import PageGrant, Verified
from openclaw_kernel.protocol.handshake import PAGE_SCOPES, Close, Delay, Peer, Phase, Send
from tests.kernel.protocol.transcript import LOCAL, NONCE, REMOTE, Gate, accepted, connect_params, refused, request, signed_params

PAGE_PEER = Peer(address="127.0.0.1", direct_local=True, origin="http://127.0.0.1:18789", page=PageGrant("abc"))
BROWSER = Peer(address="127.0.0.1", direct_local=True, origin="http://127.0.0.1:18789")


def test_the_gateway_speaks_first_with_a_challenge() -> None:
    gate = Gate()
    (action,) = gate.handshake().open()
    assert isinstance(action, Send)
    frame = json.loads(action.frame)
    assert frame == {"type": "event", "event": "connect.challenge", "payload": {"nonce": NONCE, "ts": gate.clock()}}


def test_a_silent_client_is_closed_plainly() -> None:
    assert Gate().handshake().expire() == [Close(1000, "")]


@pytest.mark.parametrize(
    ("data", "close"),
    [
        ("{not json", Close(1000, "")),
        (b"\xff\xfe", Close(1000, "")),
        ("[" * 100_000, Close(1000, "")),
        ("[]", Close(1008, "invalid request frame")),
        ("null", Close(1008, "invalid request frame")),
        ('{"type":"event","event":"x"}', Close(1008, "invalid request frame")),
        ('{"type":"req","id":"1"}', Close(1008, "invalid request frame")),
        ('{"type":"req","id":"","method":"connect"}', Close(1008, "invalid request frame")),
        ('{"type":"req","id":1,"method":"connect"}', Close(1008, "invalid request frame")),
        ('{"type":"req","id":"1","method":"connect","extra":1}', Close(1008, "invalid request frame")),
    ],
)
def test_what_is_no_request_ends_the_connection_without_an_answer(data: str | bytes, close: Close) -> None:
    assert Gate().handshake().receive(data) == [close]


def test_the_first_request_must_be_connect() -> None:
    error, close = refused(Gate().handshake().receive(request("health")))
    assert error["code"] == "INVALID_REQUEST"
    assert error["message"] == "invalid handshake: first request must be connect"
    assert close.code == 1008


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"surprise": 1}, "surprise"),
        ({"minProtocol": "four"}, "minProtocol"),
        ({"minProtocol": 0}, "minProtocol"),
        ({"client": {"id": "someone", "version": "1", "platform": "x", "mode": "cli"}}, "client.id"),
        ({"client": {"id": "cli", "version": "", "platform": "x", "mode": "cli"}}, "client.version"),
        ({"client": {"id": "cli", "version": "1", "platform": "x", "mode": "operator"}}, "client.mode"),
        ({"scopes": "operator.admin"}, "scopes"),
        ({"auth": {"tokens": "x"}}, "auth.tokens"),
        ({"device": {"id": "x"}}, "device.publicKey"),
    ],
)
def test_bad_connect_params_are_named(change: dict[str, Any], named: str) -> None:
    error, close = refused(Gate().connect(connect_params(**change)))
    assert error["code"] == "INVALID_REQUEST"
    assert error["message"].startswith("invalid connect params: ")
    assert named in error["message"]
    assert close.code == 1008


def test_a_local_command_line_keeps_the_scopes_it_asks_for() -> None:
    accept = accepted(Gate().connect(connect_params(scopes=["operator.admin", "operator.read", "operator.bogus"])))
    assert accept.scopes == ("operator.admin", "operator.read")
    assert accept.role == "operator"
    assert accept.verified.method == "token"


def test_a_local_backend_keeps_its_scopes() -> None:
    assert accepted(Gate().connect(connect_params("gateway-client", "backend"))).scopes == ("operator.admin",)


def test_a_local_backend_keeps_its_scopes_without_any_auth() -> None:
    params = connect_params("gateway-client", "backend", auth={})
    assert accepted(Gate(mode="none").connect(params)).scopes == ("operator.admin",)


@pytest.mark.parametrize("peer", [REMOTE, BROWSER])
def test_a_command_line_from_elsewhere_or_from_a_page_gets_no_scopes(peer: Peer) -> None:
    assert accepted(Gate().connect(connect_params(), peer)).scopes == ()


def test_an_operator_with_the_secret_and_no_device_gets_no_scopes() -> None:
    assert accepted(Gate().connect(connect_params("test", "test"))).scopes == ()


@pytest.mark.parametrize("field", ["token", "password"])
@pytest.mark.parametrize("mode", ["token", "password"])
def test_the_shared_secret_may_come_in_either_field(mode: str, field: str) -> None:
    accept = accepted(Gate(mode=mode).connect(connect_params(auth={field: "the-shared-token"})))
    assert accept.verified.method == mode


@pytest.mark.parametrize("client", ["openclaw-control-ui", "openclaw-tui", "openclaw-browser-copilot"])
def test_clients_that_need_a_device_are_told_so(client: str) -> None:
    peer = BROWSER if client == "openclaw-control-ui" else LOCAL
    error, close = refused(Gate().connect(connect_params(client, "ui"), peer))
    assert error["code"] == "INVALID_REQUEST"
    assert error["details"]["code"] == "CONTROL_UI_DEVICE_IDENTITY_REQUIRED"
    assert close.code == 1008


@pytest.mark.parametrize(("role", "mode"), [("node", "token"), ("node", "none"), ("operator", "none")])
def test_nodes_and_operators_without_proof_need_a_device(role: str, mode: str) -> None:
    error, _ = refused(Gate(mode=mode).connect(connect_params("test", "test", role=role)))
    assert error["code"] == "NOT_PAIRED"
    assert error["details"]["code"] == "DEVICE_IDENTITY_REQUIRED"


def test_another_role_is_refused() -> None:
    error, close = refused(Gate().connect(connect_params(role="emperor")))
    assert error["message"] == "invalid role"
    assert close == Close(1008, "invalid role")


@pytest.mark.parametrize(
    ("low", "high", "mode", "role", "ok"),
    [
        (4, 4, "cli", "operator", True),
        (1, 9, "cli", "operator", True),
        (3, 3, "cli", "operator", False),
        (5, 6, "cli", "operator", False),
        (3, 3, "probe", "operator", True),
        (2, 2, "probe", "operator", False),
        (3, 3, "node", "operator", False),
        (3, 3, "node", "node", True),
    ],
)
def test_protocol_versions(low: int, high: int, mode: str, role: str, ok: bool) -> None:
    actions = Gate().connect(connect_params("cli", mode, minProtocol=low, maxProtocol=high, role=role))
    mismatch = {
        "code": "PROTOCOL_MISMATCH",
        "clientMinProtocol": low,
        "clientMaxProtocol": high,
        "expectedProtocol": 4,
        "minimumProbeProtocol": 3,
    }
    if ok and role == "operator":
        accepted(actions)
        return
    error, close = refused(actions)
    if ok:
        # The version is fine; a node still has to prove a device.
        assert error["details"]["code"] == "DEVICE_IDENTITY_REQUIRED"
    else:
        assert error["details"] == mismatch
        assert close == Close(1002, "protocol mismatch")


@pytest.mark.parametrize(
    ("phase", "reason", "close"),
    [
        (Phase.STARTING, "startup-sidecars", Close(1013, "gateway starting")),
        (Phase.DRAINING, "gateway-restarting", Close(1013, "gateway restart in progress")),
    ],
)
def test_a_gateway_that_does_not_serve_says_when_to_come_back(phase: Phase, reason: str, close: Close) -> None:
    error, closed = refused(Gate(phase=phase).connect(connect_params()))
    assert error["code"] == "UNAVAILABLE"
    assert error["retryable"] is True
    assert error["retryAfterMs"] in {500, 1000}
    assert error["details"]["reason"] == reason
    assert closed == close


@pytest.mark.parametrize(
    ("mode", "auth", "reason", "code", "step"),
    [
        ("token", {}, "token_missing", "AUTH_TOKEN_MISSING", "update_auth_configuration"),
        ("token", {"token": ""}, "token_missing", "AUTH_TOKEN_MISSING", "update_auth_configuration"),
        ("token", {"token": "wrong"}, "token_mismatch", "AUTH_TOKEN_MISMATCH", "update_auth_credentials"),
        ("token", {"password": "wrong"}, "token_mismatch", "AUTH_TOKEN_MISMATCH", "update_auth_credentials"),
        ("token", {"deviceToken": "x"}, "token_missing", "AUTH_TOKEN_MISSING", "update_auth_configuration"),
        ("password", {}, "password_missing", "AUTH_PASSWORD_MISSING", "update_auth_configuration"),
        ("password", {"password": "wrong"}, "password_mismatch", "AUTH_PASSWORD_MISMATCH", "update_auth_credentials"),
    ],
)
def test_each_failed_proof_has_its_code_and_next_step(mode: str, auth: dict[str, str], reason: str, code: str, step: str) -> None:
    error, close = refused(Gate(mode=mode).connect(connect_params(auth=auth)))
    assert error["code"] == "INVALID_REQUEST"
    assert error["message"].startswith("unauthorized: ")
    expected = {"code": code, "authReason": reason, "canRetryWithDeviceToken": False, "recommendedNextStep": step}
    assert error["details"] == expected
    assert close.code == 1008


@pytest.mark.parametrize("mode", ["token", "password"])
def test_a_gateway_without_its_secret_lets_nobody_in(mode: str) -> None:
    error, _ = refused(Gate(mode=mode, secret=None).connect(connect_params()))
    assert error["details"]["code"] == f"AUTH_{mode.upper()}_NOT_CONFIGURED"


@pytest.mark.parametrize(
    "field", ["token", "password", "deviceToken", "bootstrapToken", "approvalRuntimeToken", "agentRuntimeIdentityToken"]
)
@pytest.mark.parametrize("other", ["token", "password", "deviceToken", "bootstrapToken"])
@pytest.mark.parametrize("with_device", [False, True])
def test_garbage_in_the_credentials_never_passes(field: str, other: str, *, with_device: bool) -> None:
    gate = Gate()
    params = signed_params(gate) if with_device else connect_params()
    params["auth"] = {field: "garbage", other: "garbage"}
    refused(gate.connect(params))


def test_a_device_with_a_wrong_token_may_retry_with_its_device_token() -> None:
    gate = Gate()
    error, _ = refused(gate.connect(signed_params(gate, auth={"token": "wrong"})))
    assert error["details"]["canRetryWithDeviceToken"] is True
    assert error["details"]["recommendedNextStep"] == "retry_with_device_token"


def test_ten_wrong_tries_lock_an_address_out_for_five_minutes() -> None:
    gate = Gate()
    wrong = connect_params(auth={"token": "wrong"})
    for _ in range(10):
        error, _ = refused(gate.connect(wrong, REMOTE))
        assert error["details"]["authReason"] == "token_mismatch"
    error, _ = refused(gate.connect(connect_params(), REMOTE))
    assert error["details"]["code"] == "AUTH_RATE_LIMITED"
    assert error["retryable"] is True
    assert error["retryAfterMs"] == 300_000
    accepted(gate.connect(connect_params(), Peer(address="203.0.113.10", direct_local=False)))
    gate.clock.now += 300_000
    accepted(gate.connect(connect_params(), REMOTE))


def test_trying_without_a_credential_does_not_count_as_guessing() -> None:
    gate = Gate()
    for _ in range(20):
        refused(gate.connect(connect_params(auth={}), REMOTE))
    accepted(gate.connect(connect_params(), REMOTE))


def test_loopback_is_only_delayed() -> None:
    gate = Gate()
    delays = []
    for _ in range(12):
        first = gate.connect(connect_params(auth={"token": "wrong"}))[0]
        assert isinstance(first, Delay)
        delays.append(first.milliseconds)
    assert delays[:6] == [250, 500, 1000, 2000, 4000, 5000]
    accepted(gate.connect(connect_params()))


def test_a_page_on_loopback_is_locked_out_by_its_origin() -> None:
    gate = Gate()
    for _ in range(10):
        refused(gate.connect(connect_params(auth={"token": "wrong"}), BROWSER))
    error, _ = refused(gate.connect(connect_params(), BROWSER))
    assert error["details"]["code"] == "AUTH_RATE_LIMITED"
    accepted(gate.connect(connect_params()))


@pytest.mark.parametrize("version", [3, 2])
def test_a_proven_device_is_told_that_nobody_pairs_it(version: int) -> None:
    gate = Gate()
    error, close = refused(gate.connect(signed_params(gate, version=version)))
    details = error["details"]
    assert error["code"] == "NOT_PAIRED"
    assert (details["code"], details["reason"]) == ("PAIRING_REQUIRED", "not-paired")
    assert details["requestedScopes"] == ["operator.admin"]
    assert "plugin 'pairing'" in details["remediationHint"]
    assert close.code == 1008


@pytest.mark.parametrize(
    ("field", "value", "reason", "code"),
    [
        ("publicKey", "!!", "device-public-key", "DEVICE_AUTH_PUBLIC_KEY_INVALID"),
        ("id", "0" * 64, "device-id-mismatch", "DEVICE_AUTH_DEVICE_ID_MISMATCH"),
        ("signedAt", 1_600_000_000_000, "device-signature-stale", "DEVICE_AUTH_SIGNATURE_EXPIRED"),
        ("nonce", " ", "device-nonce-missing", "DEVICE_AUTH_NONCE_REQUIRED"),
        ("nonce", "other", "device-nonce-mismatch", "DEVICE_AUTH_NONCE_MISMATCH"),
        ("signature", "AAAA", "device-signature", "DEVICE_AUTH_SIGNATURE_INVALID"),
    ],
)
def test_each_flaw_of_a_device_proof_has_its_code(field: str, value: Any, reason: str, code: str) -> None:
    gate = Gate()
    params = signed_params(gate)
    params["device"][field] = value
    error, _ = refused(gate.connect(params))
    assert error["code"] == "INVALID_REQUEST"
    assert error["details"] == {"code": code, "reason": reason}


@pytest.mark.parametrize(
    "change",
    [{"scopes": ["operator.read"]}, {"role": "node"}, {"client": {"id": "test", "version": "1", "platform": "mac", "mode": "test"}}],
)
def test_the_device_signature_binds_what_is_asked_for(change: dict[str, Any]) -> None:
    gate = Gate()
    error, _ = refused(gate.connect(signed_params(gate) | change))
    assert error["details"]["code"] == "DEVICE_AUTH_SIGNATURE_INVALID"


def test_a_page_session_is_let_in_with_reading_and_writing_only() -> None:
    params = connect_params("webchat-ui", "webchat", auth={}, scopes=["operator.admin", "operator.read"])
    accept = accepted(Gate().connect(params, PAGE_PEER))
    assert effective_scopes(accept.scopes) == effective_scopes(PAGE_SCOPES)
    assert accept.verified.principal == "page:abc"


def test_a_page_without_a_session_must_prove_itself() -> None:
    error, _ = refused(Gate().connect(connect_params("webchat-ui", "webchat", auth={}), BROWSER))
    assert error["details"]["code"] == "AUTH_TOKEN_MISSING"


def test_a_page_client_without_an_origin_is_no_browser() -> None:
    error, _ = refused(Gate().connect(connect_params("webchat-ui", "webchat")))
    assert error["details"]["code"] == "CONTROL_UI_ORIGIN_NOT_ALLOWED"


def test_nobody_but_the_verifier_makes_a_proof() -> None:
    with pytest.raises(TypeError, match="only the verifier"):
        Verified("token", "token", object())


def test_nothing_is_answered_after_the_end() -> None:
    handshake = Gate().handshake()
    handshake.receive(request("connect", connect_params()))
    assert handshake.receive(request("connect", connect_params())) == []
