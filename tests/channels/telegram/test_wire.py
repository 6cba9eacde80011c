"""Telegram's messages as the gateway's: who, where, what, and whether the bot is meant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from telegram import Update

from openclaw_channels.telegram.wire import (
    Bot,
    Incoming,
    chat_id,
    join_albums,
    read_update,
    safe_file_name,
    telegram_message_id,
)
from openclaw_kernel.api import Target

ME = Bot(id=1001, username="My_Bot")
ADA = {"id": 7, "is_bot": False, "first_name": "Ada", "last_name": "L", "username": "ada"}
PRIVATE = {"id": 7, "type": "private", "first_name": "Ada"}
PHOTO = {"file_id": "f", "file_unique_id": "u", "width": 1, "height": 1}
GROUP = {"id": -100, "type": "supergroup", "title": "Team"}


def read(number: int = 5, **fields: Any) -> Incoming | None:
    message = {"message_id": number, "date": 1_700_000_000, "chat": PRIVATE, "from": ADA, **fields}
    update = Update.de_json({"update_id": 1, "message": message}, None)
    return read_update(update, account_id="default", bot=ME, is_command=lambda text: text.startswith("/new"))


def got(number: int = 5, **fields: Any) -> Incoming:
    incoming = read(number, **fields)
    assert incoming is not None
    return incoming


def entity(kind: str, offset: int, length: int, **more: Any) -> dict[str, Any]:
    return {"type": kind, "offset": offset, "length": length, **more}


def test_a_direct_message_names_chat_sender_and_time() -> None:
    message = got(text="hello").message
    assert message.target == Target(channel="telegram", account_id="default", peer_kind="direct", peer_id="7")
    assert (message.message_id, message.sender_id, message.sender_name) == ("1001:7:5", "7", "Ada L")
    assert (message.text, message.timestamp_ms, message.mentioned) == ("hello", 1_700_000_000_000, True)
    assert message.extra == {"chatType": "private", "username": "ada"}


@pytest.mark.parametrize(
    ("fields", "mentioned"),
    [
        ({"text": "hello all"}, False),
        ({"text": "😀 @my_bot hello", "entities": [entity("mention", 3, 7)]}, True),
        ({"text": "@my_bot2 hello", "entities": [entity("mention", 0, 8)]}, False),
        ({"text": "write @my_bot in an address"}, False),
        ({"text": "you there", "entities": [entity("text_mention", 0, 3, user={"id": 1001, "is_bot": True, "first_name": "B"})]}, True),
        ({"text": "/status@my_bot", "entities": [entity("bot_command", 0, 14)]}, True),
        ({"text": "/new", "entities": [entity("bot_command", 0, 4)]}, True),
        ({"text": "/weather", "entities": [entity("bot_command", 0, 8)]}, False),
        ({"caption": "@my_bot see", "caption_entities": [entity("mention", 0, 7)], "photo": [PHOTO]}, True),
    ],
)  # fmt: skip
def test_in_a_group_the_bot_is_meant_only_when_addressed(fields: dict[str, Any], mentioned: bool) -> None:
    message = got(chat=GROUP, **fields).message
    assert message.mentioned is mentioned
    assert (message.target.peer_kind, message.target.peer_id) == ("group", "-100")


def test_a_reply_to_the_bot_addresses_it_and_names_the_message() -> None:
    me = {"id": 1001, "is_bot": True, "first_name": "B"}
    original = {"message_id": 4, "date": 1, "chat": GROUP, "from": me, "text": "asked"}
    message = got(chat=GROUP, text="yes", reply_to_message=original).message
    assert (message.mentioned, message.reply_to_id) == (True, "-100:4")
    assert message.extra["replyToText"] == "asked"
    other = got(chat=GROUP, text="yes", reply_to_message={**original, "from": ADA}).message
    assert other.mentioned is False


def test_a_topic_is_a_thread_and_its_head_no_reply() -> None:
    head = {"message_id": 9, "date": 1, "chat": GROUP, "from": ADA}
    message = got(chat=GROUP, text="x", message_thread_id=9, is_topic_message=True, reply_to_message=head).message
    assert (message.target.thread_id, message.reply_to_id) == ("9", None)
    assert got(chat=GROUP, text="x", message_thread_id=9).message.target.thread_id is None


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "/new@other_bot"},
        {"text": "from a bot", "from": {"id": 8, "is_bot": True, "first_name": "Robot"}},
        {"new_chat_title": "renamed"},
        {"text": "nobody", "from": None},
    ],
)
def test_what_is_not_for_this_bot_is_left_alone(fields: dict[str, Any]) -> None:
    assert read(chat=GROUP, **fields) is None


def test_other_kinds_of_updates_are_left_alone() -> None:
    update = Update.de_json({"update_id": 1}, None)
    assert read_update(update, account_id="default", bot=ME, is_command=lambda _: False) is None


def test_an_anonymous_admin_is_the_group_and_never_a_person() -> None:
    fields: dict[str, Any] = {"from": {"id": 1087968824, "is_bot": True, "first_name": "Group"}, "sender_chat": GROUP}
    message = got(chat=GROUP, text="as admin", **fields).message
    assert (message.sender_id, message.sender_name) == ("-100", "Team")


def test_addresses_behind_words_are_written_out() -> None:
    links = [entity("text_link", 3, 4, url="https://a.example/1"), entity("text_link", 8, 4, url="https://b.example/2")]
    message = got(text="😀 here and", entities=links[:1]).message
    assert message.text == "😀 here (https://a.example/1) and"
    two = got(text="😀 here also", entities=links).message
    assert two.text == "😀 here (https://a.example/1) also (https://b.example/2)"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"location": {"latitude": 1.5, "longitude": 2.5}}, "[location: 1.5, 2.5]"),
        ({"contact": {"phone_number": "+49", "first_name": "Bo"}}, "[contact: Bo, +49]"),
        ({"dice": {"emoji": "🎲", "value": 3}}, "[dice 🎲: 3]"),
        ({"story": {"chat": PRIVATE, "id": 1}}, "[a story, which a bot cannot read]"),
        ({"paid_media": {"star_count": 1, "paid_media": []}}, "[paid media, which a bot cannot read]"),
        ({"game": {"title": "Chess", "description": "d", "photo": []}}, "[game: Chess]"),
        ({"sticker": {"file_id": "s", "file_unique_id": "u", "width": 1, "height": 1, "is_animated": False, "is_video": False,
                      "type": "regular", "emoji": "👍"}}, "[sticker 👍]"),
    ],
)  # fmt: skip
def test_what_has_no_text_is_put_into_words(fields: dict[str, Any], text: str) -> None:
    assert got(**fields).message.text == text


def file(**more: Any) -> dict[str, Any]:
    return {"file_id": "id", "file_unique_id": "u", "file_size": 9, **more}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"photo": [file(width=1, height=1), file(file_id="large", width=9, height=9)]}, ("image", "image/jpeg", "photo-5.jpg", "large")),
        ({"document": file(file_name="a.pdf", mime_type="application/pdf")}, ("file", "application/pdf", "a.pdf", "id")),
        ({"document": file(file_name="a.png", mime_type="image/png")}, ("image", "image/png", "a.png", "id")),
        ({"document": file()}, ("file", "application/octet-stream", "file-5", "id")),
        ({"voice": file(duration=1, mime_type="audio/ogg")}, ("audio", "audio/ogg", "voice-5.ogg", "id")),
        ({"audio": file(duration=1, file_name="s.mp3")}, ("audio", "audio/mpeg", "s.mp3", "id")),
        ({"video": file(duration=1, width=1, height=1)}, ("video", "video/mp4", "video-5.mp4", "id")),
        ({"video_note": file(duration=1, length=1)}, ("video", "video/mp4", "video-note-5.mp4", "id")),
        ({"animation": file(duration=1, width=1, height=1), "document": file()}, ("video", "video/mp4", "animation-5.mp4", "id")),
    ],
)  # fmt: skip
def test_every_kind_of_file_is_found(fields: dict[str, Any], expected: tuple[str, str, str, str]) -> None:
    (media,) = got(**fields).media
    assert (media.kind, media.mime_type, media.file_name, media.file_id) == expected


@pytest.mark.parametrize(
    ("given", "safe"),
    [
        ("../../etc/passwd", "_.._etc_passwd"),
        ("C:\\x\n.txt", "C_x_.txt"),
        ("...", "file"),
        (None, "file"),
        ("a" * 300 + ".tar.gz", "a" * 108 + ".gz"),
        ("räum list.csv", "räum list.csv"),
    ],
)
def test_file_names_lead_nowhere(given: str | None, safe: str) -> None:
    assert safe_file_name(given, "file") == safe


def test_albums_are_joined_and_keep_who_came_between_apart() -> None:
    one = got(1, caption="holidays", media_group_id="g", photo=[file(width=1, height=1)])
    two = got(2, media_group_id="g", photo=[file(file_id="second", width=1, height=1)])
    text = got(3, text="between")
    late = got(4, media_group_id="g", photo=[file(width=1, height=1)])
    joined = join_albums([one, two, text, late])
    assert [item.message.message_id for item in joined] == ["1001:7:1-2", "1001:7:3", "1001:7:4"]
    assert (joined[0].message.text, len(joined[0].media)) == ("holidays", 2)


def test_albums_of_two_groups_have_ids_of_their_own() -> None:
    ids = []
    for group in (-100, -200):
        parts = [got(number, chat={**GROUP, "id": group}, media_group_id="g", photo=[file(width=1, height=1)]) for number in (1, 2, 3)]
        ids += [item.message.message_id for item in join_albums(parts)]
    assert ids == ["1001:-100:1-3", "1001:-200:1-3"]
    assert telegram_message_id(ids[0]) == 1


def test_the_head_of_a_topic_that_the_bot_opened_addresses_nobody() -> None:
    head = {"message_id": 9, "date": 1, "chat": GROUP, "from": {"id": 1001, "is_bot": True, "first_name": "B"}}
    topic = {"message_thread_id": 9, "is_topic_message": True}
    assert got(chat=GROUP, text="x", reply_to_message=head, **topic).message.mentioned is False


def test_ids_are_read_back() -> None:
    assert [telegram_message_id(text) for text in ("7:5", "-100:5-9", "12", "x", "")] == [5, 5, 12, None, None]
    target = got(text="x").message.target
    ids = [chat_id(replace(target, peer_id=peer)) for peer in ("7", "-100", "@ada", "", "-")]
    assert ids == [7, -100, None, None, None]
