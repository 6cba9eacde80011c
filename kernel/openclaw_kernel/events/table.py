"""The rows of the event log: `kernel_events` and `kernel_event_epochs`. Each function runs inside one transaction of the store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from openclaw_kernel.api.services import GapReason
from openclaw_kernel.events.records import Bounds, Epoch, Record, record_size, topics_of, topics_text

EPOCHS_KEPT: Final = 1_000
PAGE_ROWS: Final = 256
TRIMMED_AT_ONCE: Final = 500

_INSERT: Final = (
    "INSERT INTO kernel_events (position, time_ms, event, topics, scoped_topic, payload, size, total) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_PAGE: Final = (
    "SELECT position, time_ms, event, topics, scoped_topic, payload, total FROM kernel_events"
    " WHERE position > ? AND position <= ? ORDER BY position LIMIT ?"
)


@dataclass(frozen=True, slots=True)
class Found:
    """The log as a process finds it; `ended` says that the process before wrote all it had to the end."""

    epochs: list[Epoch]
    ended: bool
    wanted_ms: int
    last: int
    total: int


@dataclass(frozen=True, slots=True)
class Oldest:
    """The first record that is kept."""

    position: int
    time_ms: int


def find(connection: sqlite3.Connection) -> Found:
    """Return what an earlier process left."""
    rows = connection.execute("SELECT first, name, gap, ended, wanted_ms FROM kernel_event_epochs ORDER BY id").fetchall()
    ended, wanted_ms = (bool(rows[-1][3]), int(rows[-1][4])) if rows else (True, 0)
    # Not the last row's: all rows may be gone, and a position is never used again.
    sequence = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'kernel_events'").fetchone()
    newest = connection.execute("SELECT total FROM kernel_events ORDER BY position DESC LIMIT 1").fetchone()
    return Found(
        epochs=[Epoch(first, name, _gap_of(gap)) for first, name, gap, _, _ in rows],
        ended=ended,
        wanted_ms=wanted_ms,
        last=0 if sequence is None else int(sequence[0]),
        total=0 if newest is None else int(newest[0]),
    )


def _gap_of(text: str | None) -> GapReason | None:
    try:
        return None if text is None else GapReason(text)
    except ValueError:
        # A newer version of the gateway wrote it, and was replaced by this one.
        return GapReason.UNKNOWN


def begin_epoch(connection: sqlite3.Connection, epoch: Epoch, wanted_ms: int) -> None:
    """Write an epoch, and forget those of which nothing is left."""
    connection.execute(
        "INSERT INTO kernel_event_epochs (first, name, gap, ended, wanted_ms) VALUES (?, ?, ?, 0, ?)",
        (epoch.first, epoch.name, epoch.gap, wanted_ms),
    )
    connection.execute(
        "DELETE FROM kernel_event_epochs WHERE id <= (SELECT id FROM kernel_event_epochs ORDER BY id DESC LIMIT 1 OFFSET ?)",
        (EPOCHS_KEPT,),
    )
    oldest = oldest_of(connection)
    first = epoch.first if oldest is None else oldest.position
    # The last that begins before what is kept holds cursors that may be continued; those before it do not.
    connection.execute("DELETE FROM kernel_event_epochs WHERE id < (SELECT max(id) FROM kernel_event_epochs WHERE first < ?)", (first,))


def mark(connection: sqlite3.Connection, name: str, *, wanted_ms: int, ended: bool) -> None:
    """Note when somebody last followed, and whether the epoch was written to its end."""
    connection.execute("UPDATE kernel_event_epochs SET wanted_ms = ?, ended = ? WHERE name = ?", (wanted_ms, int(ended), name))


def insert(connection: sqlite3.Connection, records: Sequence[Record]) -> None:
    """Write records under their positions, and empty those that they replace: positions have no holes."""
    replaced = {one.replaced for one in records if one.replaced is not None}
    rows = []
    for one in records:
        payload = b"" if one.position in replaced else one.payload
        size = record_size(one.event, payload)
        rows.append((one.position, one.time_ms, one.event, topics_text(one.topics), one.scoped_topic, payload, size, one.total))
    connection.executemany(_INSERT, rows)
    before = [(position,) for position in replaced if position < records[0].position]
    connection.executemany("UPDATE kernel_events SET size = size - length(payload), payload = x'' WHERE position = ?", before)


def trim(connection: sqlite3.Connection, bounds: Bounds, now_ms: int, limit: int = TRIMMED_AT_ONCE) -> tuple[Oldest | None, bool]:
    """Delete at most `limit` of the oldest that are over a bound; return the oldest that is left, and whether more are over."""
    newest = connection.execute("SELECT position, total FROM kernel_events ORDER BY position DESC LIMIT 1").fetchone()
    if newest is None:
        return None, False
    last, total = newest
    cut = over = 0
    for position, time_ms, before in connection.execute(
        "SELECT position, time_ms, total - size FROM kernel_events ORDER BY position LIMIT ?", (limit,)
    ):
        if last - position < bounds.rows and total - before <= bounds.size and now_ms - time_ms <= bounds.age_seconds * 1000:
            break
        cut, over = position, over + 1
    if cut:
        connection.execute("DELETE FROM kernel_events WHERE position <= ?", (cut,))
    return oldest_of(connection), over == limit


def oldest_of(connection: sqlite3.Connection) -> Oldest | None:
    """Return the first record that is kept, None where there is none."""
    row = connection.execute("SELECT position, time_ms FROM kernel_events ORDER BY position LIMIT 1").fetchone()
    return None if row is None else Oldest(int(row[0]), int(row[1]))


def page(connection: sqlite3.Connection, after: int, until: int, size: int) -> list[Record]:
    """Return the records after a position in order: as many as fit into `size` bytes, one at least."""
    rows = connection.execute(_PAGE, (after, until, PAGE_ROWS))
    found = fitting((Record(row[0], row[1], row[2], topics_of(row[3]), *row[4:]) for row in rows), size)
    rows.close()
    return found


def fitting(records: Iterable[Record], size: int) -> list[Record]:
    """Return the first records that fit into `size` bytes, one at least."""
    found: list[Record] = []
    for record in records:
        size -= record.size
        if found and size < 0:
            break
        found.append(record)
    return found
