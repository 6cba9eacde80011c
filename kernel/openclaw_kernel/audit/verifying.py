"""The check of a whole log: through the store of a running gateway, or straight on the files of one that is down."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from openclaw_kernel.api.store import Store
from openclaw_kernel.audit import table
from openclaw_kernel.audit.chain import ChainCheck, Verdict
from openclaw_kernel.audit.checkpoints import CheckpointFile
from openclaw_kernel.audit.records import AuditRow

ROWS_AT_ONCE: Final = 500


async def verify(store: Store, home: Path) -> dict[str, Any]:
    """Check the log of a running gateway, a part at a time, so that other reads come in between."""
    file = CheckpointFile(home)
    # First: what is signed later is about rows that are read later.
    checkpoints, fault = await asyncio.to_thread(file.read)
    check = ChainCheck(checkpoints, fault=fault)
    last: float = table.BEFORE_ALL

    def take(connection: sqlite3.Connection) -> int | None:
        rows = table.rows_after(connection, last, ROWS_AT_ONCE)
        for row in rows:
            check.take(row)
        return rows[-1].sequence if rows else None

    while (reached := await store.read(take)) is not None:
        last = reached
    return _told(check.finish(), await asyncio.to_thread(file.fingerprint))


def verify_files(database: Path, home: Path) -> dict[str, Any]:
    """Check the log of a gateway that is down; raise `OSError`, `sqlite3.Error`."""
    file = CheckpointFile(home)
    checkpoints, fault = file.read()
    check = ChainCheck(checkpoints, fault=fault)
    for row in rows_of(database):
        check.take(row)
    return _told(check.finish(), file.fingerprint())


def rows_of(database: Path) -> Iterator[AuditRow]:
    """Every row of a database file, which is only read; raise `OSError`, `sqlite3.Error`."""
    with _opened(database) as connection:
        last: float = table.BEFORE_ALL
        while rows := table.rows_after(connection, last, ROWS_AT_ONCE):
            yield from rows
            last = rows[-1].sequence


@contextmanager
def _opened(database: Path) -> Iterator[sqlite3.Connection]:
    if not database.exists():
        raise FileNotFoundError(f"{database}: there is no database; name the state folder with --home")
    with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True, isolation_level=None)) as connection:
        # One state of the log from begin to end, also where a gateway goes on writing.
        connection.execute("BEGIN")
        yield connection


def _told(verdict: Verdict, fingerprint: str | None) -> dict[str, Any]:
    return {**verdict.to_json(), "key": fingerprint}
