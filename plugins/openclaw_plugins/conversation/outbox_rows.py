"""Rows of the outbox: what is to be sent, how far it came, and the statements that write it, each inside a write."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import orjson

from openclaw_kernel.api import Attachment, OutboundMessage, Target
from openclaw_plugins.conversation import attempts, ledger, writable

SentState: TypeAlias = Literal["sent", "unknown_after_send", "failed", "dead_lettered"]
IN_DOUBT: Final = "⚠️ My last answer may not have reached you: it broke off while it was being sent. If you do not see it, ask again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A message to put into the outbox."""

    target: Target
    text: str
    attachments: tuple[Attachment, ...] = ()
    run_id: str | None = None
    reply_to_id: str | None = None
    inbound_id: int | None = None
    silent: bool = False


@dataclass(slots=True, kw_only=True)
class Outgoing:
    """One row on its way. `message` is None where it was too much to hold in memory and is read when its turn comes."""

    id: int
    outbox_id: str
    target: Target
    since_ms: int
    """When it was written, or asked for again: from then on it may wait until it expires."""
    message: OutboundMessage | None = None
    run_id: str | None = None
    attempts: int = 0
    excused: int = 0
    """How many of the attempts do not count: the platform asked for a pause, or a person for a new beginning."""
    next_attempt_ms: int = 0
    in_doubt: bool = False
    """True where an earlier process was sending it when it ended: it may have arrived."""
    ended: asyncio.Future[Delivered] | None = None
    """Becomes how it ended; there once it is dispatched."""
    on_attempt: Callable[[], None] | None = None
    """Called once, after the first attempt, however it went, or at the end where there was none."""
    inbound_id: int | None = None
    is_doubt: bool = False
    """True where it says no more than that an answer may not have arrived."""

    @property
    def is_answer(self) -> bool:
        """Tell whether somebody waits for it: the answer of a turn to a message from a channel."""
        return self.run_id is not None and self.inbound_id is not None

    @property
    def counted(self) -> int:
        """Return how many attempts count against the limit."""
        return self.attempts - self.excused

    def attempted(self) -> None:
        """Call `on_attempt`, once."""
        called, self.on_attempt = self.on_attempt, None
        if called is not None:
            called()


@dataclass(frozen=True, slots=True)
class Delivered:
    """The end of a row."""

    outbox_id: str
    state: SentState
    message_ids: tuple[str, ...] = ()
    error: str | None = None


def insert(connection: sqlite3.Connection, draft: Draft, now_ms: int) -> Outgoing:
    """Write a message inside a write; hand the result to `Outbox.dispatch` once it is on disk."""
    outbox_id = uuid.uuid4().hex
    target, text = draft.target, writable.text(draft.text)
    cursor = connection.execute(
        "INSERT INTO conversation_outbox (outbox_id, channel, account_id, peer_kind, peer_id, thread_id, text, reply_to_id,"
        " run_id, inbound_id, silent, attachments, state, next_attempt_ms, created_ms, updated_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'prepared', ?, ?, ?)",
        (
            outbox_id,
            target.channel,
            target.account_id,
            target.peer_kind,
            target.peer_id,
            target.thread_id,
            text,
            draft.reply_to_id,
            draft.run_id,
            draft.inbound_id,
            int(draft.silent),
            len(draft.attachments),
            now_ms,
            now_ms,
            now_ms,
        ),
    )
    row_id = int(cursor.lastrowid or 0)
    ledger.keep_attachments(connection, "outbox", row_id, draft.attachments)
    message = OutboundMessage(
        target=target,
        outbox_id=outbox_id,
        text=text,
        attachments=draft.attachments,
        reply_to_id=draft.reply_to_id,
        run_id=draft.run_id,
        silent=draft.silent,
    )
    return Outgoing(
        id=row_id,
        outbox_id=outbox_id,
        target=target,
        since_ms=now_ms,
        message=message,
        run_id=draft.run_id,
        inbound_id=draft.inbound_id,
        is_doubt=text == IN_DOUBT,
    )


@dataclass(frozen=True, slots=True)
class KnownRequest:
    """What the outbox answers to a repeated `send`."""

    outbox_id: str
    channel: str
    peer_id: str
    state: str
    receipt: tuple[str, ...]
    error: str | None
    request_hash: str | None


def find_request(connection: sqlite3.Connection, outbox_id: str | None, *, before: str) -> KnownRequest | None:
    """Return the row that a `send` made; `before` is how a row names its request that is older than the kernel's table of keys."""
    where, value = ("request_key", before) if outbox_id is None else ("outbox_id", outbox_id)
    row = connection.execute(
        f"SELECT outbox_id, channel, peer_id, state, receipt, error, request_hash FROM conversation_outbox WHERE {where} = ?",  # noqa: S608 - columns and conditions are words of this file
        (value,),
    ).fetchone()
    if row is None:
        return None
    found_id, channel, peer_id, state, receipt, error, request_hash = row
    return KnownRequest(found_id, channel, peer_id, state, tuple(orjson.loads(receipt or "[]")), error, request_hash)


