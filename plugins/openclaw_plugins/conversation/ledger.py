"""The ledger of incoming messages: each is written once and ends in exactly one terminal state."""

from __future__ import annotations

import logging
import sqlite3
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import orjson

from openclaw_kernel.api import Admission, Attachment, File, Image, InboundMessage, Target, UserPart
from openclaw_plugins.conversation import writable
from openclaw_plugins.conversation.runs import Run, RunOptions

OpenState: TypeAlias = Literal["accepted", "routed", "queued", "running"]
EndState: TypeAlias = Literal["answered", "suppressed", "dead_lettered", "superseded"]

logger: Final = logging.getLogger(__name__)

WEBCHAT: Final = "webchat"
DEFAULT_ACCOUNT: Final = "default"
LEFT_BEHIND: Final = "left behind"
CLIENT_ADMITTED: Final = "a client of the gateway, by its scope"
HINTS_AN_HOUR: Final = 60
HOUR_MS: Final = 3_600_000
SWEPT_KEPT: Final = 100_000
TEXT_FILE_BYTES: Final = 256 << 10
IMAGE_BYTES: Final = 6 << 20
_PICTURES: Final = ((b"\x89PNG", "image/png"), (b"\xff\xd8", "image/jpeg"), (b"GIF8", "image/gif"))
_TEXT_TYPES: Final = ("text/", "application/json", "application/xml", "application/yaml", "application/x-yaml")


@dataclass(slots=True, kw_only=True)
class Inbound:
    """One message of the ledger. `message` is without its attachments, which stay in their own table."""

    id: int
    channel: str
    account_id: str
    message_id: str
    received_ms: int
    state: OpenState
    message: InboundMessage
    options: RunOptions = field(default_factory=RunOptions)
    agent_id: str | None = None
    session_key: str | None = None
    run_id: str | None = None
    request_hash: str | None = None
    admission: Admission | None = None
    """Why it may start a turn; None where that is written already, or not decided."""

    @property
    def from_client(self) -> bool:
        """Tell whether a WebSocket client sent it, who named the session and was admitted by its scope."""
        return self.request_hash is not None


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger answers to a repeat."""

    id: int
    state: str
    run_id: str | None
    request_hash: str | None
    reply: dict[str, Any]
    """What the client was answered first; empty but for rows from before the kernel kept the answers."""


def append(connection: sqlite3.Connection, entry: Inbound, now_ms: int) -> int | None:
    """Write a message and its attachments; return the row's id, None for a repeat."""
    cursor = connection.execute(
        "INSERT INTO conversation_inbound (channel, account_id, message_id, received_ms, accepted_ms, updated_ms, queued_ms, state,"
        " agent_id, session_key, run_id, body, request_hash, admission, admission_reason)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            entry.channel,
            entry.account_id,
            entry.message_id,
            entry.received_ms,
            now_ms,
            now_ms,
            now_ms if entry.state == "queued" else None,
            entry.state,
            entry.agent_id,
            entry.session_key,
            entry.run_id,
            encode(entry.message, entry.options),
            entry.request_hash,
            *(("allow", CLIENT_ADMITTED) if entry.from_client else (None, None)),
        ),
    )
    if cursor.rowcount == 0:
        return None
    inbound_id = int(cursor.lastrowid or 0)
    keep_attachments(connection, "inbound", inbound_id, entry.message.attachments)
    return inbound_id


def find(connection: sqlite3.Connection, channel: str, account_id: str, message_id: str) -> Known | None:
    """Look a message up by its key."""
    row = connection.execute(
        "SELECT id, state, run_id, request_hash, reply FROM conversation_inbound WHERE channel = ? AND account_id = ? AND message_id = ?",
        (channel, account_id, message_id),
    ).fetchone()
    if row is None:
        return None
    inbound_id, state, run_id, request_hash, reply = row
    return Known(inbound_id, state, run_id, request_hash, orjson.loads(reply or "{}"))


