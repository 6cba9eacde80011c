"""`message.action` as the request of `send` that it stands for."""

from __future__ import annotations

from typing import Any

import pytest

from openclaw_kernel.api import InvalidRequest
from openclaw_plugins.conversation.methods_message_action import MessageActionParams, send_params


def asked(**params: Any) -> dict[str, Any]:
    """What `send` is asked for by these params of the action."""
    request = {"channel": "telegram", "action": "send", "params": params, "idempotencyKey": "k1"}
    return send_params(MessageActionParams.model_validate(request)).model_dump(by_alias=True, exclude_none=True)


PLACE = {"to": "42", "channel": "telegram", "idempotencyKey": "k1"}


def test_a_message_of_the_command_line() -> None:
    params = {"pin": False, "silent": False, "json": True, "dryRun": False, "channel": "telegram", "target": "42", "action": "send"}
    assert asked(**params, to="telegram:42", message="hello", __agentId="main") == {**PLACE, "message": "hello"}


def test_everything_that_a_message_can_be() -> None:
    params = {
        "to": "telegram:42",
        "media": "https://example.org/a.png",
        "replyTo": 7,
        "threadId": "3",
        "silent": True,
        "accountId": "second",
    }
    expected = {"mediaUrl": "https://example.org/a.png", "replyToId": "7", "threadId": "3", "silent": True, "accountId": "second"}
    assert asked(**params) == {**PLACE, **expected}


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"target": "42", "message": "x", "pin": True}, "params.pin: cannot be sent"),
        ({"target": "42", "message": "x", "presentation": {"blocks": []}}, "params.presentation: cannot be sent"),
        ({"target": "42", "message": "x", "dryRun": True}, "params.dryRun: cannot be sent"),
        ({"message": "x"}, "params.target: is missing"),
        ({"target": "42", "message": ["x"]}, "have to be texts"),
    ],
)
def test_what_send_could_not_do_is_refused(params: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        asked(**params)
