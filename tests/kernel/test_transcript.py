"""Messages that cannot hold an unpaired tool call."""

from __future__ import annotations

from pathlib import Path

import pytest

from openclaw_kernel.api import AssistantMessage, Message, ModelRequest, PairedMessages, Text, ToolCall, ToolResultMessage, UserMessage

ASKED = UserMessage(content=(Text("a"),))
CALLING = AssistantMessage(content=(ToolCall("c1", "look", {}), ToolCall("c2", "look", {})))
ONE = ToolResultMessage(call_id="c1", name="look", text="1")
TWO = ToolResultMessage(call_id="c2", name="look", text="2")
SAID = AssistantMessage(content=(Text("b"),))


@pytest.mark.parametrize("messages", [(), (ASKED,), (ASKED, CALLING, TWO, ONE), (ASKED, CALLING, ONE, TWO, SAID, ASKED)])
def test_paired_messages_are_taken_as_they_are(messages: tuple[Message, ...]) -> None:
    """P10."""
    assert PairedMessages(messages) == messages


@pytest.mark.parametrize(
    "messages",
    [
        (ASKED, CALLING),
        (ASKED, CALLING, ONE),
        (ASKED, CALLING, ONE, SAID, TWO),
        (ASKED, CALLING, ONE, ASKED),
        (ASKED, ONE),
        (ASKED, CALLING, ONE, ONE, TWO),
        (ASKED, AssistantMessage(content=(ToolCall("c1", "look", {}), ToolCall("c1", "look", {}))), ONE),
    ],
)
def test_no_request_holds_an_unpaired_call(messages: tuple[Message, ...]) -> None:
    """P10: neither the type nor what is made of it."""
    with pytest.raises(ValueError, match="message "):
        PairedMessages(messages)
    with pytest.raises(ValueError, match="message "):
        ModelRequest(
            model="m", system="", messages=messages, agent_id="main", session_key="k", session_id="s", run_id="r", workspace=Path()
        )
