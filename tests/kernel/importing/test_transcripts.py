"""From the reference's events to our messages: the branch in force, each form of content, and what is no message."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openclaw_kernel.api.transcript import message_from_json
from openclaw_kernel.importing.transcripts import messages_of, time_ms
from tests.kernel.importing.installation import event, transcript


def test_the_branch_in_force_is_taken_in_its_order() -> None:
    messages, left = messages_of(transcript("x"))
    assert [message["role"] for message in messages] == ["user", "assistant", "toolResult", "assistant"]
    assert left == 1
    for message in messages:
        assert message_from_json(message).to_json() == message
    assert messages[1]["content"][1] == {"type": "toolCall", "id": "c1", "name": "read", "arguments": {"path": "list.md"}}
    assert "thinkingSignature" not in messages[1]["content"][0]
    assert "usage" not in messages[1]


def test_events_without_parents_are_taken_one_after_the_other() -> None:
    events: list[dict[str, Any]] = [event("a", None, "user", "one", 1), event("b", None, "assistant", [{"type": "text", "text": "two"}], 2)]
    for each in events:
        del each["parentId"]
    assert [message["content"][0]["text"] for message in messages_of(events)[0]] == ["one", "two"]


def test_a_circle_of_parents_ends() -> None:
    events = [event("a", "b", "user", "one", 1), event("b", "a", "user", "two", 2)]
    assert len(messages_of(events)[0]) == 2


@pytest.mark.parametrize(
    "message",
    [
        {"type": "message", "id": "a", "parentId": None, "message": {"role": "narrator", "content": "x"}},
        {"type": "message", "id": "a", "parentId": None, "message": "x"},
        {"type": "custom_message", "id": "a", "parentId": None, "content": "x"},
    ],
)
def test_what_is_no_message_is_counted_and_left(message: dict[str, Any]) -> None:
    assert messages_of([message]) == ([], 1)


def test_pictures_and_times_in_words_are_taken_and_parts_that_nobody_knows_are_not() -> None:
    content = [{"type": "image", "data": "AAAA", "mimeType": "image/png"}, {"type": "hologram"}, "x", {"type": "text", "text": "see"}]
    wire = {
        "type": "message",
        "id": "a",
        "parentId": None,
        "timestamp": "2026-07-01T00:00:00Z",
        "message": {"role": "user", "content": content},
    }
    (found,) = messages_of([wire])[0]
    assert [part["type"] for part in found["content"]] == ["image", "text"]
    assert found["timestamp"] == 1_782_864_000_000


@pytest.mark.parametrize("text", ["1e999", "1e300", "-1", "true", "null"])
def test_a_time_that_no_clock_tells_is_none(text: str) -> None:
    assert time_ms({"timestamp": json.loads(text)}) == 0
