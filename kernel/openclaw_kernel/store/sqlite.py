"""The store on one SQLite file: one writer thread with group commit, readers beside it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar, cast

from openclaw_kernel.api.store import Migration
from openclaw_kernel.store.connection import SharedConnection, WriterConnection, open_reader, open_writer
from openclaw_kernel.store.errors import (
    MigrationRefused,
    StoreClosed,
    StoreError,
    StoreTransactionLost,
    StoreUnreachable,
    from_sqlite,
)
from openclaw_kernel.store.lane import WATCH_SECONDS, Item, Lane, capture
from openclaw_kernel.store.migrations import KERNEL, KERNEL_MIGRATIONS, migrate, migrate_one

logger: Final = logging.getLogger(__name__)

ValueT = TypeVar("ValueT")
Prepared: TypeAlias = tuple[WriterConnection, list[SharedConnection], dict[str, MigrationRefused]]

READERS: Final = 2
CLOSE_TIMEOUT_SECONDS: Final = 10.0


class SqliteStore:
    """Implements `openclaw_kernel.api.Store`. Works queued while a commit is on its way to disk share the next one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: Lane | None = None
        self._reader: Lane | None = None
        self._step = "opening the file"

    async def open(self, migrations: Mapping[str, Sequence[Migration]]) -> Mapping[str, MigrationRefused]:
        """Open or create the file and apply each owner's pending migrations.

        Return the owners whose migrations were refused (`DatabaseNewer`, a failed step), each with its reason: they must
        not start.
        Raise `StoreError` where the file or the kernel's own tables cannot be used.
        """
        if self._writer is not None:
            raise StoreError(f"{self.path}: the store is open already; open it once")
        writer, readers, refused = await self._watched(self._prepare, migrations)
        self._writer = Lane("store-writer", [writer], self._serve_writes)
        self._reader = Lane("store-reader", readers, self._serve_reads, group_limit=1)
        return refused

    async def write(self, work: Callable[[sqlite3.Connection], ValueT]) -> ValueT:
        """Run on the writing thread; return once the transaction is on disk. An exception undoes this work only.

        A caller cancelled while it waits does not take the work back. Raise `StoreError` for a fault of disk or file.
        """
        if self._writer is None:
            raise StoreClosed(f"{self.path}: the store is not open")
        result: ValueT = await self._writer.submit(work)
        return result

    async def read(self, work: Callable[[sqlite3.Connection], ValueT]) -> ValueT:
        """Run on a read-only connection, which sees one state of the database from begin to end."""
        if self._reader is None:
            raise StoreClosed(f"{self.path}: the store is not open")
        result: ValueT = await self._reader.submit(work)
        return result

    async def migrate(self, owner: str, steps: Sequence[Migration]) -> None:
        """Apply what is pending of one owner while the store is open: all of it, or nothing; raise `StoreError`."""
        # What is handed to a work on the writing thread is the writer.
        await self.write(lambda connection: migrate_one(cast("WriterConnection", connection), owner, steps))

    async def close(self) -> None:
        """Finish what is queued and close the file; a work that hangs is abandoned after 10 s. Safe to call twice."""
        # Readers first: the last connection to close empties the write-ahead log, and only the writer may.
        for lane in (self._reader, self._writer):
            if lane is not None and not await lane.close(CLOSE_TIMEOUT_SECONDS):
                names = ", ".join(lane.running()) or "a work"
                logger.error("%s: %s did not end in %.0f s and was abandoned", self.path, names, CLOSE_TIMEOUT_SECONDS)

    async def _watched(self, prepare: Callable[..., Prepared], *arguments: Any) -> Prepared:
        """Run on a helper thread, and say which migration is under way while it lasts: the gateway does not start before."""
        loop = asyncio.get_running_loop()
        began, patience = loop.time(), WATCH_SECONDS
        future = loop.run_in_executor(None, prepare, *arguments)
        while not (await asyncio.wait({future}, timeout=patience))[0]:
            logger.warning("%s: %s has not ended for %.1f s; the start waits for it", self.path, self._step, loop.time() - began)
            patience *= 2
        return future.result()

    def _note_step(self, step: str) -> None:
        self._step = step

    def _prepare(self, migrations: Mapping[str, Sequence[Migration]]) -> Prepared:
        try:
            writer = open_writer(self.path)
        except OSError as error:
            raise StoreUnreachable(f"{self.path}: {error.strerror}; make the file and its folder ours and writable") from error
        except sqlite3.Error as error:
            raise self._named(error) from error
        try:
            refused = migrate(writer, {KERNEL: KERNEL_MIGRATIONS, **migrations}, self._note_step)
            if KERNEL in refused:
                raise refused[KERNEL]
            readers = [open_reader(self.path) for _ in range(READERS)]
        except sqlite3.Error as error:
            writer.close_for_good()
            raise self._named(error) from error
        except StoreError:
            writer.close_for_good()
            raise
        return writer, readers, refused

    def _serve_writes(self, connection: WriterConnection, group: list[Item]) -> None:
        fault = capture(lambda: self._commit_all(connection, group))
        if fault is not None:
            logger.error("%s: writing failed", self.path, exc_info=fault)
            self._fail(group, StoreError(f"{self.path}: writing failed ({fault!r}); see the log"))
            self._abandon(connection)

    def _commit_all(self, connection: WriterConnection, group: list[Item]) -> None:
        while group:
            group = self._commit_group(connection, group)

    def _commit_group(self, connection: WriterConnection, group: list[Item]) -> list[Item]:
        """Run the items in one transaction; return those that need another one."""
        done = 0
        try:
            connection.begin()
            for item in group:
                _run_in_savepoint(connection, item)
                done += 1
                if not connection.in_transaction:
                    # SQLite itself rolls back on a full disk or a broken file, and with it what ran before.
                    lost = StoreTransactionLost(f"{self.path}: the fault of another work undid this one; try again")
                    self._fail(group[:done], lost)
                    return group[done:]
            connection.end()
        except sqlite3.Error as error:
            self._fail(group, error)
            self._abandon(connection)
            return []
        self._name_errors(group)
        return []

    def _fail(self, items: Sequence[Item], error: Exception) -> None:
        for item in items:
            item.error = item.error or error
        self._name_errors(items)

    def _abandon(self, connection: WriterConnection) -> None:
        try:
            connection.abandon()
        except sqlite3.Error:
            logger.exception("%s: the failed transaction could not be rolled back; restart the gateway", self.path)

    def _serve_reads(self, connection: SharedConnection, group: list[Item]) -> None:
        for item in group:
            try:
                connection.reset()
                connection.execute("BEGIN")
                item.run(connection)
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                item.error = item.error or error
        self._name_errors(group)

    def _name_errors(self, items: Sequence[Item]) -> None:
        for item in items:
            if isinstance(item.error, sqlite3.Error):
                item.error = self._named(item.error)

    def _named(self, error: sqlite3.Error) -> Exception:
        named = from_sqlite(self.path, error)
        if named is None:
            return error
        named.__cause__ = error
        return named


def _run_in_savepoint(connection: WriterConnection, item: Item) -> None:
    connection.reset()
    connection.mark()
    item.run(connection)
    if not connection.in_transaction:
        return
    if item.error is None:
        connection.keep()
    else:
        connection.undo()
