"""Telegram's messages as the gateway's, without I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from openclaw_kernel.api import AttachmentKind, InboundMessage, PeerKind, Target

if TYPE_CHECKING:
    from telegram import Message, MessageEntity, Update

CHANNEL: Final = "telegram"
COMMAND: Final = re.compile(r"/([A-Za-z0-9_]{1,32})(?:@([A-Za-z0-9_]+))?(?=\s|$)")
COMMAND_NAME: Final = re.compile(r"[a-z0-9_]{1,32}")
UNSAFE_IN_NAMES: Final = re.compile(r"[\x00-\x1f\x7f/\\:*?\"<>|]+")
LONGEST_FILE_NAME: Final = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Bot:
    """Who this account is on Telegram."""

    id: int
    username: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """A file that lies at Telegram. `size` is in bytes, None where Telegram does not tell."""

    kind: AttachmentKind
    mime_type: str
    file_name: str
    file_id: str
    size: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """What arrived: the message without its files, the files still to load, the album it belongs to."""

    message: InboundMessage
    media: tuple[Media, ...] = ()
    album: str | None = None


def read_update(update: Update, *, account_id: str, bot: Bot, is_command: Callable[[str], bool]) -> Incoming | None:
    """Translate an update; None for what is not a person's message to this bot."""
    message = update.message
    if message is None:
        return None
    sender = message.sender_chat or message.from_user
    if sender is None or (message.from_user is not None and message.from_user.is_bot and message.sender_chat is None):
        return None
    text = _text(message)
    media = _media(message)
    if not text and not media:
        return None
    command = COMMAND.match(text)
    if command and command.group(2) and command.group(2).lower() != bot.username.lower():
        return None
    return Incoming(
        message=InboundMessage(
            target=_target(message, account_id),
            # Each bot numbers its own private messages: another bot in its place must not seem to repeat them.
            message_id=f"{bot.id}:{message.chat.id}:{message.message_id}",
            sender_id=str(sender.id),
            sender_name=getattr(sender, "full_name", None) or getattr(sender, "title", None) or "",
            text=text,
            reply_to_id=_reply_to(message),
            timestamp_ms=int(message.date.timestamp() * 1000),
            mentioned=_is_addressed(message, bot) or (command is not None and is_command(text)),
            extra=_facts(message),
        ),
        media=media,
        album=f"{message.chat.id}:{message.media_group_id}" if message.media_group_id else None,
    )


def join_albums(incoming: Sequence[Incoming]) -> list[Incoming]:
    """Make one message of the neighbouring messages that people sent as one album."""
    joined: list[Incoming] = []
    for item in incoming:
        last = joined[-1] if joined else None
        if last is None or item.album is None or item.album != last.album:
            joined.append(item)
            continue
        place, _, numbers = last.message.message_id.rpartition(":")
        first, number = numbers.partition("-")[0], item.message.message_id.rpartition(":")[2]
        message = replace(
            last.message,
            # A part of the album that came alone before must not pass for the whole.
            message_id=f"{place}:{first}-{number}",
            text="\n".join(text for text in (last.message.text, item.message.text) if text),
            mentioned=last.message.mentioned or item.message.mentioned,
        )
        joined[-1] = replace(last, message=message, media=last.media + item.media)
    return joined


def telegram_message_id(message_id: str) -> int | None:
    """Return Telegram's number from an id of ours (`bot:chat:number`, `bot:chat:first-last`) or a bare number."""
    number = message_id.rpartition(":")[2].partition("-")[0]
    return int(number) if number.isascii() and number.isdigit() else None


def chat_id(target: Target) -> int | None:
    """Return the numeric chat id of a target, None for what is not one."""
    digits = target.peer_id.removeprefix("-")
    return int(target.peer_id) if digits.isascii() and digits.isdigit() else None


def thread_id(target: Target) -> int | None:
    """Return the number of a target's topic, None where it has none."""
    thread = target.thread_id or ""
    return int(thread) if thread.isascii() and thread.isdigit() else None


def safe_file_name(name: str | None, fallback: str) -> str:
    """Return a name without folders and control characters, of bounded length."""
    cleaned = UNSAFE_IN_NAMES.sub("_", name or "").strip(". ")
    stem, dot, suffix = cleaned.rpartition(".")
    if len(cleaned) > LONGEST_FILE_NAME:
        cleaned = f"{(stem or suffix)[: LONGEST_FILE_NAME - 12]}{dot}{suffix[:10]}" if dot else cleaned[:LONGEST_FILE_NAME]
    return cleaned or fallback


def _target(message: Message, account_id: str) -> Target:
    kinds: dict[str, PeerKind] = {"private": "direct", "channel": "channel"}
    thread = message.message_thread_id if message.is_topic_message else None
    return Target(
        channel=CHANNEL,
        account_id=account_id,
        peer_kind=kinds.get(message.chat.type, "group"),
        peer_id=str(message.chat.id),
        thread_id=str(thread) if thread else None,
    )


def _reply_to(message: Message) -> str | None:
    original = _answered(message)
    return None if original is None else f"{message.chat.id}:{original.message_id}"


def _answered(message: Message) -> Message | None:
    """Return the message this one replies to; in a topic every message replies to its head, which says nothing."""
    original = message.reply_to_message
    return None if original is None or original.message_id == message.message_thread_id else original