def advance(
    connection: sqlite3.Connection,
    inbound_id: int,
    state: OpenState,
    *,
    now_ms: int,
    agent_id: str,
    session_key: str,
    run_id: str | None,
    route_reason: str | None = None,
    admission: Admission | None = None,
) -> None:
    """Write the next step of a message's way; one that has ended stays as it is.

    One whose turn has begun does not go back, however late an earlier step is written: the next process would begin it anew.
    """
    verdict, admission_reason = (None, None) if admission is None else (admission.verdict.value, admission.reason)
    connection.execute(
        "UPDATE conversation_inbound SET state = ?, updated_ms = ?, agent_id = ?, session_key = ?, run_id = ?,"
        " route_reason = coalesce(?, route_reason), attempts = attempts + ?, admission = coalesce(?, admission),"
        " admission_reason = coalesce(?, admission_reason), queued_ms = coalesce(queued_ms, ?), begun_ms = coalesce(begun_ms, ?)"
        " WHERE id = ? AND state IN ('accepted', 'routed', 'queued', 'running') AND (state <> 'running' OR ? = 'running')",
        (
            state,
            now_ms,
            agent_id,
            session_key,
            run_id,
            route_reason,
            int(state == "running"),
            verdict,
            admission_reason,
            now_ms if state == "queued" else None,
            now_ms if state == "running" else None,
            inbound_id,
            state,
        ),
    )


def leave(connection: sqlite3.Connection, inbound_id: int) -> None:
    """Write that a turn was left in order, for the next process: it did not end this one, so its attempt does not count."""
    connection.execute("UPDATE conversation_inbound SET attempts = max(0, attempts - 1) WHERE id = ? AND state = 'running'", (inbound_id,))


def end(connection: sqlite3.Connection, inbound_id: int, state: EndState, reason: str | None, now_ms: int) -> bool:
    """Write a message's terminal state; return False where it has one already.

    One that was stopped because a newer one took its place ends as superseded by that. What is dead-lettered keeps its files.
    """
    changed = connection.execute(
        "UPDATE conversation_inbound SET updated_ms = ?, ended_ms = ?,"
        " state = CASE WHEN superseded_by IS NOT NULL AND ? = 'suppressed' THEN 'superseded' ELSE ? END,"
        " reason = CASE WHEN superseded_by IS NOT NULL AND ? = 'suppressed' THEN 'by ' || superseded_by ELSE ? END"
        " WHERE id = ? AND state IN ('accepted', 'routed', 'queued', 'running')",
        (now_ms, now_ms, state, state, state, reason, inbound_id),
    ).rowcount
    if changed and state != "dead_lettered":
        drop_attachments(connection, "inbound", inbound_id)
    return changed > 0


def reopen(connection: sqlite3.Connection, inbound_id: int, run_id: str, now_ms: int) -> None:
    """Give a dead-lettered message a new beginning, under a new run id, where it was routed to."""
    connection.execute(
        "UPDATE conversation_inbound SET state = 'accepted', reason = NULL, run_id = ?, queued_ms = NULL, begun_ms = NULL,"
        " ended_ms = NULL, superseded_by = NULL, stop_ms = NULL, attempts = 0, updated_ms = ? WHERE id = ? AND state = 'dead_lettered'",
        (run_id, now_ms, inbound_id),
    )


def ask_to_stop(connection: sqlite3.Connection, runs: Sequence[Run], now_ms: int) -> None:
    """Write that somebody asked for the end of open messages; no later start takes them up."""
    for run in runs:
        note_decision(connection, run)
    connection.executemany(
        "UPDATE conversation_inbound SET stop_ms = coalesce(stop_ms, ?)"
        " WHERE id = ? AND state IN ('accepted', 'routed', 'queued', 'running')",
        [(now_ms, run.inbound_id) for run in runs],
    )


