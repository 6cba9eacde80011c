"""What a write returned from is on disk; what went wrong in one work harms no other."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from openclaw_kernel.api import Migration, Unavailable
from openclaw_kernel.store import lane
from openclaw_kernel.store.connection import WriterConnection, split_statements
from openclaw_kernel.store.errors import StoreBusy, StoreClosed, StoreDamaged, StoreError, StoreFull, StoreTransactionLost, StoreUnreachable
from openclaw_kernel.store.sqlite import SqliteStore

ITEMS = Migration(
    number=1,
    name="create items",
    apply=lambda database: database.create_table("test_items", {"id": int, "text": str}, pk="id"),
)


def insert(text: str, number: int | None = None) -> Callable[[sqlite3.Connection], int]:
    def work(connection: sqlite3.Connection) -> int:
        cursor = connection.execute("INSERT INTO test_items (id, text) VALUES (?, ?)", (number, text))
        return cursor.lastrowid or 0

    return work


def texts(connection: sqlite3.Connection) -> list[str]:
    return [text for (text,) in connection.execute("SELECT text FROM test_items ORDER BY id")]


def tune(store: SqliteStore, pragma: str) -> None:
    """Set on the writing connection what no work may."""
    assert store._writer is not None
    (connection,) = store._writer.connections
    assert isinstance(connection, WriterConnection)
    connection._control(pragma)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "state.sqlite3"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(path)
    assert await opened.open({"test": [ITEMS]}) == {}
    yield opened
    await opened.close()


async def test_a_write_is_read_back(store: SqliteStore) -> None:
    assert await store.write(insert("one")) == 1
    assert await store.read(texts) == ["one"]


async def test_the_files_belong_to_their_owner_alone(store: SqliteStore, path: Path) -> None:
    await store.write(insert("one"))
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"state.sqlite3": 0o600, "state.sqlite3-wal": 0o600, "state.sqlite3-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_file_others_could_read_is_closed_to_them(path: Path) -> None:
    path.parent.mkdir()
    path.touch(0o644)
    opened = SqliteStore(path)
    await opened.open({})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await opened.close()


async def test_the_writer_is_set_for_durability(store: SqliteStore) -> None:
    def pragmas(connection: sqlite3.Connection) -> list[Any]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await store.write(pragmas) == ["wal", 2, 1, 5000]


async def test_an_exception_undoes_its_own_work_only(store: SqliteStore) -> None:
    def half(connection: sqlite3.Connection) -> None:
        insert("half")(connection)
        raise ValueError("boom")

    results = await asyncio.gather(store.write(insert("one")), store.write(half), store.write(insert("two")), return_exceptions=True)
    assert [type(result) for result in results] == [int, ValueError, int]
    assert await store.read(texts) == ["one", "two"]


async def test_a_constraint_is_the_callers_to_handle(store: SqliteStore) -> None:
    await store.write(insert("one", 1))
    with pytest.raises(sqlite3.IntegrityError):
        await store.write(insert("one again", 1))


class Held:
    """Keeps the writing thread busy, so that what is written meanwhile forms one group."""

    def __init__(self, store: SqliteStore) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()
        self.task = asyncio.ensure_future(store.write(self._wait))

    def _wait(self, connection: sqlite3.Connection) -> None:
        self.entered.set()
        assert self.release.wait(10)


async def held(store: SqliteStore) -> Held:
    blocker = Held(store)
    assert await asyncio.to_thread(blocker.entered.wait, 5)
    return blocker


async def test_works_that_waited_share_one_commit(store: SqliteStore) -> None:
    statements: list[str] = []
    await store.write(lambda connection: connection.set_trace_callback(statements.append))
    blocker = await held(store)
    writes = [asyncio.ensure_future(store.write(insert(str(number)))) for number in range(100)]
    await asyncio.sleep(0)
    blocker.release.set()
    await asyncio.gather(blocker.task, *writes)
    # The first call's own, the blocker's, and one for the hundred.
    assert len([statement for statement in statements if statement.startswith("COMMIT")]) == 3
    assert len(await store.read(texts)) == 100


async def test_a_commit_that_fails_fails_its_whole_group(store: SqliteStore) -> None:
    await store.write(
        lambda connection: connection.executescript(
            "CREATE TABLE test_parent (id INTEGER PRIMARY KEY);"
            "CREATE TABLE test_child (parent INTEGER REFERENCES test_parent DEFERRABLE INITIALLY DEFERRED);"
        )
    )
    blocker = await held(store)
    group = [
        asyncio.ensure_future(store.write(insert("one"))),
        asyncio.ensure_future(store.write(lambda connection: connection.execute("INSERT INTO test_child VALUES (7)"))),
    ]
    await asyncio.sleep(0)
    blocker.release.set()
    results = await asyncio.gather(blocker.task, *group, return_exceptions=True)
    assert results[0] is None
    assert [type(result) for result in results[1:]] == [sqlite3.IntegrityError, sqlite3.IntegrityError]
    assert await store.read(texts) == []
    await store.write(insert("after"))
    assert await store.read(texts) == ["after"]


async def test_a_caller_that_is_cancelled_breaks_nothing(store: SqliteStore) -> None:
    blocker = await held(store)
    given_up = asyncio.ensure_future(store.write(insert("given up")))
    kept = asyncio.ensure_future(store.write(insert("kept")))
    await asyncio.sleep(0)
    given_up.cancel()
    blocker.release.set()
    await asyncio.gather(blocker.task, kept)
    assert given_up.cancelled()
    assert await store.read(texts) == ["given up", "kept"]


async def test_a_full_queue_makes_its_callers_wait(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane.Lane.__init__, "__kwdefaults__", {"group_limit": 3, "queue_limit": 5})
    store = SqliteStore(path)
    await store.open({"test": [ITEMS]})
    blocker = await held(store)
    writes = [asyncio.ensure_future(store.write(insert(str(number)))) for number in range(50)]
    await asyncio.sleep(0)
    assert store._writer is not None
    assert store._writer._queue.qsize() == 4
    writes[20].cancel()
    blocker.release.set()
    results = await asyncio.gather(blocker.task, *writes, return_exceptions=True)
    assert [result for result in results if isinstance(result, Exception)] == []
    assert len(await store.read(texts)) == 49
    await store.close()


async def test_a_work_that_takes_long_is_named(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lane, "SLOW_SECONDS", 0.0)
    await store.write(insert("one"))
    await store.close()
    assert "test_sqlite.insert.<locals>.work; make the works smaller" in caplog.text


FORBIDDEN = ["COMMIT", "ROLLBACK", "BEGIN", "END", "ATTACH ':memory:' AS other", "RELEASE kernel_work", "ROLLBACK TO kernel_work"]
FORBIDDEN += ["PRAGMA query_only = ON", "PRAGMA Synchronous = OFF", "PRAGMA main.journal_mode = DELETE", "PRAGMA hard_heap_limit = 1"]


@pytest.mark.parametrize("statement", FORBIDDEN)
async def test_a_work_cannot_end_the_transaction_of_all(statement: str, store: SqliteStore) -> None:
    await store.write(insert("before"))
    with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
        await store.write(lambda connection: connection.execute(statement))
    await store.write(insert("after"))
    assert await store.read(texts) == ["before", "after"]


async def test_a_neighbour_in_the_group_survives_what_is_forbidden(store: SqliteStore) -> None:
    blocker = await held(store)
    works = [asyncio.ensure_future(store.write(work)) for work in (insert("one"), *map(statement, FORBIDDEN), insert("two"))]
    await asyncio.sleep(0)
    blocker.release.set()
    results = await asyncio.gather(*works, return_exceptions=True)
    assert [isinstance(result, Exception) for result in results] == [False, *[True] * len(FORBIDDEN), False]
    assert await store.read(texts) == ["one", "two"]


def statement(text: str) -> Callable[[sqlite3.Connection], Any]:
    return lambda connection: connection.execute(text)


async def test_a_work_may_ask_and_have_savepoints_of_its_own(store: SqliteStore) -> None:
    def work(connection: sqlite3.Connection) -> list[str]:
        connection.execute("SAVEPOINT mine")
        insert("undone")(connection)
        connection.execute("ROLLBACK TO mine")
        connection.execute("RELEASE mine")
        insert("kept")(connection)
        return [row[1] for row in connection.execute("PRAGMA table_info(test_items)")]

    assert await store.write(work) == ["id", "text"]
    assert await store.read(texts) == ["kept"]


async def test_a_work_cannot_close_the_connection_of_all_nor_change_what_it_returns(store: SqliteStore) -> None:
    def work(connection: sqlite3.Connection) -> None:
        with closing(connection):
            connection.row_factory = lambda _cursor, _row: "a row of mine"
            connection.text_factory = bytes

    for call in (store.write, store.read, store.read, store.read):
        await call(work)
        await store.write(insert("one"))
        assert {tuple(row) for row in await call(lambda connection: connection.execute("SELECT text FROM test_items").fetchall())} == {
            ("one",)
        }


async def test_a_work_that_would_read_later_is_refused(store: SqliteStore) -> None:
    async def asynchronous(connection: sqlite3.Connection) -> None: ...

    for call in (store.write, store.read):
        with pytest.raises(TypeError, match="is async; make it a plain function"):
            _ = await call(asynchronous)
        with pytest.raises(TypeError, match="returned a generator, which reads later; return a list"):
            await call(lambda connection: (row for row in connection.execute("SELECT 1")))


async def test_a_work_that_hangs_is_named_while_it_hangs(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "WATCH_SECONDS", 0.1)
    warnings: asyncio.Queue[str] = asyncio.Queue()
    monkeypatch.setattr(lane.logger, "warning", lambda text, *arguments: warnings.put_nowait(text % arguments))
    blocker = await held(store)
    waiting = asyncio.ensure_future(store.write(insert("one")))
    for _ in range(2):
        warning = await asyncio.wait_for(warnings.get(), 5)
        assert "store-writer: tests.kernel.store.test_sqlite.Held._wait has not ended for" in warning
        assert "everything behind it waits" in warning
    assert not waiting.done()
    blocker.release.set()
    await waiting


@pytest.mark.parametrize("way", ["write", "read"])
async def test_a_statement_that_does_not_end_is_broken_off(way: str, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "WATCH_SECONDS", 0.1)
    monkeypatch.setattr(lane, "STUCK_SECONDS", 0.2)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        await asyncio.wait_for(getattr(store, way)(lambda connection: connection.execute(endless).fetchone()), 10)
    await store.write(insert("after"))
    assert await store.read(texts) == ["after"]


class Nameless:
    """A work whose name cannot be had."""

    @property
    def __module__(self) -> str:  # type: ignore[override]
        raise ValueError("boom")

    def __call__(self, connection: sqlite3.Connection) -> int:
        return 3


async def test_a_work_without_a_name_does_not_end_the_thread(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "SLOW_SECONDS", 0.0)
    for call in (store.write, store.read):
        assert await call(Nameless()) == 3
        assert await asyncio.wait_for(call(lambda _connection: 4), 5) == 4


async def test_a_fault_of_the_writer_itself_fails_its_group_alone(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(_connection: WriterConnection) -> None:
        raise MemoryError

    with monkeypatch.context() as broken:
        broken.setattr(WriterConnection, "end", end)
        with pytest.raises(StoreError, match="writing failed"):
            await asyncio.wait_for(store.write(insert("lost")), 5)
    await asyncio.wait_for(store.write(insert("after")), 5)
    assert await store.read(texts) == ["after"]


async def test_the_fault_of_a_work_nobody_waits_for_is_logged(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    blocker = await held(store)
    gone = asyncio.ensure_future(store.write(statement("SELECT * FROM nowhere")))
    await asyncio.sleep(0)
    gone.cancel()
    blocker.release.set()
    await store.write(insert("one"))
    assert "nobody waits any more for tests.kernel.store.test_sqlite.statement.<locals>.<lambda>, which failed" in caplog.text


@pytest.mark.parametrize("name", ["a b.sqlite3", "what?mode=ro#x%20.sqlite3", "sn\u00f6w \u2603.sqlite3", "'quo\"ted'.sqlite3", "file:x"])
async def test_a_path_may_hold_any_character(name: str, tmp_path: Path) -> None:
    opened = SqliteStore(tmp_path / name)
    await opened.open({"test": [ITEMS]})
    await opened.write(insert("one"))
    assert await opened.read(texts) == ["one"]
    await opened.close()
    assert [file.name for file in tmp_path.iterdir()] == [name]


async def test_ten_thousand_writes_at_once_are_all_written(store: SqliteStore) -> None:
    await asyncio.gather(*(store.write(insert(str(number))) for number in range(10_000)))
    assert len(await store.read(texts)) == 10_000


async def test_the_usual_ways_to_commit_do_no_harm(store: SqliteStore) -> None:
    def work(connection: sqlite3.Connection) -> None:
        with connection:
            insert("kept")(connection)
        connection.commit()
        insert("undone")(connection)
        connection.rollback()

    # `rollback` undoes what the work did since it began.
    await store.write(work)
    assert await store.read(texts) == []


async def test_a_cursor_that_is_returned_is_closed(store: SqliteStore) -> None:
    returning = "INSERT INTO test_items (text) VALUES ('one'), ('two') RETURNING id"
    assert await store.write(lambda connection: connection.execute(returning)) is None
    assert await store.read(texts) == ["one", "two"]


@pytest.mark.parametrize("error", [SystemExit(3), StopIteration(3), KeyboardInterrupt()])
async def test_no_exception_of_a_work_ends_the_thread_or_the_loop(error: BaseException, store: SqliteStore) -> None:
    def work(connection: sqlite3.Connection) -> None:
        raise error

    for call in (store.write, store.read):
        with pytest.raises(StoreError, match="raise an ordinary exception") as raised:
            await call(work)
        assert raised.value.__cause__ is error
    await store.write(insert("after"))


async def test_a_read_sees_one_state_from_begin_to_end(store: SqliteStore) -> None:
    await store.write(insert("one"))
    began, go_on = threading.Event(), threading.Event()

    def look_twice(connection: sqlite3.Connection) -> tuple[list[str], list[str]]:
        first = texts(connection)
        began.set()
        assert go_on.wait(10)
        return first, texts(connection)

    reading = asyncio.ensure_future(store.read(look_twice))
    assert await asyncio.to_thread(began.wait, 5)
    await store.write(insert("two"))
    assert await store.read(texts) == ["one", "two"]
    go_on.set()
    assert await reading == (["one"], ["one"])


async def test_a_read_cannot_write(store: SqliteStore) -> None:
    with pytest.raises(StoreUnreachable, match="a read cannot write"):
        await store.read(insert("one"))
    assert await store.read(texts) == []


async def test_nothing_is_taken_once_it_is_closed(store: SqliteStore, path: Path) -> None:
    writes = [asyncio.ensure_future(store.write(insert(str(number)))) for number in range(300)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*writes)
    for call in (store.write, store.read):
        with pytest.raises(StoreClosed):
            await call(texts)
    await store.close()
    with sqlite3.connect(path) as connection:
        assert len(texts(connection)) == 300
    connection.close()
    assert [file.name for file in path.parent.iterdir()] == ["state.sqlite3"]


async def test_it_must_be_opened_first_and_once(path: Path) -> None:
    store = SqliteStore(path)
    for call in (store.write, store.read):
        with pytest.raises(StoreClosed, match="the store is not open"):
            await call(texts)
    await store.open({})
    with pytest.raises(StoreError, match="open already"):
        await store.open({})
    await store.close()


async def test_a_file_that_is_no_database_is_named(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(StoreDamaged, match="file is not a database; move the file away or restore it from a backup"):
        await SqliteStore(path).open({})


async def test_a_folder_in_its_place_is_named(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreUnreachable, match="make the file and its folder ours and writable"):
        await SqliteStore(path).open({})


async def test_a_second_writer_is_named_as_such(store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tune(store, "PRAGMA busy_timeout = 50")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy, match="stop the other process that has the file open") as busy:
        await store.write(insert("one"))
    assert busy.value.to_wire()["retryable"] is True
    other.execute("ROLLBACK")
    other.close()
    await store.write(insert("two"))
    assert await store.read(texts) == ["two"]


async def test_a_full_database_fails_the_writes_that_do_not_fit(store: SqliteStore) -> None:
    await store.write(insert("before"))
    tune(store, "PRAGMA max_page_count = 40")
    writes = [store.write(insert("x" * 30_000)) for _ in range(9)]
    results = await asyncio.gather(*writes, return_exceptions=True)
    errors = [result for result in results if isinstance(result, Exception)]
    assert errors
    assert {type(error) for error in errors} <= {StoreFull, StoreTransactionLost}
    assert "free space on its disk" in "".join(map(str, errors))
    await store.write(insert("after"))
    found = await store.read(texts)
    assert (found[0], found[-1], len(found)) == ("before", "after", 11 - len(errors))


BROKEN_DISK = """
import asyncio, resource, signal, sys
from pathlib import Path
from openclaw_kernel.store.errors import StoreError
from openclaw_kernel.store.sqlite import SqliteStore
from tests.kernel.store.test_sqlite import ITEMS, insert, texts

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.open({"test": [ITEMS]})
    await store.write(insert("before"))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    results = await asyncio.gather(*(store.write(insert("x" * 100_000)) for _ in range(9)), return_exceptions=True)
    errors = [result for result in results if isinstance(result, StoreError)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.write(insert("after"))
    found = await store.read(texts)
    await store.close()
    print(len(errors) > 0, {type(error).__name__ for error in errors}, found[0], found[-1], len(found) == 11 - len(errors))

asyncio.run(main())
"""


def test_a_disk_that_takes_no_more_fails_the_writes_and_nothing_else(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", BROKEN_DISK, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "{'StoreUnreachable'}", "before", "after", "True"]


KILLED = """
import asyncio, sys
from pathlib import Path
from openclaw_kernel.store.sqlite import SqliteStore
from tests.kernel.store.test_sqlite import ITEMS, insert

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.open({"test": [ITEMS]})
    async def write(number):
        await store.write(insert(str(number), number))
        print(number, flush=True)
    for start in range(1, 10_000_000, 10):
        await asyncio.gather(*(write(number) for number in range(start, start + 10)))

asyncio.run(main())
"""


def write_until_killed(path: Path) -> list[int]:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        answered = [int(process.stdout.readline()) for _ in range(500)]
        os.kill(process.pid, signal.SIGKILL)
        return answered + [int(line) for line in process.stdout.read().splitlines() if line]


async def test_what_was_answered_outlives_a_kill(path: Path) -> None:
    answered = await asyncio.to_thread(write_until_killed, path)
    store = SqliteStore(path)
    await store.open({"test": [ITEMS]})
    kept = {int(text) for text in await store.read(texts)}
    assert kept >= set(answered)
    assert await store.read(lambda connection: connection.execute("PRAGMA integrity_check").fetchone()) == ("ok",)
    await store.close()


def test_a_fault_of_the_store_is_unavailable_on_the_wire() -> None:
    assert issubclass(StoreFull, Unavailable)
    assert StoreFull("x").to_wire()["code"] == "UNAVAILABLE"


def test_a_script_is_split_at_its_statements() -> None:
    script = "CREATE TABLE a (x); -- one; two\nCREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM a; END; SELECT ';'"
    statements = [statement.strip() for statement in split_statements(script)]
    assert len(statements) == 3
    assert statements[1].endswith("END;")
