"""Which refusals the audit log is told of, in which words; the rows of a real gateway are in tests/e2e/test_audit_rows.py."""

from __future__ import annotations

import pytest

from openclaw_kernel.api import Forbidden, GatewayError, InvalidRequest, NotPaired, Scope, Unavailable
from openclaw_kernel.protocol.auth import Refused
from openclaw_kernel.protocol.refusals import Refusals
from openclaw_kernel.protocol.registry import missing_scope
from tests.plugins.conversation.harness import TestClient
from tests.support.audit import RecordedAudit

PEER = "203.0.113.9"


@pytest.mark.parametrize(
    ("error", "row"),
    [
        (Refused("token_mismatch").to_error(), ("auth.refused", "token_mismatch", "device:d1")),
        (Refused("rate_limited", retry_after_ms=1).to_error(), ("auth.locked-out", "rate_limited", "device:d1")),
        (
            InvalidRequest("x", details={"code": "DEVICE_AUTH_SIGNATURE_INVALID", "reason": "device-signature"}),
            ("auth.refused", "device-signature", None),
        ),
        (NotPaired("x", details={"code": "DEVICE_IDENTITY_REQUIRED"}), ("auth.refused", "device identity required", None)),
        (InvalidRequest("x", details={"code": "CONTROL_UI_ORIGIN_NOT_ALLOWED"}), ("origin.refused", "missing", None)),
    ],
)
def test_a_handshake_that_proved_nothing_is_a_refusal_of_nobody(error: GatewayError, row: tuple[str, str, str | None]) -> None:
    audit = RecordedAudit()
    Refusals(audit).handshake(error, PEER, device_id="d1")
    (entry,) = audit.refusals
    assert (entry.action.value, entry.reason, entry.subject) == row
    assert (entry.origin.actor, entry.origin.surface, entry.origin.address, entry.outcome) == ("nobody", "ws", PEER, "refused")


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("invalid connect params: at client: missing"),
        InvalidRequest("protocol mismatch", details={"clientMinProtocol": 9}),
        NotPaired("pairing required", details={"code": "PAIRING_REQUIRED", "requestId": "r1"}),
        Unavailable("gateway starting", details={"reason": "startup-sidecars"}),
    ],
)
def test_faults_of_form_and_what_will_be_over_soon_are_no_rows(error: GatewayError) -> None:
    audit = RecordedAudit()
    Refusals(audit).handshake(error, PEER, device_id=None)
    assert audit.refusals == []


@pytest.mark.parametrize(
    ("error", "by_handler", "row"),
    [
        (missing_scope([Scope.ADMIN]), False, ("method.refused", "missing scope operator.admin")),
        (missing_scope([Scope.ADMIN]), True, ("grant.refused", "missing scope operator.admin")),
        (Forbidden("no", details={"code": "SECRET_NOT_IN_SCOPE"}), True, ("method.refused", "SECRET_NOT_IN_SCOPE")),
        (InvalidRequest("unauthorized role: node"), False, ("method.refused", "unauthorized role")),
        (InvalidRequest("unknown method: x"), False, None),
    ],
)
def test_a_call_beyond_its_rights_is_a_refusal_of_its_caller(error: GatewayError, *, by_handler: bool, row: tuple[str, str] | None) -> None:
    audit = RecordedAudit()
    Refusals(audit).method(TestClient(principal="device:d1", address=PEER), "m" * 100, error, None, by_handler=by_handler)
    assert [(entry.action.value, entry.reason) for entry in audit.refusals] == ([] if row is None else [row])
    assert all(entry.origin.actor == "device:d1" and entry.subject == f"method:{'m' * 64}" for entry in audit.refusals)