def note_decision(connection: sqlite3.Connection, run: Run) -> None:
    """Write where an open message goes and why, for one that ends before its turn begins."""
    if not run.session_key:
        return
    verdict, reason = (None, None) if run.admission is None else (run.admission.verdict.value, run.admission.reason)
    connection.execute(
        "UPDATE conversation_inbound SET agent_id = ?, session_key = ?, run_id = ?, route_reason = coalesce(route_reason, ?),"
        " admission = coalesce(admission, ?), admission_reason = coalesce(admission_reason, ?)"
        " WHERE id = ? AND state IN ('accepted', 'routed', 'queued', 'running')",
        (run.agent_id, run.session_key, run.run_id, run.route_reason, verdict, reason, run.inbound_id),
    )


def supersede(connection: sqlite3.Connection, inbound_id: int, by: str, now_ms: int) -> bool:
    """Write that a run takes the place of an open message, which is stopped by that also after a crash."""
    return (
        connection.execute(
            "UPDATE conversation_inbound SET superseded_by = ?, stop_ms = coalesce(stop_ms, ?)"
            " WHERE id = ? AND state IN ('accepted', 'routed', 'queued', 'running')",
            (by, now_ms, inbound_id),
        ).rowcount
        > 0
    )


_COLUMNS: Final = "id, channel, account_id, message_id, received_ms, state, agent_id, session_key, run_id, request_hash, body"


def unfinished(connection: sqlite3.Connection) -> tuple[list[Inbound], list[int]]:
    """Return what an earlier process left, oldest first, and the ids of rows that cannot be read."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM conversation_inbound"  # noqa: S608 - the columns above
        " WHERE state IN ('accepted', 'routed', 'queued', 'running') ORDER BY id"
    )
    found, unreadable = [], []
    for row in rows:
        try:
            found.append(_inbound(row))
        except (ValueError, KeyError, TypeError):
            logger.exception("message %s of %s cannot be read back", row[3], row[1])
            unreadable.append(row[0])
    return found, unreadable


def read(connection: sqlite3.Connection, inbound_id: int) -> Inbound | None:
    """Return one message, None where it is not there; raise `ValueError`, `KeyError` or `TypeError` where it cannot be read."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM conversation_inbound WHERE id = ?", (inbound_id,)).fetchone()  # noqa: S608 - the columns above
    return None if row is None else _inbound(row)


def _inbound(row: tuple[Any, ...]) -> Inbound:
    row_id, channel, account_id, message_id, received_ms, state, agent_id, key, run_id, request_hash, body = row
    message, options = decode(body, channel, account_id, message_id)
    return Inbound(
        id=row_id,
        channel=channel,
        account_id=account_id,
        message_id=message_id,
        received_ms=received_ms,
        state=state,
        message=message,
        options=options,
        agent_id=agent_id,
        session_key=key,
        run_id=run_id,
        request_hash=request_hash,
    )


def remember_hint(connection: sqlite3.Connection, target: Target, sender_id: str, now_ms: int) -> bool:
    """Note that a sender gets the hint; return False where it was noted before, or where too many strangers write.

    Those over the hourly limit are not noted: when they write again later, they get it.
    """
    place = (target.channel, target.account_id)
    (lately,) = connection.execute(
        "SELECT count(*) FROM (SELECT 1 FROM conversation_hints WHERE channel = ? AND account_id = ? AND hinted_ms > ? LIMIT ?)",
        (*place, now_ms - HOUR_MS, HINTS_AN_HOUR),
    ).fetchone()
    if lately >= HINTS_AN_HOUR:
        return False
    return (
        connection.execute(
            "INSERT INTO conversation_hints (channel, account_id, sender_id, hinted_ms) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (*place, sender_id, now_ms),
        ).rowcount
        > 0
    )


