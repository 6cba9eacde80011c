"""What of a migration grows with history is done once the gateway serves, in small writes, and gone on with after a restart."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from openclaw_kernel.api import Migration
from openclaw_kernel.store import background
from openclaw_kernel.store.background import finish
from openclaw_kernel.store.sqlite import SqliteStore

ROWS = 250
AT_ONCE = 100


def _create(database: Any) -> None:
    database.execute("CREATE TABLE notes_texts (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
    database.execute(
        "INSERT INTO notes_texts WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 250) SELECT i, 'a' FROM n"
    )


def _add(database: Any) -> None:
    database.execute("ALTER TABLE notes_texts ADD COLUMN size INTEGER")


def _fill(connection: sqlite3.Connection) -> bool:
    changed = connection.execute(
        "UPDATE notes_texts SET size = length(text) WHERE id IN (SELECT id FROM notes_texts WHERE size IS NULL LIMIT 100)"
    )
    return changed.rowcount == AT_ONCE


FIRST = Migration(number=1, name="create notes_texts", apply=_create)


def second(batch: Callable[[sqlite3.Connection], bool]) -> Migration:
    return Migration(number=2, name="sizes", apply=_add, batch=batch)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "PAUSE_SECONDS", 0.0)


async def opened(path: Path, steps: Sequence[Migration]) -> SqliteStore:
    store = SqliteStore(path)
    assert await store.open({"notes": steps}) == {}
    return store


async def number(store: SqliteStore, statement: str) -> int:
    return int(await store.read(lambda connection: connection.execute(statement).fetchone()[0]))


EMPTY = "SELECT count(*) FROM notes_texts WHERE size IS NULL"
LEFT = "SELECT count(*) FROM kernel_migration_batches"


async def test_nothing_is_filled_before_the_gateway_serves_and_all_of_it_then(tmp_path: Path) -> None:
    steps = (FIRST, second(_fill))
    store = await opened(tmp_path / "state.sqlite3", steps)
    serving = asyncio.Event()
    task = asyncio.create_task(finish(store, {"notes": steps}, serving))
    await asyncio.sleep(0)
    assert (await number(store, EMPTY), await number(store, LEFT)) == (ROWS, 1)
    serving.set()
    await task
    assert (await number(store, EMPTY), await number(store, LEFT)) == (0, 0)
    await store.close()


async def test_what_was_cut_off_goes_on_where_it_was_in_the_next_process(tmp_path: Path) -> None:
    calls: list[int] = []

    def dies(connection: sqlite3.Connection) -> bool:
        calls.append(1)
        if len(calls) == 2:
            raise OSError("killed")
        return _fill(connection)

    serving = asyncio.Event()
    serving.set()
    store = await opened(tmp_path / "state.sqlite3", (FIRST, second(dies)))
    await finish(store, {"notes": (FIRST, second(dies))}, serving)
    assert (await number(store, EMPTY), await number(store, LEFT)) == (ROWS - AT_ONCE, 1)
    await store.close()
    again = await opened(tmp_path / "state.sqlite3", (FIRST, second(_fill)))
    await finish(again, {"notes": (FIRST, second(_fill))}, serving)
    assert (await number(again, EMPTY), await number(again, LEFT)) == (0, 0)
    await again.close()


async def test_of_a_plugin_that_is_not_here_it_waits_until_that_is_back(tmp_path: Path) -> None:
    serving = asyncio.Event()
    serving.set()
    store = await opened(tmp_path / "state.sqlite3", (FIRST, second(_fill)))
    await finish(store, {}, serving)
    assert await number(store, LEFT) == 1
    await finish(store, {"notes": (FIRST, second(_fill))}, serving)
    assert await number(store, LEFT) == 0
    await store.close()


async def test_a_step_without_such_work_leaves_nothing_to_do(tmp_path: Path) -> None:
    store = await opened(tmp_path / "state.sqlite3", (FIRST,))
    assert await number(store, LEFT) == 0
    await store.close()
