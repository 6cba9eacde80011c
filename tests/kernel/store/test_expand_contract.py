"""Migrations only add: a version reads what the one before wrote, and that one can read on."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from openclaw_kernel import __version__
from openclaw_kernel.api import Migration
from openclaw_kernel.store import migrations as module
from openclaw_kernel.store.connection import open_writer
from openclaw_kernel.store.errors import DatabaseNewer
from openclaw_kernel.store.migrations import KERNEL, KERNEL_MIGRATIONS, migrate
from openclaw_plugins.conversation.tables import MIGRATIONS as CONVERSATION
from openclaw_plugins.pairing.tables import MIGRATIONS as PAIRING

BUNDLED: Mapping[str, Sequence[Migration]] = {KERNEL: KERNEL_MIGRATIONS, "conversation": CONVERSATION, "pairing": PAIRING}
TAKES_AWAY = re.compile(r"\b(DROP\s+(TABLE|COLUMN|INDEX|VIEW|TRIGGER)|RENAME|DELETE\s+FROM|REPLACE\s+INTO)\b", re.IGNORECASE)
ADDS_A_COLUMN = re.compile(r"ALTER\s+TABLE\s+\w+\s+ADD\s+COLUMN\s+(?P<column>.+)", re.IGNORECASE)


def breaches(steps: Mapping[str, Sequence[Migration]], path: Path) -> list[str]:
    """The statements of migrations that take away what an earlier version needs."""
    connection = open_writer(path)
    seen: list[str] = []
    connection.set_trace_callback(seen.append)
    refused = migrate(connection, steps)
    connection.set_trace_callback(None)
    connection.close_for_good()
    assert refused == {}
    # The store's own writing down of what was applied is no migration.
    return [line for line in seen if "kernel_migration" not in line and not line.endswith("-- store") and _breaks(line)]


def _breaks(statement: str) -> bool:
    if TAKES_AWAY.search(statement):
        return True
    if not re.match(r"\s*ALTER\s+TABLE", statement, re.IGNORECASE):
        return False
    added = ADDS_A_COLUMN.match(statement.strip())
    # An earlier version writes rows without it.
    return added is None or ("NOT NULL" in added["column"].upper() and "DEFAULT" not in added["column"].upper())


def test_no_bundled_migration_takes_anything_away(tmp_path: Path) -> None:
    assert breaches(BUNDLED, tmp_path / "state.sqlite3") == []


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE notes_one",
        "ALTER TABLE notes_one RENAME COLUMN text TO words",
        "ALTER TABLE notes_one DROP COLUMN text",
        "ALTER TABLE notes_one ADD COLUMN size INTEGER NOT NULL",
        "DELETE FROM notes_one",
    ],
)
def test_one_that_does_is_found(tmp_path: Path, statement: str) -> None:
    create = Migration(number=1, name="one", apply=lambda db: db.execute("CREATE TABLE notes_one (id INTEGER PRIMARY KEY, text TEXT)"))
    # SQLite itself takes a NOT NULL column without a default for an empty table only from 3.53 on.
    spelt = f"{statement} /* */"

    def apply(database: object) -> None:
        if "NOT NULL" not in statement:
            database.execute(spelt)  # type: ignore[attr-defined]  # a sqlite_utils Database

    assert _breaks(spelt)
    found = breaches({"notes": (create, Migration(number=2, name="two", apply=apply))}, tmp_path / "state.sqlite3")
    assert found or "NOT NULL" in statement


ADDING = ("ALTER TABLE a ADD COLUMN b TEXT", "ALTER TABLE a ADD COLUMN b INTEGER NOT NULL DEFAULT 0", "CREATE INDEX a ON b (c)")


@pytest.mark.parametrize("statement", ADDING)
def test_one_that_adds_is_not(statement: str) -> None:
    assert not _breaks(statement)


def test_an_older_version_names_the_one_that_wrote_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Migration(number=1, name="one", apply=lambda db: db.execute("CREATE TABLE notes_one (id INTEGER)"))
    two = Migration(number=2, name="two", apply=lambda db: db.execute("CREATE TABLE notes_two (id INTEGER)"))
    connection = open_writer(tmp_path / "state.sqlite3")
    monkeypatch.setattr(module, "__version__", "7.1.0")
    migrate(connection, {"notes": (one, two)})
    monkeypatch.setattr(module, "__version__", __version__)
    refused = migrate(connection, {"notes": (one,)})
    connection.close_for_good()
    assert isinstance(refused["notes"], DatabaseNewer)
    assert f"migration 2 ('two'), written by openclaw-kernel 7.1.0; this version ({__version__}) knows only 1" in str(refused["notes"])
    assert "install the version of notes that wrote it" in str(refused["notes"])


def test_a_database_from_before_versions_were_written_down_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    connection = open_writer(path)
    migrate(connection, BUNDLED)
    connection.close_for_good()
    plain = sqlite3.connect(path)
    plain.executescript("DROP TABLE kernel_migration_versions; DROP TABLE kernel_migration_batches")
    plain.close()
    connection = open_writer(path)
    assert migrate(connection, BUNDLED) == {}
    refused = migrate(connection, {KERNEL: KERNEL_MIGRATIONS[:-1]})
    connection.close_for_good()
    assert "install the version of kernel that wrote it" in str(refused[KERNEL])
