"""The transcript: append-only rows a session id, read by pages; what a model gets is a projection of them."""

from __future__ import annotations

import logging
import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from openclaw_kernel.api import Message, Store, Text, ToolResultMessage, UserMessage, message_from_json
from openclaw_plugins.conversation import writable

logger: Final = logging.getLogger(__name__)

INTERRUPTED: Final = "interrupted before it ended"

HISTORY_MESSAGES: Final = 1000
HISTORY_BYTES: Final = 4 << 20
PICTURE_BYTES: Final = 12 << 20
LONGEST_NUMBER: Final = 15
CACHE_SESSIONS: Final = 64
CACHE_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored message."""

    session_id: str
    seq: int
    message: Message
    body: bytes

    @property
    def id(self) -> str:
        return entry_id(self.session_id, self.seq)

    def to_wire(self) -> dict[str, Any]:
        """Return the message as clients see it, with its place in the transcript."""
        return {**self.message.to_json(), "__openclaw": {"id": self.id, "seq": self.seq}}


@dataclass(frozen=True, slots=True)
class Stored:
    """One row of a page: its number and its JSON."""

    seq: int
    body: str


def entry_id(session_id: str, seq: int) -> str:
    """Return the public id of a message."""
    return f"{session_id}-{seq}"


def seq_of(session_id: str, message_id: str) -> int | None:
    """Return the number in a public id, None where it is not one of this session id."""
    prefix, _, number = message_id.rpartition("-")
    return number_of(number) if prefix == session_id else None


def number_of(text: str) -> int | None:
    """Return the number of a message in an id or cursor, None where it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER else None


def append(connection: sqlite3.Connection, session_id: str, messages: Sequence[Message], *, run_id: str | None, now_ms: int) -> list[Entry]:
    """Append messages inside a write and return them with their numbers."""
    seq = last_seq(connection, session_id)
    entries = []
    for message in messages:
        seq += 1
        body, stored = _body(message)
        entries.append(Entry(session_id, seq, stored, body))
    connection.executemany(
        "INSERT INTO conversation_messages (session_id, seq, role, run_id, created_ms, size, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(session_id, entry.seq, entry.message.role, run_id, now_ms, len(entry.body), entry.body.decode()) for entry in entries],
    )
    return entries


def _body(message: Message) -> tuple[bytes, Message]:
    try:
        return orjson.dumps(message.to_json()), message
    except TypeError:
        body = writable.encoded(message.to_json())
        return body, message_from_json(orjson.loads(body))


def last_seq(connection: sqlite3.Connection, session_id: str) -> int:
    """Return the number of the newest message, 0 where there is none."""
    row = connection.execute("SELECT max(seq) FROM conversation_messages WHERE session_id = ?", (session_id,)).fetchone()
    return int(row[0] or 0)


def read_before(connection: sqlite3.Connection, session_id: str, before_seq: int | None, *, limit: int, max_bytes: int) -> list[Stored]:
    """Return the newest rows before a number, oldest first, as many as fit; at least one where there is one."""
    cursor = connection.execute(
        "SELECT seq, size, body FROM conversation_messages WHERE session_id = ? AND seq < ? ORDER BY seq DESC LIMIT ?",
        (session_id, before_seq if before_seq is not None else (1 << 62), limit),
    )
    rows: list[Stored] = []
    total = 0
    for seq, size, body in cursor:
        total += size
        if rows and total > max_bytes:
            break
        rows.append(Stored(seq, body))
    cursor.close()
    rows.reverse()
    return rows


def read_for_turn(
    connection: sqlite3.Connection, session_id: str, *, limit: int, max_bytes: int, picture_bytes: int
) -> tuple[list[tuple[int, Message]], int]:
    """Return the newest messages with their numbers, oldest first, as many as fit, and their size.

    Pictures have room of their own, for a single one may be larger than all the words; older ones beyond it are named only.
    A row that cannot be read is left out: it must not silence its session for good.
    """
    cursor = connection.execute(
        "SELECT seq, body FROM conversation_messages WHERE session_id = ? ORDER BY seq DESC LIMIT ?", (session_id, limit)
    )
    rows: list[tuple[int, Message]] = []
    total = words = 0
    for seq, body in cursor:
        try:
            wire = orjson.loads(body)
            pictures = sum(len(part["data"]) for part in wire["content"] if part["type"] == "image")
            if pictures > picture_bytes:
                wire["content"] = [_named_only(part) for part in wire["content"]]
            message = message_from_json(wire)
        except (ValueError, KeyError, TypeError):
            logger.exception("message %d of transcript %s cannot be read and is left out", seq, session_id)
            continue
        words += len(body) - pictures
        if rows and words > max_bytes:
            break
        kept = pictures if pictures <= picture_bytes else 0
        picture_bytes -= kept
        total += len(body) - pictures + kept
        rows.append((seq, message))
    cursor.close()
    rows.reverse()
    return rows, total


def _named_only(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] != "image":
        return part
    return {"type": "file", "mimeType": part["mimeType"], "fileName": part.get("fileName") or "a picture"}