def _facts(message: Message) -> dict[str, object]:
    facts: dict[str, object] = {"chatType": str(message.chat.type)}
    if message.chat.title:
        facts["chatTitle"] = message.chat.title
    if message.from_user is not None and message.from_user.username:
        facts["username"] = message.from_user.username
    if message.forward_origin is not None:
        facts["forwarded"] = True
    original = message.reply_to_message
    if original is not None and (original.text or original.caption):
        facts["replyToText"] = original.text or original.caption
    return facts


def _is_addressed(message: Message, bot: Bot) -> bool:
    if message.chat.type == "private":
        return True
    original = _answered(message)
    if original is not None and original.from_user is not None and original.from_user.id == bot.id:
        return True
    text = message.text or message.caption or ""
    for entity in (*message.entities, *message.caption_entities):
        if entity.type == "text_mention" and entity.user is not None and entity.user.id == bot.id:
            return True
        said = _entity_text(text, entity).lower()
        if entity.type == "mention" and said == f"@{bot.username.lower()}":
            return True
        if entity.type == "bot_command" and said.endswith(f"@{bot.username.lower()}"):
            return True
    return False


def _entity_text(text: str, entity: MessageEntity) -> str:
    encoded = text.encode("utf-16-le")
    return encoded[2 * entity.offset : 2 * (entity.offset + entity.length)].decode("utf-16-le", "replace")


def _text(message: Message) -> str:
    if message.text is not None:
        return _with_addresses(message.text, message.entities)
    if message.caption is not None:
        return _with_addresses(message.caption, message.caption_entities)
    return _described(message)


def _with_addresses(text: str, entities: Sequence[MessageEntity]) -> str:
    """Write the addresses behind linked words, which the words alone do not show."""
    encoded = text.encode("utf-16-le")
    links = [entity for entity in entities if entity.type == "text_link" and entity.url]
    for entity in sorted(links, key=lambda entity: -entity.offset):
        end = 2 * (entity.offset + entity.length)
        encoded = encoded[:end] + f" ({entity.url})".encode("utf-16-le") + encoded[end:]
    return encoded.decode("utf-16-le", "replace")


def _described(message: Message) -> str:
    """Say in words what a message without text and files holds; empty for service messages."""
    if message.sticker is not None:
        return f"[sticker {message.sticker.emoji or ''}]".replace(" ]", "]")
    if message.venue is not None:
        where = message.venue.location
        return f"[place: {message.venue.title}, {message.venue.address} ({where.latitude}, {where.longitude})]"
    if message.location is not None:
        return f"[location: {message.location.latitude}, {message.location.longitude}]"
    if message.contact is not None:
        name = f"{message.contact.first_name} {message.contact.last_name or ''}".strip()
        return f"[contact: {name}, {message.contact.phone_number}]"
    if message.poll is not None:
        options = "; ".join(option.text for option in message.poll.options)
        return f"[poll: {message.poll.question} ({options})]"
    if message.dice is not None:
        return f"[dice {message.dice.emoji}: {message.dice.value}]"
    return _unreadable(message)


def _unreadable(message: Message) -> str:
    if message.game is not None:
        return f"[game: {message.game.title}]"
    if message.story is not None:
        return "[a story, which a bot cannot read]"
    return "[paid media, which a bot cannot read]" if message.paid_media is not None else ""


def _media(message: Message) -> tuple[Media, ...]:
    number = message.message_id
    if message.photo:
        photo = message.photo[-1]
        return (_one("image", "image/jpeg", f"photo-{number}.jpg", photo.file_id, photo.file_size),)
    # A GIF comes as an animation and, for older clients, as a document too.
    if message.animation is not None:
        found = message.animation
        name = safe_file_name(found.file_name, f"animation-{number}.mp4")
        return (_one("video", found.mime_type or "video/mp4", name, found.file_id, found.file_size),)
    if message.document is not None:
        document = message.document
        mime_type = document.mime_type or "application/octet-stream"
        name = safe_file_name(document.file_name, f"file-{number}")
        return (_one(_kind_of(mime_type), mime_type, name, document.file_id, document.file_size),)
    if message.voice is not None:
        voice = message.voice
        return (_one("audio", voice.mime_type or "audio/ogg", f"voice-{number}.ogg", voice.file_id, voice.file_size),)
    if message.audio is not None:
        audio = message.audio
        name = safe_file_name(audio.file_name, f"audio-{number}.mp3")
        return (_one("audio", audio.mime_type or "audio/mpeg", name, audio.file_id, audio.file_size),)
    if message.video is not None:
        video = message.video
        name = safe_file_name(video.file_name, f"video-{number}.mp4")
        return (_one("video", video.mime_type or "video/mp4", name, video.file_id, video.file_size),)
    if message.video_note is not None:
        note = message.video_note
        return (_one("video", "video/mp4", f"video-note-{number}.mp4", note.file_id, note.file_size),)
    return ()


def _one(kind: AttachmentKind, mime_type: str, name: str, file_id: str, size: int | None) -> Media:
    return Media(kind=kind, mime_type=mime_type, file_name=name, file_id=file_id, size=size)


def _kind_of(mime_type: str) -> AttachmentKind:
    kinds: dict[str, AttachmentKind] = {"image": "image", "audio": "audio", "video": "video"}
    return kinds.get(mime_type.partition("/")[0], "file")
