"""Migrations go forward, one by one, and those of one owner do not stop another's."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from openclaw_kernel import __version__
from openclaw_kernel.api import Migration
from openclaw_kernel.store import sqlite
from openclaw_kernel.store.errors import DatabaseNewer, MigrationRefused
from openclaw_kernel.store.sqlite import SqliteStore


def step(number: int, name: str, apply: Callable[[Any], object]) -> Migration:
    def returning_nothing(database: Any) -> None:
        apply(database)

    return Migration(number=number, name=name, apply=returning_nothing)


def create(table: str) -> Callable[[Any], object]:
    return lambda database: database[table].create({"id": int, "text": str}, pk="id")


ONE = step(1, "create one", create("my_plugin_one"))
TWO = step(2, "create two", create("my_plugin_two"))


async def migrated(path: Path, migrations: Mapping[str, Sequence[Migration]]) -> Mapping[str, MigrationRefused]:
    store = SqliteStore(path)
    refused = await store.open(migrations)
    await store.close()
    return refused


def tables(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    return {name for name in names if not name.startswith(("kernel_", "sqlite_")) or name == "kernel_things"}


def ledger(path: Path) -> list[tuple[str, int, str]]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT owner, number, name FROM kernel_migrations WHERE owner != 'kernel' ORDER BY 1, 2")
    found = list(rows)
    connection.close()
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite3"


async def test_pending_steps_are_applied_once(path: Path) -> None:
    assert await migrated(path, {"my-plugin": [ONE]}) == {}
    assert await migrated(path, {"my-plugin": [ONE, TWO]}) == {}
    assert await migrated(path, {"my-plugin": [ONE, TWO]}) == {}
    assert tables(path) == {"my_plugin_one", "my_plugin_two"}
    assert ledger(path) == [("my-plugin", 1, "create one"), ("my-plugin", 2, "create two")]


async def test_a_step_that_fails_leaves_nothing_and_stops_its_owner_alone(path: Path) -> None:
    def half(database: Any) -> None:
        database["my_plugin_two"].create({"id": int})
        database["my_plugin_one"].insert({"id": 1, "text": "half"})
        raise ValueError("boom")

    refused = await migrated(
        path,
        {"my-plugin": [ONE, step(2, "half", half), step(3, "never", create("my_plugin_three"))],
         "other": [step(1, "create", create("other_things"))]},
    )  # fmt: skip
    assert str(refused["my-plugin"]) == "my-plugin: migration 2 (half) failed: boom; nothing of it was kept"
    assert list(refused) == ["my-plugin"]
    assert tables(path) == {"my_plugin_one", "other_things"}
    assert ledger(path) == [("my-plugin", 1, "create one"), ("other", 1, "create")]
    assert await migrated(path, {"my-plugin": [ONE, TWO]}) == {}


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
async def test_a_step_may_raise_anything(error: BaseException, path: Path) -> None:
    def fail(database: Any) -> None:
        raise error

    assert list(await migrated(path, {"bad": [step(1, "x", fail)], "my-plugin": [ONE]})) == ["bad"]
    assert tables(path) == {"my_plugin_one"}


async def test_a_step_cannot_commit_half_of_itself(path: Path) -> None:
    def half(database: Any) -> None:
        with database.conn:
            create("bad_one")(database)
        database.conn.commit()
        database.conn.executescript("CREATE TABLE bad_two (x); CREATE TABLE bad_three (x);")
        raise ValueError("boom")

    assert list(await migrated(path, {"bad": [step(1, "x", half)]})) == ["bad"]
    assert tables(path) == set()


async def test_what_sqlite_utils_offers_works_inside_a_step(path: Path) -> None:
    def rich(database: Any) -> None:
        table = database["my_plugin_notes"]
        table.insert_all([{"id": number, "text": f"note {number}"} for number in range(250)], pk="id")
        table.create_index(["text"])
        table.enable_fts(["text"], create_triggers=True)
        table.transform(rename={"text": "body"}, drop_foreign_keys=[])

    assert await migrated(path, {"my-plugin": [step(1, "rich", rich)]}) == {}
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*), max(body) FROM my_plugin_notes").fetchone() == (250, "note 99")
    connection.close()


async def test_a_database_of_a_newer_version_is_refused(path: Path) -> None:
    await migrated(path, {"my-plugin": [ONE, TWO]})
    refused = await migrated(path, {"my-plugin": [ONE]})
    assert isinstance(refused["my-plugin"], DatabaseNewer)
    assert str(refused["my-plugin"]) == (
        f"my-plugin: the database has migration 2 ('create two'), written by openclaw-kernel {__version__}; this version ({__version__})"
        " knows only 1; install the version of my-plugin that wrote it, or a newer one"
    )
    assert tables(path) == {"my_plugin_one", "my_plugin_two"}


async def test_a_database_of_a_newer_kernel_is_not_opened(path: Path) -> None:
    await migrated(path, {})
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO kernel_migrations VALUES ('kernel', 99, 'future', 0)")
    connection.commit()
    connection.close()
    with pytest.raises(DatabaseNewer, match="kernel: the database has migration 99"):
        await migrated(path, {})


async def test_what_is_left_of_a_plugin_that_is_gone_stays(path: Path) -> None:
    await migrated(path, {"my-plugin": [ONE, TWO]})
    assert await migrated(path, {}) == {}
    assert tables(path) == {"my_plugin_one", "my_plugin_two"}


NUMBERS = [[2], [1, 3], [2, 1], [1, 1], [0, 1]]


@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
async def test_steps_are_numbered_without_holes(numbers: list[int], path: Path) -> None:
    steps = [step(number, "x", create(f"my_plugin_{number}")) for number in numbers]
    refused = await migrated(path, {"my-plugin": steps})
    assert f"its migrations are numbered {numbers}; number them from 1 without holes" in str(refused["my-plugin"])
    assert tables(path) == set()


async def test_a_released_step_never_changes(path: Path) -> None:
    await migrated(path, {"my-plugin": [ONE]})
    refused = await migrated(path, {"my-plugin": [step(1, "create other", create("my_plugin_other"))]})
    assert "migration 1 is 'create other' in the code and 'create one' in the database" in str(refused["my-plugin"])


@pytest.mark.parametrize("table", ["things", "other_things", "my_pluginthings", "kernel_things"])
async def test_a_table_carries_its_owners_prefix(table: str, path: Path) -> None:
    refused = await migrated(path, {"my-plugin": [step(1, "x", create(table))]})
    assert f"it creates {table}; name its tables my_plugin_*" in str(refused["my-plugin"])
    assert tables(path) == set()


def test_sqlite_utils_is_imported_only_when_a_step_is_pending(path: Path) -> None:
    script = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom openclaw_kernel.store.sqlite import SqliteStore\n"
        f"async def main():\n    store = SqliteStore(Path({str(path)!r}))\n    await store.open({{}})\n    await store.close()\n"
        "asyncio.run(main())\nprint('sqlite_utils' in sys.modules)"
    )
    said = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() for _ in range(2)]
    assert said == ["True", "False"]


async def test_a_step_that_drops_the_table_of_another_is_refused(path: Path) -> None:
    assert await migrated(path, {"other": [step(1, "make", lambda database: database.create_table("other_things", {"id": int}))]}) == {}
    refused = await migrated(path, {"my-plugin": [step(1, "drop", lambda database: database["other_things"].drop())]})
    assert "it drops other_things; name its tables my_plugin_*; nothing of it was kept" in str(refused["my-plugin"])
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM other_things").fetchone() == (0,)
    connection.close()


async def test_a_step_that_takes_long_is_named_while_it_does(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite, "WATCH_SECONDS", 0.05)
    assert await migrated(path, {"slow": [step(1, "fill", lambda _database: time.sleep(0.3))]}) == {}
    assert "slow: migration 1 (fill) has not ended for 0." in caplog.text
    assert "the start waits for it" in caplog.text


async def test_what_a_step_sets_for_itself_ends_with_it(path: Path) -> None:
    def rows_of_its_own(database: Any) -> None:
        database.conn.row_factory = lambda _cursor, _row: "mine"

    assert await migrated(path, {"a": [step(1, "x", rows_of_its_own)], "b": [step(1, "y", lambda _database: None)]}) == {}
    assert await migrated(path, {"a": [step(1, "x", rows_of_its_own)], "b": [step(1, "y", lambda _database: None)]}) == {}
