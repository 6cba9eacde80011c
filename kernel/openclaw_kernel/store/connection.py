"""Connections to one SQLite file: a writer whose transactions only the store ends, and readers that cannot write."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal
from urllib.parse import quote

BUSY_TIMEOUT_SECONDS: Final = 5.0
FILE_MODE: Final = 0o600

_SAVEPOINT: Final = "SAVEPOINT kernel_work -- store"
_RELEASE: Final = "RELEASE kernel_work -- store"
_UNDO: Final = "ROLLBACK TO kernel_work -- store"
# A statement is looked up by its text, so that a work's own "COMMIT" never meets the authorised one of the store.
_BEGIN: Final = "BEGIN IMMEDIATE -- store"
_COMMIT: Final = "COMMIT -- store"
_ROLLBACK: Final = "ROLLBACK -- store"

_HARMLESS_PRAGMAS: Final = frozenset(
    {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list"}
    | {"foreign_key_check", "integrity_check", "quick_check", "defer_foreign_keys"}
    # sqlite-utils sets these around a transformation; the first has no effect inside a transaction, the second on data.
    | {"foreign_keys", "legacy_alter_table"}
)
"""Those that may be given a value: they set nothing that harms who comes next."""


_APPEND_ONLY: Final = "kernel_audit"
_UNMAKING: Final = frozenset(
    {sqlite3.SQLITE_DROP_TABLE, sqlite3.SQLITE_DROP_TRIGGER, sqlite3.SQLITE_ALTER_TABLE}
    | {sqlite3.SQLITE_CREATE_TRIGGER, sqlite3.SQLITE_CREATE_TEMP_TRIGGER}
)
"""What no work may do to the audit log, whose triggers refuse the rest."""


class SharedConnection(sqlite3.Connection):
    """A connection that works of many owners use in turn: none can close it, and each finds it as it was opened."""

    def close(self) -> None:
        """Do nothing: only the store closes it."""

    def close_for_good(self) -> None:
        """Close it."""
        super().close()

    def reset(self) -> None:
        """Undo what the work before may have set for itself: how rows and texts are returned."""
        self.row_factory = None
        self.text_factory = str


class WriterConnection(SharedConnection):
    """The writing connection: works run inside the store's transaction and cannot end it.

    `commit` and `with connection:` do nothing, `rollback` undoes the work so far; the statements BEGIN, COMMIT, ROLLBACK,
    ATTACH and DETACH, and pragmas that set something for good, are refused.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._controlling = False
        self.migrates_kernel = False
        """Whether a migration of the kernel's own tables runs, which alone may change what the audit log is."""

    def guard_transactions(self) -> None:
        """Refuse transaction statements from now on, except by the methods of this class."""
        self.set_authorizer(self._authorise)

    def begin(self) -> None:
        """Open the group's transaction and take the write lock."""
        self._control(_BEGIN)

    def end(self) -> None:
        """Commit the group's transaction to disk."""
        self._control(_COMMIT)

    def abandon(self) -> None:
        """Undo the group's transaction, where SQLite has not done so itself."""
        if self.in_transaction:
            self._control(_ROLLBACK)

    def mark(self) -> None:
        """Set the point to which `undo` returns."""
        self._control(_SAVEPOINT)

    def keep(self) -> None:
        """Keep what was done since `mark`."""
        self._control(_RELEASE)

    def undo(self) -> None:
        """Undo what was done since `mark`; the transaction stays open."""
        self._control(_UNDO)
        self._control(_RELEASE)

    def commit(self) -> None:
        """Do nothing: the store commits the group."""

    def rollback(self) -> None:
        """Undo what this work did so far."""
        if self.in_transaction:
            self._control(_UNDO)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> Literal[False]:
        if kind is not None:
            self.rollback()
        return False

    def executescript(self, script: str, /) -> sqlite3.Cursor:
        """Run several statements inside the transaction; sqlite3's own method would commit first."""
        cursor = self.cursor()
        for statement in split_statements(script):
            cursor.execute(statement)
        return cursor

    def _control(self, statement: str) -> None:
        self._controlling = True
        try:
            self.execute(statement)
        finally:
            self._controlling = False

    def _authorise(self, action: int, first: str | None, second: str | None, *_where: str | None) -> int:
        if self._controlling:
            return sqlite3.SQLITE_OK
        forbidden = action in {sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH}
        if action == sqlite3.SQLITE_SAVEPOINT:
            forbidden = second == "kernel_work"
        elif action in _UNMAKING:
            forbidden = not self.migrates_kernel and _APPEND_ONLY in {first, second} and not _restores_a_guard(action, first)
        elif action == sqlite3.SQLITE_PRAGMA:
            # One without a value only asks.
            forbidden = second is not None and (first or "").lower() not in _HARMLESS_PRAGMAS
        return sqlite3.SQLITE_DENY if forbidden else sqlite3.SQLITE_OK


def _restores_a_guard(action: int, name: str | None) -> bool:
    return action == sqlite3.SQLITE_CREATE_TRIGGER and (name or "").startswith(f"{_APPEND_ONLY}_")


def split_statements(script: str) -> Iterable[str]:
    """Yield the statements of a script one by one; a trigger's body stays whole."""
    statement = ""
    for part in script.split(";"):
        statement += part + ";"
        if sqlite3.complete_statement(statement):
            if statement.strip("; \t\r\n"):
                yield statement
            statement = ""
    if statement.strip("; \t\r\n"):
        yield statement


def open_writer(path: Path) -> WriterConnection:
    """Open or create the database, readable by its owner alone; raise `sqlite3.Error` or `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # SQLite gives its -wal and -shm files the mode of the database, so it must be right before they exist.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        os.fchmod(descriptor, FILE_MODE)
    finally:
        os.close(descriptor)
    connection = sqlite3.connect(
        path,
        timeout=BUSY_TIMEOUT_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
        factory=WriterConnection,
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.guard_transactions()
    except sqlite3.Error:
        connection.close_for_good()
        raise
    return connection


def open_reader(path: Path) -> SharedConnection:
    """Open a connection that cannot write; the database must exist."""
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro",
        uri=True,
        timeout=BUSY_TIMEOUT_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
        factory=SharedConnection,
    )
    try:
        connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error:
        connection.close_for_good()
        raise
    return connection
