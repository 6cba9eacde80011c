"""Every statement on `kernel_audit`."""

from __future__ import annotations

import itertools
import sqlite3
from dataclasses import asdict, astuple
from typing import Final

from openclaw_kernel.api.audit import AuditEntry, AuditFilter
from openclaw_kernel.audit.records import NO_HASH, AuditRow, row_of

COLUMNS: Final = (
    "sequence, time_ms, action, outcome, actor, surface, address, subject, reason, before_digest, after_digest, trace_id, details,"
    " previous, hash"
)
GUARDS: Final = {
    **{
        f"kernel_audit_no_{change}": f"BEFORE {change.upper()} ON kernel_audit BEGIN"
        " SELECT RAISE(ABORT, 'kernel_audit is append-only: no row is changed or deleted'); END"
        for change in ("update", "delete")
    },
    # INSERT OR REPLACE would take a row away without a delete that a trigger sees.
    "kernel_audit_in_order": "BEFORE INSERT ON kernel_audit"
    " WHEN NEW.sequence IS NOT (SELECT coalesce(max(sequence), 0) + 1 FROM kernel_audit)"
    " OR NEW.previous IS NOT coalesce((SELECT hash FROM kernel_audit ORDER BY sequence DESC LIMIT 1), printf('%064d', 0))"
    " BEGIN SELECT RAISE(ABORT, 'kernel_audit is append-only: a row follows the newest one'); END",
}
"""The triggers that refuse all but a new row behind the newest, by name."""
_INSERT: Final = f"INSERT INTO kernel_audit ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - those above
_HEAD: Final = "SELECT sequence, hash FROM kernel_audit ORDER BY sequence DESC LIMIT 1"
_AFTER: Final = f"SELECT {COLUMNS} FROM kernel_audit WHERE sequence > ? ORDER BY sequence LIMIT ?"  # noqa: S608 - the columns and conditions above
BEFORE_ALL: Final = float("-inf")
"""Before every row, those included that somebody put in front of the first."""
SCANNED: Final = 20_000
"""So many rows are looked at for one page."""
_MATCHES: Final = (
    "(:action IS NULL OR action = :action OR substr(action, 1, length(:action) + 1) = :action || '.')"
    " AND (:outcome IS NULL OR outcome = :outcome) AND (:actor IS NULL OR actor = :actor) AND (:subject IS NULL OR subject = :subject)"
    " AND (:trace_id IS NULL OR trace_id = :trace_id) AND (:since_ms IS NULL OR time_ms >= :since_ms)"
    " AND (:until_ms IS NULL OR time_ms <= :until_ms)"
)


class _Direction:
    """The statements that go through the table one way."""

    def __init__(self, side: str, order: str, begin: int) -> None:
        self.begin = begin
        looked_at = f"FROM kernel_audit WHERE sequence {side} :start ORDER BY sequence {order}"
        self.query = f"SELECT {COLUMNS} FROM (SELECT * {looked_at} LIMIT :scanned) WHERE {_MATCHES} ORDER BY sequence {order} LIMIT :limit"  # noqa: S608 - the columns and conditions above
        self.last = f"SELECT sequence {looked_at} LIMIT 1 OFFSET :scanned - 1"


_OLDEST_FIRST: Final = _Direction(">", "ASC", 0)
_NEWEST_FIRST: Final = _Direction("<", "DESC", 2**63 - 1)


def head(connection: sqlite3.Connection) -> tuple[int, str]:
    """The number and hash of the newest row; 0 and `NO_HASH` where there is none."""
    row = _plain(connection).execute(_HEAD).fetchone()
    return (0, NO_HASH) if row is None else (row[0], row[1])


def hash_of(connection: sqlite3.Connection, sequence: int) -> str | None:
    """The hash of a row; None where there is no such row."""
    row = _plain(connection).execute("SELECT hash FROM kernel_audit WHERE sequence = ?", (sequence,)).fetchone()
    return None if row is None else row[0]


def newest_digest(connection: sqlite3.Connection, action: str) -> str | None:
    """What the newest row of an action says there was afterwards; None where there is none."""
    query = "SELECT after_digest FROM kernel_audit WHERE action = ? ORDER BY sequence DESC LIMIT 1"
    row = _plain(connection).execute(query, (str(action),)).fetchone()
    return None if row is None else row[0]


def missing_guards(connection: sqlite3.Connection) -> list[str]:
    """The triggers that are not there any more, or are others under their name."""
    found = _triggers(connection)
    return [name for name, body in GUARDS.items() if not any(sql == f"CREATE TRIGGER {there} {body}" for there, sql in found.items())]


def restore_guards(connection: sqlite3.Connection) -> None:
    """Make anew the triggers that are not there, beside what took their name: no work may drop a trigger of this table."""
    taken = _triggers(connection)
    for name in missing_guards(connection):
        free = name
        for number in itertools.count(2):
            if free not in taken:
                break
            free = f"{name}_{number}"
        _plain(connection).execute(f"CREATE TRIGGER {free} {GUARDS[name]}")


def _triggers(connection: sqlite3.Connection) -> dict[str, str]:
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'kernel_audit'"
    return dict(_plain(connection).execute(query).fetchall())


def append(connection: sqlite3.Connection, entry: AuditEntry, time_ms: int) -> AuditRow:
    """Add the row of an entry behind the newest one, in the transaction that is open."""
    sequence, previous = head(connection)
    row = row_of(entry, sequence=sequence + 1, time_ms=time_ms, previous=previous)
    if _plain(connection).execute(_INSERT, astuple(row)).rowcount != 1:
        raise sqlite3.IntegrityError("kernel_audit took no row, so what it records is not done; drop the trigger that is not ours")
    return row


def rows_after(connection: sqlite3.Connection, sequence: float, limit: int) -> list[AuditRow]:
    """The next rows in order, whatever somebody may have put into them; none at the end."""
    # What is no UTF-8 must come out, to be named as what it is.
    connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    return [AuditRow(*values) for values in _plain(connection).execute(_AFTER, (sequence, limit))]


def page(
    connection: sqlite3.Connection,
    filters: AuditFilter,
    *,
    behind: int | None,
    limit: int,
    oldest_first: bool,
    scanned: int = SCANNED,
) -> tuple[list[AuditRow], int | None]:
    """The next rows that match, of a bounded number that is looked at, and where to go on; None at the end."""
    direction = _OLDEST_FIRST if oldest_first else _NEWEST_FIRST
    start = behind if behind is not None else direction.begin
    values = {**asdict(filters), "start": start, "limit": limit, "scanned": scanned}
    rows = [AuditRow(*row) for row in _plain(connection).execute(direction.query, values)]
    if len(rows) == limit:
        return rows, rows[-1].sequence
    last = _plain(connection).execute(direction.last, {"start": start, "scanned": scanned}).fetchone()
    return rows, None if last is None else last[0]


def _plain(connection: sqlite3.Connection) -> sqlite3.Cursor:
    # The work whose transaction this is may have set a row factory of its own.
    cursor = connection.cursor()
    cursor.row_factory = None
    return cursor