def forget_old(connection: sqlite3.Connection, before_ms: int, limit: int) -> bool:
    """Look at the `limit` oldest messages and deliveries and delete those finished before a time; return whether there may be more.

    Of each its ids and its end are kept for a while longer, so that whoever asks for it is told.
    """
    messages = connection.execute(
        "DELETE FROM conversation_inbound WHERE updated_ms < ? AND state NOT IN ('accepted', 'routed', 'queued', 'running')"
        " AND id IN (SELECT id FROM conversation_inbound ORDER BY id LIMIT ?)"
        " RETURNING id, channel, message_id, run_id, state, updated_ms",
        (before_ms, limit),
    ).fetchall()
    deliveries = connection.execute(
        "DELETE FROM conversation_outbox WHERE updated_ms < ? AND state NOT IN ('prepared', 'sending')"
        " AND id IN (SELECT id FROM conversation_outbox ORDER BY id LIMIT ?)"
        " RETURNING id, channel, outbox_id, run_id, state, updated_ms",
        (before_ms, limit),
    ).fetchall()
    # The number of a message may be given again: a delivery that outlives it must not pass for that of another one.
    connection.executemany("UPDATE conversation_outbox SET inbound_id = NULL WHERE inbound_id = ?", [(row[0],) for row in messages])
    _swept(connection, "inbound", messages)
    _swept(connection, "outbox", deliveries)
    connection.executemany("DELETE FROM conversation_attempts WHERE outbox = ?", [(row[0],) for row in deliveries])
    return max(len(messages), len(deliveries)) >= limit


def _swept(connection: sqlite3.Connection, owner: Literal["inbound", "outbox"], rows: Sequence[tuple[Any, ...]]) -> None:
    if not rows:
        return
    ids = [(owner, row[0]) for row in rows]
    connection.executemany("DELETE FROM conversation_attachments WHERE owner = ? AND owner_id = ?", ids)
    connection.executemany("DELETE FROM conversation_interventions WHERE owner = ? AND owner_id = ?", ids)
    connection.executemany(
        "INSERT INTO conversation_swept (kind, channel, name, run_id, state, ended_ms) VALUES (?, ?, ?, ?, ?, ?)",
        [(owner, *row[1:]) for row in rows],
    )
    connection.execute("DELETE FROM conversation_swept WHERE id <= (SELECT max(id) FROM conversation_swept) - ?", (SWEPT_KEPT,))


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """An open message on which nothing was done for long. `entry` is None where it cannot be read back."""

    id: int
    channel: str
    message_id: str
    entry: Inbound | None
    run_row: int | None
    """Its turn that has no end."""


