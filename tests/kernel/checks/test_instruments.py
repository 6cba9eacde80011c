"""What doctor's checks may ask: the machine, ports, services, leftovers and the database, each as it is."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from openclaw_kernel.api.children import MARK_VARIABLE, new_mark
from openclaw_kernel.checks.instruments import MachineInstruments
from openclaw_kernel.checks.integrity import MEMORY, IntegrityLook
from openclaw_kernel.checks.system import limits_of, listening_on, service_units, space_of
from openclaw_kernel.store.sqlite import SqliteStore


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """One as the store makes it, with rows."""
    path = tmp_path / "state.sqlite3"

    async def make() -> None:
        store = SqliteStore(path)
        await store.open({})
        await store.write(
            lambda connection: connection.execute(
                "INSERT INTO kernel_key_value WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
                " SELECT 'x', i, printf('%900d', i) FROM n"
            )
        )
        await store.close()

    asyncio.run(make())
    return path


def tools(home: Path) -> MachineInstruments:
    return MachineInstruments(home=home, database=home / "state.sqlite3")


def test_the_space_of_what_is_not_there_is_that_of_the_folder_above(tmp_path: Path) -> None:
    here, below = space_of(tmp_path), space_of(tmp_path / "not" / "there")
    assert here is not None
    assert below is not None
    assert (here.total_bytes, here.read_only) == (below.total_bytes, False)
    assert here.total_bytes > here.free_bytes > 0


def test_the_limits_are_those_of_the_process() -> None:
    limits = limits_of(None)
    with open(os.devnull) as one, open(os.devnull) as two:  # noqa: PTH123 - a device
        assert one.fileno() != two.fileno()
        more = limits_of(os.getpid())
    assert limits.open_files is not None
    assert more.open_files is not None
    assert more.open_files >= limits.open_files + 1
    assert limits.memory_bytes is not None
    assert limits.memory_bytes > 10_000_000
    assert limits.age_ms is not None
    assert 0 <= limits.age_ms < 86_400_000
    assert limits_of(0).open_files is None


def test_who_listens_on_a_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (found,) = listening_on(port)
        assert found.address == "127.0.0.1"
        assert found.pid in {os.getpid(), None}
    assert listening_on(port) == []


def test_definitions_of_services_are_found(tmp_path: Path) -> None:
    folder = tmp_path / ".config/systemd/user"
    folder.mkdir(parents=True)
    (folder / "openclaw-kernel.service").write_text("[Service]\nExecStart=/bin/true\n")
    (folder / "other.service").write_text("[Service]\n")
    found = [unit for unit in service_units(tmp_path) if unit.path.is_relative_to(tmp_path)]
    assert [(unit.path.name, unit.manager, unit.text[:9]) for unit in found] == [("openclaw-kernel.service", "systemd --user", "[Service]")]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_what_an_earlier_gateway_left_is_found_and_what_the_running_one_has_is_not(tmp_path: Path) -> None:
    left = subprocess.Popen(["/bin/sleep", "60"], env={**os.environ, MARK_VARIABLE: new_mark(tmp_path)}, start_new_session=True)
    try:
        assert [(each.pid, each.name) for each in tools(tmp_path).leftovers()] == [(left.pid, "sleep")]
        at_work = MachineInstruments(home=tmp_path, database=tmp_path / "state.sqlite3", pid=os.getpid())
        assert at_work.leftovers() == []
        assert tools(tmp_path / "other").leftovers() == []
    finally:
        left.kill()
        left.wait()


def test_who_is_said_to_hold_the_folder_may_be_gone(tmp_path: Path) -> None:
    assert tools(tmp_path).owner().pid is None
    (tmp_path / "gateway.lock").write_text(json.dumps({"pid": os.getpid(), "url": "http://127.0.0.1:1"}))
    assert (tools(tmp_path).owner().alive, tools(tmp_path).owner().url) == (True, "http://127.0.0.1:1")
    ended = subprocess.Popen(["/bin/true"])
    ended.wait()
    (tmp_path / "gateway.lock").write_text(json.dumps({"pid": ended.pid}))
    assert not tools(tmp_path).owner().alive


def test_an_address_is_asked_without_following_where_it_sends(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nDate: x\r\nContent-Length: 0\r\n\r\n")

        async def ask() -> tuple[int, str | None]:
            serving = asyncio.create_task(asyncio.to_thread(answer))
            found = await asyncio.to_thread(tools(tmp_path).ask, f"http://127.0.0.1:{port}/v1")
            await serving
            return found.status, found.headers.get("date")

        assert asyncio.run(ask()) == (302, "x")
    with pytest.raises(OSError, match="refused"):
        tools(tmp_path).ask(f"http://127.0.0.1:{port}/v1")
    with pytest.raises(OSError, match="is no http"):
        tools(tmp_path).ask("file:///etc/passwd")


def test_a_whole_database_has_no_faults_and_what_was_looked_at_is_remembered(database: Path, tmp_path: Path) -> None:
    look = IntegrityLook(database, tmp_path)
    assert look.run(30.0) == []
    assert look.left == []
    remembered = json.loads((tmp_path / MEMORY).read_text())
    assert {"quick_check kernel_key_value", "integrity_check kernel_key_value"} <= set(remembered)


def test_a_look_that_has_no_time_goes_on_with_the_rest_in_the_next(database: Path, tmp_path: Path) -> None:
    ticks = iter(range(1_000_000))
    first = IntegrityLook(database, tmp_path, clock=lambda: float(next(ticks)))
    assert first.run(6.0) == []
    assert first.left
    done = set(json.loads((tmp_path / MEMORY).read_text()))
    assert done
    assert not done & set(first.left)
    second = IntegrityLook(database, tmp_path)
    with closing(sqlite3.connect(database)) as connection:
        order = second._parts(connection, second._remembered())
    assert set(order[: len(first.left)]) == set(first.left)
    assert second.run(30.0) == []
    assert second.left == []


def test_what_is_broken_is_told_by_every_look_also_by_one_that_has_little_time(database: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE zz_last (a)")
        connection.execute("INSERT INTO zz_last VALUES (NULL)")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = 'CREATE TABLE zz_last (a NOT NULL)' WHERE name = 'zz_last'")
    fault = "zz_last: NULL value in zz_last.a"
    assert fault in IntegrityLook(database, tmp_path).run(30.0)
    ticks = iter(range(1_000_000))
    short = IntegrityLook(database, tmp_path, clock=lambda: float(next(ticks)))
    assert fault in short.run(6.0)
    assert short.left


def test_a_table_that_takes_too_long_is_cut_off(database: Path, tmp_path: Path) -> None:
    ticks = iter([0.0, 0.0, *[99.0] * 1_000_000])
    look = IntegrityLook(database, tmp_path, clock=lambda: next(ticks))
    assert look.run(1.0) == []
    assert len(look.left) > 1


def test_what_is_no_database_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite3").write_bytes(b"not a database, but long enough to be looked at" * 40)
    assert IntegrityLook(tmp_path / "state.sqlite3", tmp_path).run(5.0) == ["file is not a database"]
    assert IntegrityLook(tmp_path / "none", tmp_path).run(5.0) == []


def test_looking_takes_no_write_ahead_log_away(database: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(database)) as writer:
        writer.execute("INSERT INTO kernel_key_value VALUES ('y', 'y', 'y')")
        writer.commit()
        wal = database.with_name("state.sqlite3-wal")
        before = wal.read_bytes()
        assert before
        assert IntegrityLook(database, tmp_path).run(30.0) == []
        assert wal.read_bytes() == before


def test_the_database_tells_what_wrote_it(database: Path, tmp_path: Path) -> None:
    versions = tools(tmp_path).versions()
    assert versions.applied == versions.known
    assert tools(tmp_path / "none").versions().applied == {}
    assert database.exists()


def test_the_gateway_is_asked_once_for_each_thing_and_one_that_is_silent_once_at_all(tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(method: str, _params: Mapping[str, Any]) -> Mapping[str, Any]:
        asked.append(method)
        if method == "slow":
            raise TimeoutError("no answer")
        if method == "refused":
            raise OSError("not for you")
        return {"ok": True}

    instruments = MachineInstruments(home=tmp_path, database=tmp_path / "state.sqlite3", ask_gateway=answer)
    assert instruments.call("status") == instruments.call("status") == {"ok": True}
    for _ in range(2):
        with pytest.raises(OSError, match="not for you"):
            instruments.call("refused")
    assert instruments.call("health") == {"ok": True}
    for method in ("slow", "status"):
        with pytest.raises(TimeoutError):
            instruments.call(method)
    assert asked == ["status", "refused", "health", "slow"]
    assert tools(tmp_path).call("status") is None
