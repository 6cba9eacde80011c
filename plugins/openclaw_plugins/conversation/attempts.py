"""The attempts of a delivery, each a row, so that it can be told why a message came late, twice or never."""

from __future__ import annotations

import sqlite3
from typing import Any, Final, Literal, TypeAlias

Outcome: TypeAlias = Literal["sent", "refused", "unknown", "limited", "failed"]
"""`refused` for good; `unknown`: it may have arrived; `limited`: the platform asked for a pause; `failed`: it can be tried again."""

KEPT: Final = 50
LONGEST_ERROR: Final = 500
BROKE_OFF: Final = "the gateway stopped while sending it"


def begin(connection: sqlite3.Connection, outbox: int, number: int, now_ms: int) -> None:
    """Write that an attempt begins; the oldest ones beyond `KEPT` go."""
    connection.execute(
        "UPDATE conversation_attempts SET ended_ms = ?, outcome = 'unknown', error = ?"
        " WHERE outbox = ? AND ended_ms IS NULL AND number < ?",
        (now_ms, BROKE_OFF, outbox, number),
    )
    # A write that is tried again comes with the same number.
    connection.execute(
        "INSERT OR IGNORE INTO conversation_attempts (outbox, number, started_ms) VALUES (?, ?, ?)", (outbox, number, now_ms)
    )
    connection.execute("DELETE FROM conversation_attempts WHERE outbox = ? AND number <= ?", (outbox, number - KEPT))


def end(
    connection: sqlite3.Connection, outbox: int, outcome: Outcome, error: str | None, *, now_ms: int, retry_after_ms: int | None = None
) -> None:
    """Write how the attempt under way went; nothing where none is."""
    connection.execute(
        "UPDATE conversation_attempts SET ended_ms = ?, outcome = ?, error = ?, retry_after_ms = ? WHERE outbox = ? AND ended_ms IS NULL",
        (now_ms, outcome, None if error is None else error[:LONGEST_ERROR], retry_after_ms, outbox),
    )


def read(connection: sqlite3.Connection, outbox: int) -> list[dict[str, Any]]:
    """Return the attempts that are kept, oldest first, as clients get them."""
    rows = connection.execute(
        "SELECT number, started_ms, ended_ms, outcome, error, retry_after_ms FROM conversation_attempts WHERE outbox = ? ORDER BY number",
        (outbox,),
    )
    return [
        {
            "number": number,
            "startedMs": started_ms,
            "endedMs": ended_ms,
            "outcome": outcome or "sending",
            "error": error,
            "retryAfterMs": retry_after_ms,
        }
        for number, started_ms, ended_ms, outcome, error, retry_after_ms in rows
    ]
