"""What the store raises. To a client on the wire each of them is `UNAVAILABLE`."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from openclaw_kernel.api.errors import Unavailable


class StoreError(Unavailable):
    """The store cannot do it; the message names the database, what was found and the cure."""


class StoreClosed(StoreError):
    """The store is not open, or not any more."""


class StoreFull(StoreError):
    """The disk, or the quota of its user, is full."""


class StoreBusy(StoreError):
    """Another process holds the database."""


class StoreDamaged(StoreError):
    """The file is not a database, or not a sound one."""


class StoreUnreachable(StoreError):
    """The file cannot be opened, read or written."""


class StoreTransactionLost(StoreError):
    """The transaction ended before its commit, so that none of its group is on disk."""


class MigrationRefused(StoreError):
    """The migrations of one owner cannot be applied; its tables are as they were before the failing one."""


class DatabaseNewer(MigrationRefused):
    """The database was written by a newer version of the owner."""


_PRIMARY: Final[dict[int, tuple[type[StoreError], str]]] = {
    sqlite3.SQLITE_FULL: (StoreFull, "free space on its disk"),
    sqlite3.SQLITE_BUSY: (StoreBusy, "stop the other process that has the file open"),
    sqlite3.SQLITE_LOCKED: (StoreBusy, "stop the other process that has the file open"),
    sqlite3.SQLITE_CORRUPT: (StoreDamaged, "restore the file from a backup"),
    sqlite3.SQLITE_NOTADB: (StoreDamaged, "move the file away or restore it from a backup"),
    sqlite3.SQLITE_IOERR: (StoreUnreachable, "look at the disk and the system log"),
    sqlite3.SQLITE_CANTOPEN: (StoreUnreachable, "check that the folder exists and is ours"),
    sqlite3.SQLITE_READONLY: (StoreUnreachable, "a read cannot write; otherwise make the file and its folder writable"),
    sqlite3.SQLITE_PERM: (StoreUnreachable, "make the file and its folder ours"),
}


def from_sqlite(path: Path, error: sqlite3.Error) -> StoreError | None:
    """Return the store's error for a fault of the database itself, None for one of the statement."""
    # The low byte is the primary code, the rest says more of the same.
    found = _PRIMARY.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    if found is None:
        return None
    kind, cure = found
    return kind(f"{path}: {error}; {cure}", retryable=kind in {StoreFull, StoreBusy})
