"""Rows of sessions: one SQL shape, a bounded cache, and the summary that health shows."""

from __future__ import annotations

import sqlite3
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any, Final

import orjson

from openclaw_kernel.api import SessionsSummary, Store, Target
from openclaw_plugins.conversation.keys import chat_type_of, kind_of

CACHE_ROWS: Final = 2048
RECENT: Final = 10
TITLE_CHARACTERS: Final = 60
PREVIEW_CHARACTERS: Final = 160

COLUMNS: Final = (
    "key, agent_id, session_id, kind, chat_type, created_ms, updated_ms, interaction_ms, label, display_name, title, preview,"
    " channel, account_id, peer_kind, peer_id, thread_id, archived, pinned, spawned_by, model, thinking_level, settings, status,"
    " last_run_id, last_run_error, run_model, input_tokens, output_tokens, total_tokens, cost_usd"
)
_SELECT: Final = (
    "SELECT key, agent_id, session_id, kind, chat_type, created_ms, updated_ms, interaction_ms, label, display_name, title,"
    " preview, channel, account_id, peer_kind, peer_id, thread_id, archived, pinned, spawned_by, model, thinking_level, settings,"
    " status, last_run_id, last_run_error, run_model, input_tokens, output_tokens, total_tokens, cost_usd"
    " FROM conversation_sessions WHERE key = ?"
)
_REPLACE: Final = (
    "INSERT OR REPLACE INTO conversation_sessions VALUES"
    " (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One session, in the order of the table's columns. Times are Unix milliseconds; `settings` is a JSON object."""

    key: str
    agent_id: str
    session_id: str
    kind: str
    chat_type: str
    created_ms: int
    updated_ms: int
    interaction_ms: int | None = None
    label: str | None = None
    display_name: str | None = None
    title: str | None = None
    preview: str | None = None
    channel: str | None = None
    account_id: str | None = None
    peer_kind: str | None = None
    peer_id: str | None = None
    thread_id: str | None = None
    archived: int = 0
    pinned: int = 0
    spawned_by: str | None = None
    model: str | None = None
    thinking_level: str | None = None
    settings: str = "{}"
    status: str | None = None
    last_run_id: str | None = None
    last_run_error: str | None = None
    run_model: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost_usd: float | None = None

    def extra(self) -> dict[str, Any]:
        """Return the settings that have no column."""
        found: dict[str, Any] = orjson.loads(self.settings)
        return found


def find(connection: sqlite3.Connection, key: str) -> SessionRow | None:
    """Return a session's row."""
    row = connection.execute(_SELECT, (key,)).fetchone()
    return None if row is None else SessionRow(*row)


def save(connection: sqlite3.Connection, row: SessionRow) -> SessionRow:
    """Write a row whole."""
    connection.execute(_REPLACE, astuple(row))
    return row


def find_or_create(connection: sqlite3.Connection, key: str, agent_id: str, now_ms: int) -> tuple[SessionRow, bool]:
    """Return a session's row and whether it is new; a new one gets a session id and is written."""
    row = find(connection, key)
    if row is not None:
        return row, False
    row = SessionRow(key, agent_id, new_session_id(), kind_of(key), chat_type_of(key), now_ms, now_ms)
    _open_transcript(connection, row, now_ms)
    return save(connection, row), True


def renew(connection: sqlite3.Connection, row: SessionRow, now_ms: int) -> SessionRow:
    """Give a session a new, empty transcript; the old one stays under its old id."""
    connection.execute("UPDATE conversation_transcripts SET ended_ms = ? WHERE session_id = ?", (now_ms, row.session_id))
    row = replace(
        row,
        session_id=new_session_id(),
        updated_ms=now_ms,
        title=None,
        preview=None,
        status=None,
        last_run_id=None,
        last_run_error=None,
        input_tokens=0,
        output_tokens=0,
        total_tokens=0,
    )
    _open_transcript(connection, row, now_ms)
    return save(connection, row)


def changed(row: SessionRow, **columns: Any) -> SessionRow:
    """Return the row with other values."""
    return replace(row, **columns)


def new_session_id() -> str:
    """Return a fresh id of a transcript."""
    return str(uuid.uuid4())


def _open_transcript(connection: sqlite3.Connection, row: SessionRow, now_ms: int) -> None:
    connection.execute(
        "INSERT INTO conversation_transcripts (session_id, session_key, agent_id, created_ms) VALUES (?, ?, ?, ?)",
        (row.session_id, row.key, row.agent_id, now_ms),
    )


def shorten(text: str, characters: int) -> str:
    """Return the text on one line, cut at a length."""
    line = " ".join(text[: characters * 4].split())
    return line if len(line) <= characters else line[: characters - 1].rstrip() + "…"


class SessionBook:
    """Keeps recent rows in memory; every write hands its row to `put` once it is on disk."""

    def __init__(self, store: Store, path: str) -> None:
        self._store = store
        self.path = path
        self.generation = 0
        """Rises whenever a list may have another number of sessions."""
        self._rows: OrderedDict[str, SessionRow] = OrderedDict()
        self._counts: dict[str, int] = {}
        self._recent: dict[str, dict[str, int]] = {}

    async def open(self) -> None:
        """Read what the summary needs."""
        self._counts, self._recent = await self._store.read(_read_summary)

    async def get(self, key: str) -> SessionRow | None:
        """Return a row from memory or disk."""
        row = self._rows.get(key)
        if row is not None:
            self._rows.move_to_end(key)
            return row
        row = await self._store.read(lambda connection: find(connection, key))
        if row is not None and key not in self._rows:
            self._remember(row)
        return self._rows.get(key, row)

    def cached(self, key: str) -> SessionRow | None:
        """Return a row that is in memory."""
        return self._rows.get(key)

    def put(self, row: SessionRow, *, created: bool = False) -> None:
        """Take note of a row that was just written."""
        before = self._rows.get(row.key)
        if created or before is None or _listed_as(before) != _listed_as(row):
            self.generation += 1
        self._remember(row)
        if created:
            self._counts[row.agent_id] = self._counts.get(row.agent_id, 0) + 1
        recent = self._recent.setdefault(row.agent_id, {})
        recent[row.key] = row.updated_ms
        while len(recent) > RECENT:
            del recent[min(recent, key=recent.__getitem__)]

    def remove(self, row: SessionRow) -> None:
        """Take note of a deleted session."""
        self.generation += 1
        self._rows.pop(row.key, None)
        self._recent.get(row.agent_id, {}).pop(row.key, None)
        self._counts[row.agent_id] = max(0, self._counts.get(row.agent_id, 0) - 1)

    def summary(self, agent_id: str | None, now_ms: int) -> SessionsSummary:
        """Return counts and the newest sessions without I/O."""
        recents: Mapping[str, int] = (
            self._recent.get(agent_id, {})
            if agent_id is not None
            else {key: updated for rows in self._recent.values() for key, updated in rows.items()}
        )
        newest = sorted(recents.items(), key=lambda item: item[1], reverse=True)[:RECENT]
        count = sum(self._counts.values()) if agent_id is None else self._counts.get(agent_id, 0)
        return SessionsSummary(
            path=self.path,
            count=count,
            recent=tuple({"key": key, "updatedAt": updated, "age": max(0, now_ms - updated)} for key, updated in newest),
        )

    def _remember(self, row: SessionRow) -> None:
        self._rows[row.key] = row
        self._rows.move_to_end(row.key)
        if len(self._rows) > CACHE_ROWS:
            self._rows.popitem(last=False)


def _listed_as(row: SessionRow) -> tuple[object, ...]:
    return (row.archived, row.label, row.settings, row.spawned_by, row.interaction_ms is None)


def _read_summary(connection: sqlite3.Connection) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    counts = dict(connection.execute("SELECT agent_id, count(*) FROM conversation_sessions GROUP BY agent_id").fetchall())
    recent = {
        agent_id: dict(
            connection.execute(
                "SELECT key, updated_ms FROM conversation_sessions WHERE agent_id = ? AND archived = 0 ORDER BY updated_ms DESC LIMIT ?",
                (agent_id, RECENT),
            ).fetchall()
        )
        for agent_id in counts
    }
    return counts, recent


def last_place(row: SessionRow | None) -> Target | None:
    """Return where a session's messages last came from, None for WebSocket clients alone."""
    if row is None or row.channel is None or row.peer_id is None:
        return None
    kinds: dict[str, Any] = {"direct": "direct", "group": "group", "channel": "channel"}
    return Target(
        channel=row.channel,
        account_id=row.account_id or "default",
        peer_kind=kinds[row.peer_kind or "direct"],
        peer_id=row.peer_id,
        thread_id=row.thread_id,
    )