def read_turn(connection: sqlite3.Connection, session_id: str, run_id: str) -> tuple[int, list[Message]]:
    """Return the messages of a run from its newest user message on, and the number of that; 0 and none where there is none.

    Raise `ValueError`, `KeyError` or `TypeError` where one cannot be read: a turn must not go on from half of what was done.
    """
    row = connection.execute(
        "SELECT seq FROM conversation_messages WHERE session_id = ? AND run_id = ? AND role = 'user' ORDER BY seq DESC LIMIT 1",
        (session_id, run_id),
    ).fetchone()
    if row is None:
        return 0, []
    (first,) = row
    rows = connection.execute(
        "SELECT body FROM conversation_messages WHERE session_id = ? AND seq >= ? AND run_id = ? ORDER BY seq",
        (session_id, first, run_id),
    )
    return first, [message_from_json(orjson.loads(body)) for (body,) in rows]


def read_after(connection: sqlite3.Connection, session_id: str, after_seq: int, *, limit: int, max_bytes: int) -> list[Stored] | None:
    """Return all rows after a number, None where they do not fit."""
    rows = read_before(connection, session_id, None, limit=limit + 1, max_bytes=max_bytes)
    newer = [row for row in rows if row.seq > after_seq]
    if len(newer) > limit or (newer and newer[0].seq != after_seq + 1):
        return None
    return newer


def projected(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Return what a model may be given: beginning with a user message, every tool call followed by its one result.

    A call whose result was never written is closed as interrupted; a result without its call and an empty answer are left out.
    """
    kept: list[Message] = []
    # Where the result of a call belongs. Models use an id again in a later turn: the newest call is the one that is meant.
    places: dict[str, int] = {}
    for message in messages:
        if isinstance(message, UserMessage):
            kept.append(message)
        elif isinstance(message, ToolResultMessage):
            place = places.pop(message.call_id, None)
            if place is not None:
                kept[place] = message
        elif kept and (message.text or message.tool_calls):
            kept.append(message)
            for call in message.tool_calls:
                places[call.id] = len(kept)
                kept.append(interrupted_result(call.id, call.name, message.timestamp_ms))
    return tuple(kept)


def interrupted_result(call_id: str, name: str, timestamp_ms: int) -> ToolResultMessage:
    """Return the result that closes a call which was cut off."""
    return ToolResultMessage(call_id=call_id, name=name, text=INTERRUPTED, is_error=True, timestamp_ms=timestamp_ms)


def text_of(message: Message) -> str:
    """Return the visible text of a message."""
    if isinstance(message, ToolResultMessage):
        return message.text
    return "".join(part.text for part in message.content if isinstance(part, Text))


def text_of_body(body: dict[str, Any]) -> str:
    """Return the visible text of a stored message."""
    return "".join(part.get("text", "") for part in body["content"] if part["type"] == "text")


@dataclass(slots=True)
class _Cached:
    entries: list[tuple[int, Message]]
    size: int


class Transcript:
    """Reads histories for turns and keeps the recent ones in memory, bounded in number and bytes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cache: OrderedDict[str, _Cached] = OrderedDict()
        self._size = 0
        self._reading: dict[str, int] = {}
        self._torn: set[str] = set()

    async def history(self, session_id: str, before_seq: int) -> tuple[Message, ...]:
        """Return what a model may be given of the messages before a number, the newest that fit the ceiling."""
        cached = self._cache.get(session_id)
        if cached is None:
            cached = await self._load(session_id)
        else:
            self._cache.move_to_end(session_id)
        return projected(message for seq, message in cached.entries if seq < before_seq)

    def committed(self, entries: Sequence[Entry]) -> None:
        """Take note of messages that were just written."""
        if not entries:
            return
        session_id = entries[0].session_id
        if session_id in self._reading:
            self._torn.add(session_id)
        cached = self._cache.get(session_id)
        if cached is None:
            if entries[0].seq == 1:
                self._keep(session_id, _Cached([], 0))
                self.committed(entries)
            return
        expected = cached.entries[-1][0] + 1 if cached.entries else 1
        if entries[0].seq != expected:
            self.forget(session_id)
            return
        added = sum(len(entry.body) for entry in entries)
        cached.entries.extend((entry.seq, entry.message) for entry in entries)
        cached.size += added
        self._size += added
        if cached.size > HISTORY_BYTES or len(cached.entries) > HISTORY_MESSAGES:
            self.forget(session_id)
        self._shrink()

    def forget(self, session_id: str) -> None:
        """Drop a session from memory."""
        cached = self._cache.pop(session_id, None)
        if cached is not None:
            self._size -= cached.size

    async def _load(self, session_id: str) -> _Cached:
        self._reading[session_id] = self._reading.get(session_id, 0) + 1
        try:
            entries, size = await self._store.read(
                lambda connection: read_for_turn(
                    connection, session_id, limit=HISTORY_MESSAGES // 2, max_bytes=HISTORY_BYTES // 2, picture_bytes=PICTURE_BYTES
                )
            )
        finally:
            self._reading[session_id] -= 1
            if not self._reading[session_id]:
                del self._reading[session_id]
        loaded = _Cached(entries, size)
        if session_id in self._torn:
            # Something was written while this was read; the next turn reads again.
            if session_id not in self._reading:
                self._torn.discard(session_id)
        else:
            self._keep(session_id, loaded)
        return loaded

    def _keep(self, session_id: str, cached: _Cached) -> None:
        self.forget(session_id)
        self._cache[session_id] = cached
        self._size += cached.size
        self._shrink()

    def _shrink(self) -> None:
        while self._cache and (len(self._cache) > CACHE_SESSIONS or self._size > CACHE_BYTES):
            _, dropped = self._cache.popitem(last=False)
            self._size -= dropped.size
