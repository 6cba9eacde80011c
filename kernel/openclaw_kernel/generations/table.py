"""Every statement on `kernel_generations`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from openclaw_kernel.api.config import Generation
from openclaw_kernel.generations.files import KEPT, Digests

KEPT_ROWS: Final = 10_000
"""So many generations are remembered; the bytes of the newest `KEPT` are there."""
_COLUMNS: Final = "number, hash, time_ms, actor, surface, reason, changed, files"


@dataclass(frozen=True, slots=True)
class Kept:
    """A generation and the files that it was made of."""

    generation: Generation
    files: Digests


def insert(connection: sqlite3.Connection, kept: Kept, *, version: str, audit_row: int) -> None:
    """Add a row; of the oldest some may go."""
    one = kept.generation
    _plain(connection).execute(
        f"INSERT INTO kernel_generations ({_COLUMNS}, version, audit_row) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - those above
        (
            *(one.number, one.hash, one.ts_ms, one.actor, one.surface, one.reason),
            *(json.dumps(list(one.changed)), json.dumps(dict(kept.files)), version, audit_row),
        ),
    )
    _plain(connection).execute("DELETE FROM kernel_generations WHERE number <= ?", (one.number - KEPT_ROWS,))


def newest(connection: sqlite3.Connection) -> Kept | None:
    """Return the newest generation; None where there is none."""
    return next(iter(page(connection, limit=1)), None)


def page(connection: sqlite3.Connection, *, limit: int, before: int | None = None) -> list[Kept]:
    """Return generations, newest first."""
    query = f"SELECT {_COLUMNS} FROM kernel_generations WHERE ? IS NULL OR number < ? ORDER BY number DESC LIMIT ?"  # noqa: S608
    return [_kept(row) for row in _plain(connection).execute(query, (before, before, limit))]


def find(connection: sqlite3.Connection, number: int) -> Kept | None:
    """Return one generation; None where it is not remembered."""
    row = _plain(connection).execute(f"SELECT {_COLUMNS} FROM kernel_generations WHERE number = ?", (number,)).fetchone()  # noqa: S608
    return None if row is None else _kept(row)


def find_source(connection: sqlite3.Connection, *, number: int | None, digest: str | None) -> Kept | None:
    """Return the newest generation of this number, or of this hash; None where none is remembered."""
    query = f"SELECT {_COLUMNS} FROM kernel_generations WHERE number = ? OR hash = ? ORDER BY number DESC LIMIT 1"  # noqa: S608
    row = _plain(connection).execute(query, (number, digest)).fetchone()
    return None if row is None else _kept(row)


def wanted_digests(connection: sqlite3.Connection) -> set[str]:
    """Return what the newest generations are made of."""
    rows = _plain(connection).execute("SELECT files FROM kernel_generations ORDER BY number DESC LIMIT ?", (KEPT,))
    return {digest for (files,) in rows for digest in json.loads(files).values()}


def _kept(row: Sequence[Any]) -> Kept:
    number, digest, time_ms, actor, surface, reason, changed, files = row
    generation = Generation(
        number=number, hash=digest, ts_ms=time_ms, actor=actor, surface=surface, reason=reason, changed=tuple(json.loads(changed))
    )
    return Kept(generation, json.loads(files))


def _plain(connection: sqlite3.Connection) -> sqlite3.Cursor:
    # The work whose transaction this is may have set a row factory of its own.
    cursor = connection.cursor()
    cursor.row_factory = None
    return cursor
