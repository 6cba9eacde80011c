"""`sessions.list` as SQL: pages by index, filters in the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from openclaw_plugins.conversation.sessions import COLUMNS, SessionBook, SessionRow
from openclaw_plugins.conversation.wire import SessionsListParams

DEFAULT_LIMIT: Final = 100
LARGEST_LIMIT: Final = 1000
LONGEST_SEARCH: Final = 512
KEPT_TOTALS: Final = 64
_SEARCHED: Final = ("key", "label", "display_name", "title", "session_id")


@dataclass(frozen=True, slots=True)
class Listing:
    """One page with the number of all that match."""

    rows: tuple[SessionRow, ...]
    total: int
    limit: int


class SessionLister:
    """Reads pages, newest first, and keeps how many sessions match until that can have changed."""

    def __init__(self, book: SessionBook) -> None:
        self._book = book
        self._totals: dict[tuple[str, tuple[Any, ...]], tuple[int, int]] = {}

    def read(self, connection: sqlite3.Connection, params: SessionsListParams, *, agents: Collection[str], now_ms: int) -> Listing:
        """Return a page. `agents` are the configured ones."""
        # Before the first look at the database: a total may then be too new for its generation, never too old.
        generation = self._book.generation
        where, values = _filters(params, agents, now_ms)
        limit = min(params.limit or DEFAULT_LIMIT, LARGEST_LIMIT)
        # Only text of this module is put together; what a client sent is bound.
        order = "interaction_ms" if params.sort_by == "lastInteractionAt" else "updated_ms"
        if "LIKE" in where:
            # Every row is looked at, so once is enough for the page and for the number of matches.
            found = connection.execute(_numbers(where, order, ""), values).fetchall()
            chosen, total = found[params.offset : params.offset + limit], len(found)
        else:
            chosen = connection.execute(_numbers(where, order, " LIMIT ? OFFSET ?"), (*values, limit, params.offset)).fetchall()
            total = self._total(connection, where, tuple(values), generation)
        return Listing(_rows(connection, [number for (number,) in chosen]), total, limit)

    def _total(self, connection: sqlite3.Connection, where: str, values: tuple[Any, ...], generation: int) -> int:
        # Counting visits every match, which the page itself does not.
        known = self._totals.get((where, values))
        if known is not None and known[0] == generation:
            return known[1]
        count = f"SELECT count(*) FROM conversation_sessions WHERE {where}"  # noqa: S608 - values go in as parameters
        (total,) = connection.execute(count, values).fetchone()
        if "updated_ms" not in where:
            if len(self._totals) >= KEPT_TOTALS:
                self._totals.clear()
            self._totals[where, values] = (generation, int(total))
        return int(total)


def _numbers(where: str, order: str, page: str) -> str:
    # Only the row numbers: an index alone answers this, so that the pages far back are as quick as the first.
    return f"SELECT rowid FROM conversation_sessions WHERE {where} ORDER BY {order} DESC, rowid{page}"  # noqa: S608 - values go in as parameters


def _rows(connection: sqlite3.Connection, numbers: list[int]) -> tuple[SessionRow, ...]:
    """Read rows in the order of their numbers."""
    wanted = f"SELECT rowid, {COLUMNS} FROM conversation_sessions WHERE rowid IN ({', '.join('?' * len(numbers))})"  # noqa: S608 - values go in as parameters
    found = {number: SessionRow(*row) for number, *row in connection.execute(wanted, numbers)}
    return tuple(found[number] for number in numbers)


def _filters(params: SessionsListParams, agents: Collection[str], now_ms: int) -> tuple[str, list[Any]]:
    found = [
        *(() if params.archived == "all" else [("archived = ?", int(params.archived))]),
        *(() if params.include_global else [("kind <> ?", "global")]),
        *(() if params.include_unknown else [("kind <> ?", "unknown")]),
        *_chosen(params, now_ms),
    ]
    clauses: list[str] = [clause for clause, _ in found]
    values: list[Any] = [value for _, value in found]
    if params.configured_agents_only:
        clauses.append(f"agent_id IN ({', '.join('?' * len(agents))})")
        values += agents
    if params.require_last_interaction:
        clauses.append("interaction_ms IS NOT NULL")
    if params.exclude_subagents:
        clauses.append("spawned_by IS NULL")
    if params.has_board:
        # Boards are not kept, so no session has one.
        clauses.append("0")
    if params.creator_id or params.owner_id or params.involving_profile_id:
        # People's profiles are not kept, so nobody created, owns or takes part in a session by one.
        clauses.append("0")
    words = (params.search or "").strip()
    if len(words) > LONGEST_SEARCH or "\x00" in words:
        # Nothing that is searched is so long or holds this; SQLite refuses such patterns, or reads them to there only.
        clauses.append("0")
    elif words:
        like = "%" + words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        clauses.append("(" + " OR ".join(f"{field} LIKE ? ESCAPE '\\'" for field in _SEARCHED) + ")")
        values += [like] * len(_SEARCHED)
    return " AND ".join(clauses) or "1", values


def _chosen(params: SessionsListParams, now_ms: int) -> list[tuple[str, Any]]:
    agent_id = params.agent_id.strip().lower() if params.agent_id is not None else None
    since = max(0, now_ms - params.active_minutes * 60_000) if params.active_minutes is not None else None
    filters = [
        ("agent_id = ?", agent_id),
        ("label = ?", params.label),
        ("spawned_by = ?", params.spawned_by),
        ("updated_ms >= ?", since),
        ("coalesce(json_extract(settings, '$.boardFace'), 'chat') = ?", params.board_face),
    ]
    return [(clause, value) for clause, value in filters if value is not None]