def mark_sending(connection: sqlite3.Connection, item: Outgoing, now_ms: int) -> None:
    """Write that a row is offered to its channel now."""
    connection.execute(
        "UPDATE conversation_outbox SET state = 'sending', attempts = ?, updated_ms = ? WHERE id = ?",
        (item.attempts, now_ms, item.id),
    )
    attempts.begin(connection, item.id, item.attempts, now_ms)


def mark_waiting(connection: sqlite3.Connection, item: Outgoing, outcome: attempts.Outcome, error: str, now_ms: int) -> None:
    """Write that a row waits for its next attempt, and why."""
    connection.execute(
        "UPDATE conversation_outbox SET state = 'prepared', next_attempt_ms = ?, excused = ?, error = ?, updated_ms = ? WHERE id = ?",
        (item.next_attempt_ms, item.excused, error, now_ms, item.id),
    )
    retry_after = item.next_attempt_ms - now_ms if outcome == "limited" else None
    attempts.end(connection, item.id, outcome, error, now_ms=now_ms, retry_after_ms=retry_after)


def mark_ended(connection: sqlite3.Connection, item: Outgoing, result: Delivered, outcome: attempts.Outcome, now_ms: int) -> None:
    """Write a row's end. What did not arrive keeps its files, for it may be asked for again."""
    connection.execute(
        "UPDATE conversation_outbox SET state = ?, receipt = ?, error = ?, updated_ms = ? WHERE id = ?",
        (result.state, orjson.dumps(result.message_ids).decode(), result.error, now_ms, item.id),
    )
    attempts.end(connection, item.id, outcome, result.error, now_ms=now_ms)
    if result.state == "sent":
        ledger.drop_attachments(connection, "outbox", item.id)


_COLUMNS: Final = (
    "id, outbox_id, channel, account_id, peer_kind, peer_id, thread_id, coalesce(retried_ms, created_ms), run_id, inbound_id,"
    f" attempts, excused, next_attempt_ms, state, text = '{IN_DOUBT}'"
)


def unfinished(connection: sqlite3.Connection) -> list[Outgoing]:
    """Return what an earlier process left, in the order in which it is to be sent."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM conversation_outbox WHERE state IN ('prepared', 'sending')"  # noqa: S608 - columns and conditions are words of this file
        " ORDER BY coalesce(place, id), coalesce(retried_ms, 0), id"
    )
    return [_outgoing(row) for row in rows]


def revive(connection: sqlite3.Connection, row_id: int, now_ms: int) -> Outgoing:
    """Give a row that has ended a new beginning behind all that is written now; return it, to be dispatched."""
    connection.execute(
        "UPDATE conversation_outbox SET state = 'prepared', excused = attempts, next_attempt_ms = ?, retried_ms = ?, updated_ms = ?,"
        " place = (SELECT max(id) FROM conversation_outbox) WHERE id = ?",
        (now_ms, now_ms, now_ms, row_id),
    )
    row = connection.execute(f"SELECT {_COLUMNS} FROM conversation_outbox WHERE id = ?", (row_id,)).fetchone()  # noqa: S608 - columns and conditions are words of this file
    return _outgoing(row)


def _outgoing(row: tuple[Any, ...]) -> Outgoing:
    row_id, outbox_id, channel, account, kind, peer, thread, since, run_id, inbound_id, count, excused, due, state, is_doubt = row
    return Outgoing(
        id=row_id,
        outbox_id=outbox_id,
        target=Target(channel=channel, account_id=account, peer_kind=kind, peer_id=peer, thread_id=thread),
        since_ms=since,
        run_id=run_id,
        inbound_id=inbound_id,
        attempts=count,
        excused=excused,
        next_attempt_ms=due,
        in_doubt=state == "sending",
        is_doubt=bool(is_doubt),
    )


def read_message(connection: sqlite3.Connection, item: Outgoing) -> OutboundMessage:
    """Return the message of a row that was not held in memory."""
    text, reply_to_id, run_id, silent, attachments = connection.execute(
        "SELECT text, reply_to_id, run_id, silent, attachments FROM conversation_outbox WHERE id = ?", (item.id,)
    ).fetchone()
    return OutboundMessage(
        target=item.target,
        outbox_id=item.outbox_id,
        text=text,
        attachments=ledger.read_attachments(connection, "outbox", item.id) if attachments else (),
        reply_to_id=reply_to_id,
        run_id=run_id,
        silent=bool(silent),
    )
