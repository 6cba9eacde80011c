"""The contract helpers refuse what they should, and know every method this gateway has to answer."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft7Validator

from tests.support import contract

pytestmark = pytest.mark.requires("contract")

METHODS = """
    health status system-presence system-event chat.send chat.history chat.abort chat.inject sessions.list
    sessions.get sessions.resolve sessions.preview sessions.patch sessions.reset sessions.delete sessions.subscribe
    sessions.messages.subscribe sessions.messages.unsubscribe agent agent.wait agent.identity.get agents.list
    models.list channels.status channels.start channels.stop config.get config.schema tools.catalog commands.list
    logs.tail send usage.status usage.cost
""".split()


def hello() -> dict[str, Any]:
    return {
        "type": "hello-ok",
        "protocol": 4,
        "server": {"version": "0.1.0", "connId": "c1"},
        "features": {"methods": ["health"], "events": ["tick"]},
        "snapshot": {
            "presence": [{"ts": 1}],
            "health": {"ok": True, "ts": 1},
            "stateVersion": {"presence": 1, "health": 1},
            "uptimeMs": 5,
        },
        "auth": {"role": "operator", "scopes": []},
        "policy": {"maxPayload": 1, "maxBufferedBytes": 1, "tickIntervalMs": 1},
    }


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_result_definition_that_is_a_valid_schema(method: str) -> None:
    name = contract.result_definition(method)
    Draft7Validator.check_schema(contract.definitions()[name])
    assert list(contract.validator(name).iter_errors(None)), f"{name} accepts anything"


def test_a_complete_hello_passes() -> None:
    contract.validate_hello(hello())


@pytest.mark.parametrize("key", ["server", "features", "snapshot", "auth", "policy", "protocol"])
def test_a_hello_without_a_required_field_is_refused_by_name(key: str) -> None:
    document = hello()
    del document[key]
    with pytest.raises(contract.ContractError, match=f"'{key}' is a required property"):
        contract.validate_hello(document)


def test_the_place_of_a_violation_is_named() -> None:
    document = hello()
    document["snapshot"]["presence"][0]["ts"] = "now"
    with pytest.raises(contract.ContractError, match=r"\$\.snapshot\.presence\[0\]\.ts: 'now' is not of type"):
        contract.validate_hello(document)


def test_an_unknown_key_in_a_closed_object_is_refused() -> None:
    document = hello()
    document["auth"]["method"] = "token"
    with pytest.raises(contract.ContractError, match="'method' was unexpected"):
        contract.validate_hello(document)


def test_an_agent_event_may_name_its_session_and_nothing_else_new() -> None:
    payload = {"runId": "r", "seq": 1, "stream": "assistant", "ts": 1, "data": {}, "sessionKey": "agent:main:main"}
    frame = {"type": "event", "event": "agent", "payload": payload}
    contract.validate_event(frame)
    payload["surprise"] = True
    with pytest.raises(contract.ContractError, match="surprise"):
        contract.validate_event(frame)


def test_an_event_nobody_defined_is_an_error_not_a_pass() -> None:
    with pytest.raises(contract.ContractMissingError, match=r"knows no event 'nonsense'"):
        contract.validate_event({"type": "event", "event": "nonsense"})


def test_a_method_nobody_defined_is_an_error_not_a_pass() -> None:
    with pytest.raises(contract.ContractMissingError, match=r"no result for the method 'nonsense\.get'"):
        contract.validate_result("nonsense.get", {})


def test_a_session_row_without_its_kind_is_refused() -> None:
    row = {"key": "agent:main:main"}
    defaults = {"modelProvider": None, "model": None, "contextTokens": None}
    payload = {"ts": 1, "path": "x", "count": 1, "defaults": defaults, "sessions": [row]}
    with pytest.raises(contract.ContractError, match=r"\$\.sessions\[0\]: 'kind' is a required property"):
        contract.validate_result("sessions.list", payload)


def test_a_response_carries_an_error_exactly_where_it_is_not_ok() -> None:
    contract.validate_response({"type": "res", "id": "1", "ok": True, "payload": {}})
    with pytest.raises(contract.ContractError, match="exactly where it is not ok"):
        contract.validate_response({"type": "res", "id": "1", "ok": False})
