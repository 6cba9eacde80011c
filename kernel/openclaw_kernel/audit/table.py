"""Every statement on `kernel_audit`."""

from __future__ import annotations

import sqlite3
from dataclasses import astuple
from typing import Final

from openclaw_kernel.api.audit import AuditEntry
from openclaw_kernel.audit.records import NO_HASH, AuditRow, row_of

COLUMNS: Final = (
    "sequence, time_ms, action, outcome, actor, surface, address, subject, reason, before_digest, after_digest, trace_id, details,"
    " previous, hash"
)
_INSERT: Final = f"INSERT INTO kernel_audit ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - those above
_HEAD: Final = "SELECT sequence, hash FROM kernel_audit ORDER BY sequence DESC LIMIT 1"
_AFTER: Final = f"SELECT {COLUMNS} FROM kernel_audit WHERE sequence > ? ORDER BY sequence LIMIT ?"  # noqa: S608


def head(connection: sqlite3.Connection) -> tuple[int, str]:
    """The number and hash of the newest row; 0 and `NO_HASH` where there is none."""
    row = _plain(connection).execute(_HEAD).fetchone()
    return (0, NO_HASH) if row is None else (row[0], row[1])


def append(connection: sqlite3.Connection, entry: AuditEntry, time_ms: int) -> AuditRow:
    """Add the row of an entry behind the newest one, in the transaction that is open."""
    sequence, previous = head(connection)
    row = row_of(entry, sequence=sequence + 1, time_ms=time_ms, previous=previous)
    if _plain(connection).execute(_INSERT, astuple(row)).rowcount != 1:
        raise sqlite3.IntegrityError("kernel_audit took no row, so what it records is not done; drop the trigger that is not ours")
    return row


def rows_after(connection: sqlite3.Connection, sequence: int, limit: int) -> list[AuditRow]:
    """The next rows in order; none at the end."""
    return [AuditRow(*values) for values in _plain(connection).execute(_AFTER, (sequence, limit))]


def _plain(connection: sqlite3.Connection) -> sqlite3.Cursor:
    # The work whose transaction this is may have set a row factory of its own.
    cursor = connection.cursor()
    cursor.row_factory = None
    return cursor
