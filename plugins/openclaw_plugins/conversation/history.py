"""Pages of a transcript for `chat.history` and `sessions.get`: stored JSON, passed on without parsing where nothing is cut."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from openclaw_kernel.api import InvalidRequest
from openclaw_plugins.conversation import transcript
from openclaw_plugins.conversation.transcript import Stored
from openclaw_plugins.conversation.wire import ChatHistoryParams

MOST_BYTES: Final = 6 << 20
ROOM_FOR_THE_REST: Final = 64 << 10
CUT: Final = "\n...(truncated)..."
TOO_LARGE: Final = "[this message is too large to be shown here]"


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPage:
    """What to read."""

    params: ChatHistoryParams
    session_id: str


def read_page(connection: sqlite3.Connection, key: str, page: HistoryPage) -> dict[str, Any]:
    """Return the part of the result that comes from disk."""
    params, session_id = page.params, page.session_id
    if params.session_id is not None and not _belongs(connection, session_id, key):
        raise InvalidRequest(f"sessionId: {session_id[:80]} is no transcript of {key}")
    room = min(params.max_bytes or MOST_BYTES, MOST_BYTES) - min(ROOM_FOR_THE_REST, (params.max_bytes or MOST_BYTES) // 4)
    last = transcript.last_seq(connection, session_id) if session_id else 0
    if params.cursor is not None:
        return _since(connection, page, last, room)
    before = last + 1 - params.offset
    if params.message_id is not None:
        before = _around(page, last)
    rows = transcript.read_before(connection, session_id, before, limit=params.limit, max_bytes=room) if last else []
    oldest = rows[0].seq if rows else 1
    found: dict[str, Any] = {
        "sessionKey": key,
        "messages": fragments(session_id, rows, max_chars=params.max_chars, room=room),
        "deltaCursor": _cursor(session_id, last),
        "offset": max(0, last + 1 - before),
        "hasMore": oldest > 1,
        "totalMessages": last,
    }
    if session_id:
        found["sessionId"] = session_id
    if oldest > 1:
        found["nextOffset"] = last + 1 - oldest
    return found


def fragments(session_id: str, rows: Sequence[Stored], *, max_chars: int | None, room: int) -> list[orjson.Fragment]:
    """Return stored messages with their place in the transcript, cut where that is asked for."""
    return [orjson.Fragment(_fragment(session_id, row, max_chars, room)) for row in rows]


def _fragment(session_id: str, row: Stored, max_chars: int | None, room: int) -> bytes:
    place = b',"__openclaw":{"id":"%s","seq":%d}}' % (transcript.entry_id(session_id, row.seq).encode(), row.seq)
    body = row.body.encode()
    if len(body) > room:
        wire = orjson.loads(body)
        wire["content"] = [{"type": "text", "text": TOO_LARGE}]
        body = orjson.dumps(wire)
    elif max_chars is not None and len(body) > max_chars:
        wire = orjson.loads(body)
        wire["content"] = [_cut(part, max_chars) for part in wire["content"]]
        body = orjson.dumps(wire)
    return body[:-1] + place


def _cut(part: dict[str, Any], max_chars: int) -> dict[str, Any]:
    for field in ("text", "thinking"):
        text = part.get(field)
        if isinstance(text, str) and len(text) > max_chars:
            return {**part, field: text[:max_chars] + CUT}
    return part


def _since(connection: sqlite3.Connection, page: HistoryPage, last: int, room: int) -> dict[str, Any]:
    session_id, _, number = (page.params.cursor or "").rpartition(":")
    seq = transcript.number_of(number)
    if session_id != page.session_id or seq is None or seq > last:
        return {"kind": "reset"}
    rows = transcript.read_after(connection, session_id, seq, limit=page.params.limit, max_bytes=room)
    if rows is None:
        return {"kind": "reset"}
    return {
        "kind": "delta",
        "messages": fragments(session_id, rows, max_chars=page.params.max_chars, room=room),
        "deltaCursor": _cursor(session_id, last),
    }


def _around(page: HistoryPage, last: int) -> int:
    """Return the number after a page that has the asked message in its middle."""
    seq = transcript.seq_of(page.session_id, page.params.message_id or "")
    if seq is None or not 1 <= seq <= last:
        raise InvalidRequest(f"messageId: {(page.params.message_id or '')[:80]} is not in this transcript")
    return min(last + 1, seq + page.params.limit // 2 + 1)


def _belongs(connection: sqlite3.Connection, session_id: str, key: str) -> bool:
    row = connection.execute(
        "SELECT 1 FROM conversation_transcripts WHERE session_id = ? AND session_key = ?", (session_id, key)
    ).fetchone()
    return row is not None


def _cursor(session_id: str, seq: int) -> str:
    return f"{session_id}:{seq}"
