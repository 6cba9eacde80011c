"""Lines in and out, without a server."""

from __future__ import annotations

import pytest

from openclaw_irc.wire import addressed, fold, lines_of, read_message, sender_id


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("claw: hello", (True, "hello")),
        ("@Claw hello", (True, "hello")),
        ("claw", (True, "")),
        ("well, claw said so", (True, "well, claw said so")),
        ("clawing is fun", (False, "clawing is fun")),
        ("hello all", (False, "hello all")),
    ],
)
def test_a_nick_is_recognised_as_an_address(text: str, expected: tuple[bool, str]) -> None:
    assert addressed(text, "claw") == expected


def test_the_account_is_preferred_to_the_mask() -> None:
    assert sender_id("Ann!u@host", {"account": "Ann"}) == "account:ann"
    assert sender_id("Ann[x]!u@Host", {}) == "ann{x}!u@host"
    assert sender_id("Ann!~u@Host", {"account": "*"}) == "ann!~u@host"


def test_rooms_and_private_messages_have_their_targets() -> None:
    room = read_message(mask="ann!u@h", to="#Room[1]", text="claw: \x02hi\x02", tags={"msgid": "7"}, nick="claw", number="n", now_ms=5)
    assert (room.target.peer_kind, room.target.peer_id, room.text, room.mentioned, room.message_id) == (
        "group",
        "#room{1}",
        "hi",
        True,
        "7",
    )
    direct = read_message(mask="Ann!u@h", to="claw", text="hi", tags={}, nick="claw", number="n", now_ms=5)
    assert (direct.target.peer_kind, direct.target.peer_id, direct.message_id) == ("direct", fold("Ann"), "n")


def test_long_lines_are_cut_at_words_and_never_inside_a_letter() -> None:
    text = " ".join(["wörter"] * 200)
    lines = lines_of(text, 400)
    assert all(len(line.encode()) <= 400 for line in lines)
    assert " ".join(lines) == text
    assert "".join(lines_of("ä" * 1000, 400)) == "ä" * 1000


def test_fences_and_empty_lines_are_left_out() -> None:
    assert lines_of("one\n\n```python\nprint(1)\n```\n**two**", 400) == ["one", "print(1)", "\x02two\x02"]
