"""An open session, as transcripts without sockets."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from openclaw_kernel.api import Access, Call, Params, Scope, effective_scopes, rpc
from openclaw_kernel.api.methods import methods_of
from openclaw_kernel.protocol.handshake import Close
from openclaw_kernel.protocol.limits import Limits
from openclaw_kernel.protocol.registry import MethodRegistry, RegistryError
from openclaw_kernel.protocol.session import Invoke, Reply, Session
from tests.kernel.protocol.transcript import request


class NoteParams(Params):
    note_text: str
    loud: bool = False


def _louder(params: NoteParams) -> Iterable[Scope]:
    return (Scope.ADMIN,) if params.loud else ()


class Methods:
    @rpc("open", scope=Access.ANYONE, result=dict[str, Any])
    def anyone(self, _call: Call) -> dict[str, Any]:
        """For all."""
        return {}

    @rpc("node.only", scope=Access.NODE, result=dict[str, Any])
    def node(self, _call: Call) -> dict[str, Any]:
        """For nodes."""
        return {}

    @rpc("note.read", scope=Scope.READ, result=dict[str, Any])
    def read(self, _call: Call) -> dict[str, Any]:
        """Reads."""
        return {}

    @rpc(
        "note.write",
        scope=(Scope.WRITE, Scope.SESSIONS_WRITE),
        params=NoteParams,
        result=dict[str, Any],
        requires=_louder,
        repeatable="a note replaces the one before",
    )
    def write(self, _call: Call, _params: NoteParams) -> dict[str, Any]:
        """Writes."""
        return {}


REGISTRY = MethodRegistry(("notes", method) for method in methods_of(Methods()))


def session(*scopes: str, role: str = "operator", limits: Limits | None = None) -> Session:
    return Session(registry=REGISTRY, role=role, scopes=effective_scopes(scopes), limits=limits or Limits())


def error_of(outcome: object) -> dict[str, Any]:
    assert isinstance(outcome, Reply), outcome
    response: dict[str, Any] = json.loads(outcome.frame)
    assert response["ok"] is False
    error: dict[str, Any] = response["error"]
    return error


def test_what_is_not_json_is_ignored() -> None:
    assert session().receive("{nope") is None
    assert session().receive(b"\xff") is None


@pytest.mark.parametrize(
    ("frame", "answered"),
    [
        ("[]", "invalid"),
        ('{"type":"req","method":"open"}', "invalid"),
        ('{"type":"req","id":"7"}', "7"),
        ('{"type":"req","id":"7","method":"open","more":1}', "7"),
        ('{"type":"req","id":"7","method":"open","traceparent":"' + "x" * 129 + '"}', "7"),
        ('{"type":"res","id":"7","method":"open"}', "7"),
    ],
)
def test_a_bad_frame_is_answered_under_its_id(frame: str, answered: str) -> None:
    outcome = session().receive(frame)
    assert error_of(outcome)["message"].startswith("invalid request frame: ")
    assert isinstance(outcome, Reply)
    assert json.loads(outcome.frame)["id"] == answered


def test_connecting_twice_is_refused() -> None:
    assert error_of(session().receive(request("connect", {})))["code"] == "INVALID_REQUEST"


def test_a_method_for_anyone_runs_without_scopes() -> None:
    assert isinstance(session().receive(request("open")), Invoke)


def test_a_missing_scope_is_named_with_all_that_would_do() -> None:
    error = error_of(session("operator.read").receive(request("note.write", {"noteText": "x"})))
    assert error["code"] == "FORBIDDEN"
    required = ["operator.sessions.write", "operator.write"]
    assert error["details"] == {"code": "MISSING_SCOPE", "missingScope": required[0], "requiredScopes": required}


@pytest.mark.parametrize("scope", ["operator.write", "operator.sessions.write", "operator.admin"])
def test_any_of_the_scopes_will_do(scope: str) -> None:
    outcome = session(scope).receive(request("note.write", {"noteText": "x"}))
    assert isinstance(outcome, Invoke)
    assert outcome.params.note_text == "x"


def test_params_may_ask_for_more() -> None:
    error = error_of(session("operator.write").receive(request("note.write", {"noteText": "x", "loud": True})))
    assert error["message"] == "missing scope: operator.admin"
    assert isinstance(session("operator.admin").receive(request("note.write", {"noteText": "x", "loud": True})), Invoke)


def test_an_unknown_method_looks_like_a_missing_scope_but_to_admins() -> None:
    assert error_of(session("operator.read").receive(request("nothing")))["message"] == "missing scope: operator.admin"
    assert error_of(session("operator.admin").receive(request("nothing")))["message"] == "unknown method: nothing"


@pytest.mark.parametrize(
    ("params", "named"),
    [({}, "noteText"), ({"noteText": 1}, "noteText"), ({"noteText": "x", "much": 1}, "much"), ([], "params"), ("x", "params")],
)
def test_bad_params_are_named(params: Any, named: str) -> None:
    error = error_of(session("operator.write").receive(request("note.write", params)))
    assert error["message"].startswith("invalid note.write params: ")
    assert named in error["message"]


def test_a_method_without_params_takes_none() -> None:
    assert isinstance(session().receive(request("open", {})), Invoke)
    assert "takes none" in error_of(session().receive(request("open", {"x": 1})))["message"]


def test_more_than_ten_calls_of_another_role_end_the_connection() -> None:
    client = session(role="node")
    for _ in range(10):
        outcome = client.receive(request("note.read"))
        assert isinstance(outcome, Reply)
        assert error_of(outcome)["message"] == "unauthorized role: node"
        assert outcome.close is None
    last = client.receive(request("note.read"))
    assert isinstance(last, Reply)
    assert last.close == Close(1008, "repeated unauthorized calls")


def test_requests_in_flight_are_bounded_by_number() -> None:
    client = session(limits=Limits(queued_requests=2))
    first = client.receive(request("open"))
    assert isinstance(first, Invoke)
    assert isinstance(client.receive(request("open")), Invoke)
    error = error_of(client.receive(request("open")))
    assert (error["code"], error["retryable"]) == ("UNAVAILABLE", True)
    client.finished(first.request)
    assert isinstance(client.receive(request("open")), Invoke)


def test_requests_in_flight_are_bounded_by_size() -> None:
    client = session("operator.write", limits=Limits(queued_request_bytes=300))
    large = request("note.write", {"noteText": "x" * 200})
    assert isinstance(client.receive(large), Invoke)
    assert error_of(client.receive(large))["code"] == "UNAVAILABLE"


def test_a_refused_request_takes_no_place() -> None:
    client = session("operator.write", limits=Limits(queued_requests=1))
    for _ in range(5):
        error_of(client.receive(request("note.write", {})))
    assert isinstance(client.receive(request("open")), Invoke)


@pytest.mark.parametrize(
    ("granted", "held", "lacking"),
    [
        ("operator.admin", "operator.talk.secrets", None),
        ("operator.write", "operator.read", "operator.admin"),
        ("operator.write", "operator.sessions.write", "operator.talk.secrets"),
        ("operator.read", "operator.sessions.read", "operator.sessions.write"),
        ("operator.sessions.write", "operator.sessions.read", "operator.read"),
        ("operator.pairing", "operator.pairing", "operator.read"),
    ],
)
def test_scopes_imply_each_other_as_the_protocol_says(granted: str, held: str, lacking: str | None) -> None:
    scopes = effective_scopes([granted, "operator.made.up"])
    assert held in scopes
    assert lacking not in scopes
    assert "operator.made.up" not in scopes


def _method(**options: Any) -> MethodRegistry:
    class Lone:
        @rpc("lone", result=dict[str, Any], **options)
        def lone(self, _call: Call) -> dict[str, Any]:
            """Alone."""
            return {}

    return MethodRegistry(("stranger", method) for method in methods_of(Lone()))


def test_a_method_without_a_scope_does_not_start() -> None:
    with pytest.raises(RegistryError, match=r"'lone' of plugin 'stranger' has no scope"):
        _method(scope=())


def test_two_owners_of_one_method_are_both_named() -> None:
    methods = methods_of(Methods())
    with pytest.raises(RegistryError, match=r"'one' and by 'two'"):
        MethodRegistry([("one", methods[0]), ("two", methods[0])])
