"""What the Bot API emulator remembers: bots, chats, messages, updates, files, faults and counts. No HTTP here."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from tests.emulators.telegram_text import Entity, utf16_length

Json = dict[str, Any]
FIRST_UPDATE_ID = 700_000_000
COMMAND = re.compile(r"(?<!\S)/[A-Za-z0-9_]{1,32}(?:@\w+)?")


class ApiError(Exception):
    """An answer other than ok; `status` is the HTTP status as well as `error_code`."""

    def __init__(self, status: int, description: str, *, retry_after: int | None = None) -> None:
        super().__init__(description)
        self.status = status
        self.description = description
        self.retry_after = retry_after

    def body(self) -> Json:
        body: Json = {"ok": False, "error_code": self.status, "description": self.description}
        if self.retry_after is not None:
            body["parameters"] = {"retry_after": self.retry_after}
        return body


@dataclass
class StoredFile:
    file_id: str
    content: bytes
    name: str
    mime_type: str
    size: int

    @property
    def path(self) -> str:
        return f"documents/{self.file_id}{PurePosixPath(self.name).suffix}"


@dataclass
class Message:
    """One message in a chat as people see it, with every text it has had."""

    message_id: int
    chat_id: int
    from_bot: bool
    body: Json
    parse_mode: str | None = None
    source: str = ""
    edits: list[Json] = field(default_factory=list)
    deleted: bool = False
    posted_at: float = field(default_factory=time.monotonic)

    @property
    def text(self) -> str:
        return str(self.body.get("text") or self.body.get("caption") or "")

    def described(self) -> Json:
        """What the control API shows of this message."""
        media = [kind for kind in MEDIA_KINDS if kind in self.body]
        return {
            "message_id": self.message_id,
            "chat_id": self.chat_id,
            "from_bot": self.from_bot,
            "text": self.text,
            "entities": self.body.get("entities") or self.body.get("caption_entities") or [],
            "parse_mode": self.parse_mode,
            "source": self.source,
            "reply_to": (self.body.get("reply_to_message") or {}).get("message_id"),
            "thread": self.body.get("message_thread_id"),
            "media": media[0] if media else None,
            "edits": self.edits,
            "deleted": self.deleted,
        }


MEDIA_KINDS = ("photo", "document", "voice", "audio", "video", "animation", "sticker")


@dataclass
class Chat:
    body: Json
    messages: dict[int, Message] = field(default_factory=dict)
    recent: deque[float] = field(default_factory=deque)
    flooded_until: float = 0.0

    @property
    def chat_id(self) -> int:
        return int(self.body["id"])


@dataclass
class Fault:
    """Something to go wrong with calls of `method` (`*` is every method, `file` a download)."""

    method: str
    mode: str
    status: int
    description: str
    retry_after: int | None
    times: int
    skip: int
    after_accept: bool
    chat_id: int | None


@dataclass
class Webhook:
    url: str
    secret_token: str
    max_connections: int
    last_error_date: int = 0
    last_error_message: str = ""


@dataclass
class Bot:
    """One bot token with everything that hangs on it."""

    token: str
    user: Json
    changed: asyncio.Condition
    chats: dict[int, Chat] = field(default_factory=dict)
    pending: dict[int, Json] = field(default_factory=dict)
    again: deque[Json] = field(default_factory=deque)
    delivered: dict[int, Json] = field(default_factory=dict)
    update_ids: Any = field(default_factory=lambda: itertools.count(FIRST_UPDATE_ID))
    message_ids: Any = field(default_factory=lambda: itertools.count(1))
    file_numbers: Any = field(default_factory=lambda: itertools.count(1))
    files: dict[str, StoredFile] = field(default_factory=dict)
    allowed_updates: list[str] = field(default_factory=list)
    webhook: Webhook | None = None
    commands: list[Json] = field(default_factory=list)
    callback_queries: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)
    calls: list[Json] = field(default_factory=list)
    accepted: Counter[str] = field(default_factory=Counter)
    attempted: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    polls_running: int = 0
    polls_most_at_once: int = 0
    polls_terminated: int = 0
    poll_number: int = 0
    confirmed_below: int = 0
    flood_limit: int = 0
    flood_seconds: float = 1.0
    flood_retry_after: int = 1
    flood_refused: int = 0
    flood_ignored: int = 0
    webhook_deliveries: int = 0

    @property
    def bot_id(self) -> int:
        return int(self.user["id"])

    async def notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    def chat(self, chat_id: int) -> Chat:
        try:
            return self.chats[chat_id]
        except KeyError:
            raise ApiError(400, "Bad Request: chat not found") from None

    def add_update(self, kind: str, body: Json) -> Json:
        """Queue an update of `kind`; it waits until it is confirmed or the webhook took it."""
        update = {"update_id": next(self.update_ids), kind: body}
        if kind == "callback_query":
            self.callback_queries.add(str(body["id"]))
        self.pending[update["update_id"]] = update
        return update

    def confirm_below(self, offset: int) -> None:
        """Forget pending updates with an id below `offset`; a negative one keeps the last of the queue."""
        if offset < 0:
            kept = list(self.pending)[offset:]
            offset = kept[0] if kept else 0
        for update_id in [known for known in self.pending if known < offset]:
            del self.pending[update_id]
        self.confirmed_below = max(self.confirmed_below, offset)

    def next_updates(self, offset: int, limit: int) -> list[Json]:
        repeated = [self.again.popleft() for _ in range(min(len(self.again), limit))]
        fresh: list[Json] = []
        for update in self.pending.values():
            if len(fresh) + len(repeated) >= limit:
                break
            if update["update_id"] >= offset and self.is_wanted(update):
                fresh.append(update)
        for update in fresh:
            self.delivered[update["update_id"]] = update
        return repeated + fresh

    def is_wanted(self, update: Json) -> bool:
        return not self.allowed_updates or any(kind in update for kind in self.allowed_updates)

    def store_file(self, *, content: bytes, name: str, mime_type: str, size: int | None = None) -> StoredFile:
        number = next(self.file_numbers)
        stored = StoredFile(f"BQACAgIAAx{number:06d}", content, name, mime_type, size if size is not None else len(content))
        self.files[stored.file_id] = stored
        return stored

    def add_message(self, chat: Chat, *, from_bot: bool, sender: Json, content: Json, replies_to: int | None) -> Message:
        """Put a message into `chat`; `content` holds text, caption, media and entities of its Bot API form."""
        message_id = next(self.message_ids)
        body: Json = {"message_id": message_id, "from": sender, "chat": chat.body, "date": int(time.time()), **content}
        if replies_to is not None and replies_to in chat.messages:
            original = chat.messages[replies_to].body
            body["reply_to_message"] = {key: value for key, value in original.items() if key != "reply_to_message"}
        message = Message(message_id, chat.chat_id, from_bot, body)
        chat.messages[message_id] = message
        return message

    def check_flood(self, chat: Chat) -> None:
        """Raise 429 when more than `flood_limit` sends and edits reach one chat within `flood_seconds`."""
        if not self.flood_limit:
            return
        now = time.monotonic()
        if now < chat.flooded_until:
            self.flood_ignored += 1
            self.refuse_flood(chat, now)
        while chat.recent and now - chat.recent[0] > self.flood_seconds:
            chat.recent.popleft()
        if len(chat.recent) >= self.flood_limit:
            self.refuse_flood(chat, now)
        chat.recent.append(now)

    def refuse_flood(self, chat: Chat, now: float) -> None:
        chat.flooded_until = max(chat.flooded_until, now + self.flood_retry_after)
        self.flood_refused += 1
        seconds = self.flood_retry_after
        raise ApiError(429, f"Too Many Requests: retry after {seconds}", retry_after=seconds)

    def take_fault(self, method: str, chat_id: int | None) -> Fault | None:
        for fault in self.faults:
            if fault.method not in (method, "*") or (fault.chat_id is not None and fault.chat_id != chat_id):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            if fault.times > 0:
                fault.times -= 1
                if fault.times == 0:
                    self.faults.remove(fault)
            return fault
        return None

    def visible(self, chat_id: int | None = None, *, from_bot: bool = True) -> list[Json]:
        """Messages a person sees now, oldest first."""
        return [
            message.described()
            for chat in self.chats.values()
            if chat_id is None or chat.chat_id == chat_id
            for message in chat.messages.values()
            if not message.deleted and message.from_bot == from_bot
        ]

    def stats(self) -> Json:
        return {
            "concurrent_polls_max": self.polls_most_at_once,
            "polls_running": self.polls_running,
            "polls_terminated": self.polls_terminated,
            "polls": self.poll_number,
            "accepted": dict(self.accepted),
            "attempted": dict(self.attempted),
            "answers": dict(self.answers),
            "pending_updates": len(self.pending),
            "confirmed_below": self.confirmed_below,
            "flood_refused": self.flood_refused,
            "flood_ignored": self.flood_ignored,
            "webhook_deliveries": self.webhook_deliveries,
            "webhook_url": self.webhook.url if self.webhook else "",
            "commands": self.commands,
        }


def command_entities(text: str) -> list[Entity]:
    """The `bot_command` entities Telegram finds in what a person wrote."""
    return [
        {"type": "bot_command", "offset": utf16_length(text[: found.start()]), "length": utf16_length(found.group())}
        for found in COMMAND.finditer(text)
    ]
