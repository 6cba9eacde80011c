"""Numbered migrations, forward only, each in its own transaction."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from openclaw_kernel import __version__
from openclaw_kernel.api.store import Migration
from openclaw_kernel.audit.table import GUARDS
from openclaw_kernel.store.connection import WriterConnection
from openclaw_kernel.store.errors import DatabaseNewer, MigrationRefused
from openclaw_kernel.store.lane import capture

if TYPE_CHECKING:
    from sqlite_utils import Database

KERNEL: Final = "kernel"


def _create_key_value(database: Database) -> None:
    database.execute(
        "CREATE TABLE kernel_key_value (owner TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,"
        " PRIMARY KEY (owner, key)) WITHOUT ROWID"
    )


def _create_requests(database: Database) -> None:
    database.execute(
        "CREATE TABLE kernel_requests (id INTEGER PRIMARY KEY, principal TEXT NOT NULL, method TEXT NOT NULL, key TEXT NOT NULL,"
        " digest TEXT NOT NULL, state TEXT NOT NULL, record TEXT, payload BLOB, error BLOB, created_ms INTEGER NOT NULL,"
        " expires_ms INTEGER NOT NULL, UNIQUE (principal, method, key))"
    )


def _create_sentinels(database: Database) -> None:
    database.execute("CREATE TABLE kernel_sentinels (id INTEGER PRIMARY KEY AUTOINCREMENT, boot_id TEXT NOT NULL, body TEXT NOT NULL)")


def _create_event_log(database: Database) -> None:
    database.execute(
        "CREATE TABLE kernel_events (position INTEGER PRIMARY KEY AUTOINCREMENT, time_ms INTEGER NOT NULL, event TEXT NOT NULL,"
        " topics TEXT, scoped_topic TEXT, payload BLOB NOT NULL, size INTEGER NOT NULL, total INTEGER NOT NULL)"
    )
    database.execute(
        "CREATE TABLE kernel_event_epochs (id INTEGER PRIMARY KEY AUTOINCREMENT, first INTEGER NOT NULL, name TEXT NOT NULL UNIQUE,"
        " gap TEXT, ended INTEGER NOT NULL, wanted_ms INTEGER NOT NULL)"
    )


def _create_audit(database: Database) -> None:
    database.execute(
        "CREATE TABLE kernel_audit (sequence INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, action TEXT NOT NULL, outcome TEXT NOT NULL,"
        " actor TEXT NOT NULL, surface TEXT NOT NULL, address TEXT, subject TEXT, reason TEXT, before_digest TEXT, after_digest TEXT,"
        " trace_id TEXT, details TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL)"
    )
    database.execute("CREATE INDEX kernel_audit_actions ON kernel_audit (action, sequence)")
    for name, body in GUARDS.items():
        database.execute(f"CREATE TRIGGER {name} {body}")


def _create_generations(database: Database) -> None:
    database.execute(
        "CREATE TABLE kernel_generations (number INTEGER PRIMARY KEY, hash TEXT NOT NULL, time_ms INTEGER NOT NULL, actor TEXT NOT NULL,"
        " surface TEXT NOT NULL, reason TEXT, changed TEXT NOT NULL, files TEXT NOT NULL, version TEXT NOT NULL,"
        " audit_row INTEGER NOT NULL)"
    )


KERNEL_MIGRATIONS: Final = (
    Migration(number=1, name="create kernel_key_value", apply=_create_key_value),
    Migration(number=2, name="create kernel_requests", apply=_create_requests),
    Migration(number=3, name="create kernel_sentinels", apply=_create_sentinels),
    Migration(number=4, name="create kernel_events", apply=_create_event_log),
    Migration(number=5, name="create kernel_audit", apply=_create_audit),
    Migration(number=6, name="create kernel_generations", apply=_create_generations),
)

_LEDGER: Final = (
    (
        "CREATE TABLE IF NOT EXISTS kernel_migrations (owner TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL,"
        " applied_ms INTEGER NOT NULL, PRIMARY KEY (owner, number)) WITHOUT ROWID"
    ),
    # Tables of their own: a version before writes rows of the first one by position.
    (
        "CREATE TABLE IF NOT EXISTS kernel_migration_versions (owner TEXT NOT NULL, number INTEGER NOT NULL, version TEXT NOT NULL,"
        " PRIMARY KEY (owner, number)) WITHOUT ROWID"
    ),
    (
        "CREATE TABLE IF NOT EXISTS kernel_migration_batches (owner TEXT NOT NULL, number INTEGER NOT NULL,"
        " PRIMARY KEY (owner, number)) WITHOUT ROWID"
    ),
)


def migrate(
    connection: WriterConnection, migrations: Mapping[str, Sequence[Migration]], begins: Callable[[str], None] = lambda _step: None
) -> dict[str, MigrationRefused]:
    """Apply what is pending, owner by owner; return the owners whose migrations were refused, with the reason.

    One owner's fault stops that owner alone. `begins` is told of each step before it is taken.
    """
    for table in _LEDGER:
        connection.execute(table)
    applied: dict[str, dict[int, str]] = {}
    for owner, number, name in connection.execute("SELECT owner, number, name FROM kernel_migrations"):
        applied.setdefault(owner, {})[number] = name
    refused: dict[str, MigrationRefused] = {}
    for owner, steps in migrations.items():
        try:
            for migration in _pending(connection, owner, steps, applied.get(owner, {})):
                begins(f"{owner}: migration {migration.number} ({migration.name})")
                _apply(connection, owner, migration)
        except MigrationRefused as error:
            refused[owner] = error
    return refused


def migrate_one(connection: WriterConnection, owner: str, steps: Sequence[Migration]) -> None:
    """Apply what is pending of one owner inside the transaction that is open; raise `MigrationRefused`, which undoes all of it."""
    rows = connection.execute("SELECT number, name FROM kernel_migrations WHERE owner = ?", (owner,))
    pending = _pending(connection, owner, steps, dict(rows.fetchall()))
    if not pending:
        return
    from sqlite_utils import Database

    database = Database(connection, recursive_triggers=False, execute_plugins=False)
    for migration in pending:
        before = _names(connection)
        error = capture(partial(migration.apply, database)) or _foreign_table(owner, before, _names(connection))
        if error is not None:
            raise MigrationRefused(f"{owner}: migration {migration.number} ({migration.name}) failed: {error}; nothing was kept") from error
        _write_down(connection, owner, migration)


def table_prefix(owner: str) -> str:
    """Return what the names of an owner's tables begin with."""
    return owner.replace("-", "_") + "_"


