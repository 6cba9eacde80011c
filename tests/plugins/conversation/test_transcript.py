"""What a model is given of a transcript is whole, whatever the transcript is."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from openclaw_kernel.api import (
    AssistantMessage,
    Message,
    Text,
    ToolCall,
    ToolResultMessage,
    UserMessage,
    message_from_json,
)
from openclaw_plugins.conversation.transcript import entry_id, projected, seq_of

IDS = st.sampled_from(["a", "b", "c", "d"])
CALLS = st.lists(st.builds(lambda call_id: ToolCall(call_id, "tool", {}), IDS), max_size=3, unique_by=lambda call: call.id)
MESSAGES: st.SearchStrategy[list[Message]] = st.lists(
    st.one_of(
        st.builds(lambda text: UserMessage(content=(Text(text),)), st.text(max_size=3)),
        st.builds(lambda text, calls: AssistantMessage(content=(Text(text), *calls)), st.text(max_size=3), CALLS),
        st.builds(lambda call_id: ToolResultMessage(call_id=call_id, name="tool", text="r"), IDS),
    ),
    max_size=20,
)


@settings(deadline=None)
@given(MESSAGES)
def test_every_call_is_followed_by_its_one_result(messages: list[Message]) -> None:
    found = projected(messages)
    position = 0
    while position < len(found):
        message = found[position]
        position += 1
        assert not isinstance(message, ToolResultMessage), "a result without its call"
        if isinstance(message, AssistantMessage):
            for call in message.tool_calls:
                result = found[position]
                assert isinstance(result, ToolResultMessage)
                assert result.call_id == call.id
                position += 1


@settings(deadline=None)
@given(MESSAGES)
def test_it_begins_with_a_user_and_loses_no_words(messages: list[Message]) -> None:
    found = projected(messages)
    assert not found or isinstance(found[0], UserMessage)
    users = [message for message in messages if isinstance(message, UserMessage)]
    assert [message for message in found if isinstance(message, UserMessage)] == users
    assert projected(found) == found


@settings(deadline=None)
@given(MESSAGES, st.integers(min_value=0, max_value=20))
def test_any_prefix_can_be_stored_and_read_back(messages: list[Message], length: int) -> None:
    prefix = messages[:length]
    assert projected(message_from_json(message.to_json()) for message in prefix) == projected(prefix)


def test_an_id_that_comes_again_in_a_later_turn_keeps_each_result_with_its_call() -> None:
    turns: list[Message] = []
    for number in range(3):
        turns += [
            UserMessage(content=(Text("go"),)),
            AssistantMessage(content=(ToolCall("call_0", "tool", {}),)),
            ToolResultMessage(call_id="call_0", name="tool", text=f"result {number}"),
        ]
    assert list(projected(turns)) == turns


def test_ids_of_messages_name_their_place() -> None:
    assert seq_of("s-1", entry_id("s-1", 12)) == 12
    assert seq_of("other", entry_id("s-1", 12)) is None
    assert seq_of("s-1", "s-1-x") is None