def left_behind(connection: sqlite3.Connection, before_ms: int, after: int, limit: int) -> list[LeftBehind]:
    """Return open messages on which nothing was done since a time, oldest first, a page after an id."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM conversation_inbound"  # noqa: S608 - the columns above
        " WHERE state IN ('accepted', 'routed', 'queued', 'running') AND updated_ms < ? AND id > ? ORDER BY id LIMIT ?",
        (before_ms, after, limit),
    )
    found: list[LeftBehind] = []
    for row in rows:
        entry = None
        try:
            entry = _inbound(row)
        except (ValueError, KeyError, TypeError):
            logger.exception("message %s of %s cannot be read back", row[3], row[1])
        run = connection.execute(
            "SELECT id FROM conversation_runs WHERE inbound_id = ? AND ended_ms IS NULL ORDER BY id DESC LIMIT 1", (row[0],)
        ).fetchone()
        found.append(LeftBehind(row[0], row[1], row[3], entry, None if run is None else run[0]))
    return found


# --- attachments ------------------------------------------------------------------------------------------------------


def keep_attachments(
    connection: sqlite3.Connection, owner: Literal["inbound", "outbox"], owner_id: int, attachments: Sequence[Attachment]
) -> None:
    """Write the files of a message."""
    connection.executemany(
        "INSERT INTO conversation_attachments VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(owner, owner_id, position, item.kind, item.mime_type, item.file_name, item.content) for position, item in enumerate(attachments)],
    )


def read_attachments(connection: sqlite3.Connection, owner: Literal["inbound", "outbox"], owner_id: int) -> tuple[Attachment, ...]:
    """Return the files of a message in order."""
    rows = connection.execute(
        "SELECT kind, mime_type, file_name, content FROM conversation_attachments WHERE owner = ? AND owner_id = ? ORDER BY position",
        (owner, owner_id),
    )
    return tuple(Attachment(kind=kind, mime_type=mime, file_name=name, content=content) for kind, mime, name, content in rows)


def drop_attachments(connection: sqlite3.Connection, owner: Literal["inbound", "outbox"], owner_id: int) -> None:
    """Delete the files of a message that needs them no more."""
    connection.execute("DELETE FROM conversation_attachments WHERE owner = ? AND owner_id = ?", (owner, owner_id))


def picture_type(content: bytes) -> str | None:
    """Return the type of a picture that models can see, by its first bytes; None for anything else.

    What a sender says of a file is not believed: a provider refuses a picture that is none, and would refuse it again in
    every later turn of the conversation.
    """
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "image/webp"
    return next((mime for magic, mime in _PICTURES if content.startswith(magic)), None)


def parts_of(attachments: Sequence[Attachment]) -> tuple[UserPart, ...]:
    """Return files as parts of a user message: pictures whole, text files with their text, others by name."""
    return tuple(_part_of(item) for item in attachments)


def _part_of(item: Attachment) -> UserPart:
    picture = picture_type(item.content) if item.kind == "image" and len(item.content) <= IMAGE_BYTES else None
    if picture is not None:
        return Image(picture, b64encode(item.content).decode("ascii"), item.file_name)
    if item.mime_type.startswith(_TEXT_TYPES) and len(item.content) <= TEXT_FILE_BYTES:
        return File(item.mime_type, item.file_name, item.content.decode("utf-8", "replace"))
    return File(item.mime_type, item.file_name)


# --- JSON of a message ------------------------------------------------------------------------------------------------


def encode(message: InboundMessage, options: RunOptions) -> str:
    """Return the JSON of a message and its options, without what has columns and without attachments."""
    return writable.encoded(
        {
            "target": encode_target(message.target),
            "senderId": message.sender_id,
            "senderName": message.sender_name,
            "text": message.text,
            "replyToId": message.reply_to_id,
            "timestampMs": message.timestamp_ms,
            "mentioned": message.mentioned,
            "extra": message.extra,
            "options": {
                "model": options.model,
                "thinking": options.thinking,
                "timeoutSeconds": options.timeout_seconds,
                "extraSystemPrompt": options.extra_system_prompt,
                "channel": options.channel,
                "deliverTo": None if options.deliver_to is None else encode_target(options.deliver_to),
                "replyToId": options.reply_to_id,
            },
        }
    ).decode()


def decode(body: str, channel: str, account_id: str, message_id: str) -> tuple[InboundMessage, RunOptions]:
    """Read back what `encode` wrote."""
    wire = orjson.loads(body)
    message = InboundMessage(
        target=decode_target(wire["target"], channel, account_id),
        message_id=message_id,
        sender_id=wire["senderId"],
        sender_name=wire["senderName"],
        text=wire["text"],
        reply_to_id=wire["replyToId"],
        timestamp_ms=wire["timestampMs"],
        mentioned=wire["mentioned"],
        extra=wire["extra"],
    )
    chosen = wire["options"]
    place = chosen["deliverTo"]
    options = RunOptions(
        model=chosen["model"],
        thinking=chosen["thinking"],
        timeout_seconds=chosen["timeoutSeconds"],
        extra_system_prompt=chosen["extraSystemPrompt"],
        channel=chosen["channel"],
        deliver_to=None if place is None else decode_target(place, channel, account_id),
        reply_to_id=chosen["replyToId"],
    )
    return message, options


def encode_target(target: Target) -> dict[str, Any]:
    """Return the JSON of a place."""
    return {
        "channel": target.channel,
        "accountId": target.account_id,
        "peerKind": target.peer_kind,
        "peerId": target.peer_id,
        "threadId": target.thread_id,
    }


def decode_target(wire: dict[str, Any], channel: str, account_id: str) -> Target:
    """Read back what `encode_target` wrote."""
    return Target(
        channel=wire.get("channel", channel),
        account_id=wire.get("accountId", account_id),
        peer_kind=wire["peerKind"],
        peer_id=wire["peerId"],
        thread_id=wire["threadId"],
    )