def _pending(connection: WriterConnection, owner: str, steps: Sequence[Migration], applied: Mapping[int, str]) -> list[Migration]:
    numbers = [step.number for step in steps]
    if numbers != list(range(1, len(steps) + 1)):
        raise MigrationRefused(f"{owner}: its migrations are numbered {numbers}; number them from 1 without holes, in order")
    newest = max(applied, default=0)
    if newest > len(steps):
        version = _version_of(connection, owner, newest)
        wrote = f", written by openclaw-kernel {version}" if version else ""
        wanted = f"openclaw-kernel {version}" if version and owner == KERNEL else f"the version of {owner} that wrote it"
        raise DatabaseNewer(
            f"{owner}: the database has migration {newest} ({applied[newest]!r}){wrote}; this version ({__version__}) knows only"
            f" {len(steps)}; install {wanted}, or a newer one"
        )
    for step in steps[:newest]:
        if applied.get(step.number) != step.name:
            raise MigrationRefused(
                f"{owner}: migration {step.number} is {step.name!r} in the code and"
                f" {applied.get(step.number)!r} in the database; a released migration never changes, add a new one"
            )
    return list(steps[newest:])


def _apply(connection: WriterConnection, owner: str, migration: Migration) -> None:
    # Costs more to import than all else here, and almost no start needs it.
    from sqlite_utils import Database

    before = _names(connection)
    database = Database(connection, recursive_triggers=False, execute_plugins=False)
    connection.reset()
    connection.begin()
    connection.mark()
    connection.migrates_kernel = owner == KERNEL
    error = capture(lambda: migration.apply(database))
    connection.migrates_kernel = False
    connection.reset()
    if error is None:
        error = _foreign_table(owner, before, _names(connection))
    if error is None:
        error = capture(lambda: _record(connection, owner, migration))
    if error is not None:
        connection.abandon()
        raise MigrationRefused(
            f"{owner}: migration {migration.number} ({migration.name}) failed: {error}; nothing of it was kept"
        ) from error


def _record(connection: WriterConnection, owner: str, migration: Migration) -> None:
    _write_down(connection, owner, migration)
    connection.keep()
    connection.end()


def _write_down(connection: sqlite3.Connection, owner: str, migration: Migration) -> None:
    row = (owner, migration.number, migration.name, time.time_ns() // 1_000_000)
    connection.execute("INSERT INTO kernel_migrations VALUES (?, ?, ?, ?)", row)
    connection.execute("INSERT OR REPLACE INTO kernel_migration_versions VALUES (?, ?, ?)", (owner, migration.number, __version__))
    if migration.batch is not None:
        connection.execute("INSERT OR REPLACE INTO kernel_migration_batches VALUES (?, ?)", (owner, migration.number))


def _version_of(connection: sqlite3.Connection, owner: str, number: int) -> str | None:
    statement = "SELECT version FROM kernel_migration_versions WHERE owner = ? AND number = ?"
    row = connection.execute(statement, (owner, number)).fetchone()
    return None if row is None else str(row[0])


def _names(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}


def _foreign_table(owner: str, before: set[str], after: set[str]) -> MigrationRefused | None:
    prefix = table_prefix(owner)
    for does, names in (("creates", after - before), ("drops", before - after)):
        wrong = sorted(name for name in names if not name.startswith((prefix, "sqlite_")))
        if wrong:
            return MigrationRefused(f"it {does} {', '.join(wrong)}; name its tables {prefix}*")
    return None
