"""The transcript as models may see it: always paired, always under its ceiling."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openclaw_kernel.api import (
    AssistantMessage,
    AssistantPart,
    File,
    Image,
    Message,
    PairedMessages,
    Text,
    Thinking,
    ToolCall,
    ToolResultMessage,
    UserMessage,
    message_from_json,
)
from openclaw_plugins.agents.history import (
    EMPTY,
    IMAGE_TOKENS,
    INTERRUPTED,
    MINIMUM_CEILING,
    PairedTranscript,
    cut_user_message,
    fit_history,
    message_tokens,
    total_tokens,
)
from openclaw_plugins.agents.tokens import CUT_NOTE


def user(text: str) -> UserMessage:
    return UserMessage(content=(Text(text),))


def said(*parts: AssistantPart | str) -> AssistantMessage:
    return AssistantMessage(content=tuple(Text(part) if isinstance(part, str) else part for part in parts))


def call(call_id: str = "c1") -> ToolCall:
    return ToolCall(call_id, "look", {"at": "x"})


def result(call_id: str = "c1", text: str = "seen") -> ToolResultMessage:
    return ToolResultMessage(call_id=call_id, name="look", text=text)


def assert_paired(messages: Sequence[Message]) -> None:
    """Every call has one result, right behind its message and in order; no result stands alone; ids are unique."""
    seen: set[str] = set()
    position = 0
    while position < len(messages):
        message = messages[position]
        position += 1
        assert not isinstance(message, ToolResultMessage), "a result without its call"
        if isinstance(message, AssistantMessage):
            ids = [part.id for part in message.tool_calls]
            assert not seen.intersection(ids)
            assert len(set(ids)) == len(ids)
            seen.update(ids)
            for call_id in ids:
                assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", call_id)
                answer = messages[position]
                assert isinstance(answer, ToolResultMessage)
                assert answer.call_id == call_id
                position += 1


def test_a_call_without_a_result_is_closed_as_interrupted() -> None:
    messages = PairedTranscript([user("a"), said(call("c1"), call("c2")), result("c2"), user("b")]).messages()
    assert_paired(messages)
    first, second = messages[2:4]
    assert isinstance(first, ToolResultMessage)
    assert isinstance(second, ToolResultMessage)
    assert (first.text, first.is_error) == (INTERRUPTED, True)
    assert (second.text, second.is_error) == ("seen", False)


@pytest.mark.parametrize(
    "messages",
    [
        [user("a"), result()],
        [user("a"), said("b"), result()],
        [user("a"), said(call()), result(), result()],
        [user("a"), said(call()), user("b"), result()],
        [user("a"), said(call()), result("other")],
        [result(), user("a")],
    ],
)
def test_a_result_without_its_call_is_dropped(messages: list[Message]) -> None:
    assert_paired(PairedTranscript(messages).messages())


def test_a_transcript_can_be_continued_after_it_was_read() -> None:
    transcript = PairedTranscript([user("a"), said(call())])
    assert isinstance(transcript.messages()[-1], ToolResultMessage)
    transcript.add(result())
    last = transcript.messages()[-1]
    assert isinstance(last, ToolResultMessage)
    assert last.text == "seen"


def test_a_sound_transcript_passes_unchanged() -> None:
    sound = (user("a"), said("b", call()), result(), said("c"), user("d"))
    assert PairedTranscript(sound).messages() == sound


def test_ids_that_repeat_or_hold_odd_characters_are_replaced_in_pairs() -> None:
    messages = PairedTranscript(
        [user("a"), said(call("")), result(""), said(call("x:1")), result("x:1"), said(call("x:1")), result("x:1")]
    ).messages()
    assert_paired(messages)
    texts = [message.text for message in messages if isinstance(message, ToolResultMessage)]
    assert texts == ["seen"] * 3


def test_a_model_without_tools_sees_words_only() -> None:
    messages = PairedTranscript([user("a"), said("b", call()), result(), said(call()), result(), user("c")], tools=False)
    assert messages.messages() == (user("a"), said("b"), user("c"))


def test_empty_messages_do_not_reach_a_model() -> None:
    messages = PairedTranscript([user(" "), said(""), said(" \n"), user("b")]).messages()
    assert messages == (user(EMPTY), user("b"))


def test_reasoning_is_kept_only_for_the_turn_that_runs() -> None:
    thought = Thinking("hm", "proof")
    messages = PairedTranscript(
        [user("a"), said(thought, call("c1")), result("c1"), said(thought), user("b"), said(thought, call("c2"))]
    ).messages()
    assistants = [message for message in messages if isinstance(message, AssistantMessage)]
    assert [thought in message.content for message in assistants] == [False, True]


ids = st.sampled_from(["c1", "c2", "c3", "x:1", "", "\u00e9" * 80])
words = st.one_of(st.text(max_size=40), st.sampled_from(["", " ", "word " * 200, "0123456789" * 50, "\u4e16" * 100]))
pictures = st.builds(Image, st.just("image/png"), st.just("AAAA"), st.text(max_size=5))
files = st.builds(File, st.just("text/plain"), st.text(max_size=5), st.one_of(st.none(), words))
calls = st.builds(ToolCall, ids, st.just("look"), st.dictionaries(st.text(max_size=5), words, max_size=2))
users = st.builds(UserMessage, content=st.lists(st.one_of(words.map(Text), pictures, files), max_size=4).map(tuple))
assistants = st.builds(
    AssistantMessage,
    content=st.lists(st.one_of(words.map(Text), calls, st.builds(Thinking, words)), max_size=4).map(tuple),
)
results = st.builds(ToolResultMessage, call_id=ids, name=st.just("look"), text=words)
streams = st.lists(st.one_of(users, assistants, results), max_size=25)


@settings(max_examples=300, deadline=None)
@given(streams, st.booleans(), st.booleans())
def test_any_stream_of_messages_makes_a_paired_transcript(stream: list[Message], tools: bool, images: bool) -> None:
    messages = PairedTranscript(stream, tools=tools, images=images).messages()
    assert_paired(messages)
    assert all(isinstance(message, ToolResultMessage) or message.content for message in messages)
    parts = [part for message in messages if not isinstance(message, ToolResultMessage) for part in message.content]
    assert tools or not any(isinstance(part, ToolCall) for part in parts)
    assert images or not any(isinstance(part, Image) for part in parts)
    assert PairedTranscript(messages, tools=tools, images=images).messages() == messages
    stored = [message_from_json(message.to_json()) for message in messages]
    assert [message.role for message in stored] == [message.role for message in messages]


@settings(max_examples=400, deadline=None)
@given(streams, users, st.lists(st.one_of(assistants, results), max_size=10), st.integers(0, 4_000))
def test_a_fitted_history_is_paired_under_its_ceiling_and_keeps_the_newest_message(
    before: list[Message], newest: UserMessage, after: list[Message], ceiling: int
) -> None:
    paired = PairedTranscript([*before, newest, *after]).messages()
    fitted = fit_history(paired, ceiling)
    assert total_tokens(fitted) <= max(ceiling, MINIMUM_CEILING)
    assert_paired(fitted)
    assert isinstance(fitted[0], UserMessage)
    kept = [message for message in fitted if isinstance(message, UserMessage)][-1]
    whole = [message for message in paired if isinstance(message, UserMessage)][-1]
    assert kept == whole or kept.content[-1] == Text(CUT_NOTE)
    assert set(map(message_tokens, fitted[: fitted.index(kept)])) <= set(map(message_tokens, paired))
    if total_tokens(paired) <= ceiling:
        assert fitted == paired[next(i for i, message in enumerate(paired) if isinstance(message, UserMessage)) :]


def test_only_whole_turns_are_dropped_and_the_rest_is_untouched() -> None:
    turns: list[Message] = []
    for number in range(50):
        turns += [user(f"question {number}"), said(call(f"c{number}")), result(f"c{number}"), said("answer")]
    fitted = fit_history(PairedTranscript(turns).messages(), 500)
    assert tuple(turns[-len(fitted) :]) == fitted
    assert len(fitted) % 4 == 0


def test_a_growing_conversation_keeps_its_beginning_for_many_turns() -> None:
    turns: list[Message] = []
    beginnings = []
    for number in range(200):
        turns += [user(f"question {number}"), said("a plain answer to it")]
        beginnings.append(fit_history(PairedMessages(turns), 1_000)[0])
    changes = sum(first != second for first, second in itertools.pairwise(beginnings))
    assert 0 < changes < 30


def test_pictures_are_counted() -> None:
    message = UserMessage(content=(Text("see"), Image("image/png", "AAAA"), Image("image/png", "AAAA")))
    assert message_tokens(message) > 2 * IMAGE_TOKENS
    shorter = cut_user_message(message, IMAGE_TOKENS + 100)
    assert shorter.content == (Text("see"), Image("image/png", "AAAA"), Text(CUT_NOTE))


def test_a_message_that_is_too_long_alone_is_cut_with_a_note() -> None:
    [fitted] = fit_history(PairedMessages([user("word " * 10_000)]), 200)
    assert isinstance(fitted, UserMessage)
    assert fitted.content[0] == Text(("word " * 10_000)[: len(fitted.content[0].to_json()["text"])])
    assert fitted.content[-1] == Text(CUT_NOTE)
    assert total_tokens([fitted]) > 150


def test_a_long_turn_loses_the_length_of_old_results_before_it_loses_rounds() -> None:
    turn: list[Message] = [user("do it")]
    for number in range(6):
        turn += [said(call(f"c{number}")), replace(result(f"c{number}"), text=f"{number} " * 500)]
    fitted = fit_history(PairedMessages(turn), 2_600)
    texts = [message.text for message in fitted if isinstance(message, ToolResultMessage)]
    assert len(texts) == 6
    assert CUT_NOTE in texts[0]
    assert texts[-1] == "5 " * 500
    assert fitted[0] == user("do it")

    fitted = fit_history(PairedMessages(turn), 500)
    assert fitted[0] == user("do it")
    assert isinstance(fitted[-1], ToolResultMessage)
    assert fitted[-1].call_id == "c5"
