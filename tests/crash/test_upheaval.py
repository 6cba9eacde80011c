"""Operators change, restart and break things while the gateway is killed; and what is to be found of that is found."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from openclaw_kernel.generations.attempts import FILE, Attempts
from openclaw_kernel.generations.files import FOLDER
from openclaw_kernel.lock import StateLock
from tests.crash import aftermath
from tests.crash.block import Kill
from tests.crash.changes import FAULTS, KINDS, Change, Changes
from tests.crash.soak import Grounds, grounds
from tests.crash.upheaval import Upheaval
from tests.support.gateway import StartGateway

HOT = {"session": {"queueLimit": 1001}}
UNIT = {"channels": {"telegram": {"pollTimeoutSeconds": 4}}}
RESTARTING = {"plugins": {"entries": {"spare": {"config": {"number": 1}}}}}
# How each cycle ends, and what operators are at.
PLAN: tuple[tuple[Kill, tuple[Change, ...]], ...] = (
    (Kill("rename to openclaw.yaml before"), (Change("patch", 0.0, HOT),)),
    (Kill("exec before"), (Change("restart", 0.0),)),
    (Kill("exec after"), (Change("patch", 0.0, RESTARTING),)),
    (Kill(after=0.8), (Change("signal", 0.0),)),
    (Kill(after=0.8), (Change("kill child", 0.0), Change("set", 0.0, UNIT))),
    (Kill("rename to last-good before"), (Change("save", 0.0, {"session": {"queueLimit": 1002}}),)),
    (Kill(after=0.8), (Change("reload", 0.0), Change("hang up", 0.0), Change("toggle", 0.0))),
    (Kill(after=0.4, gently=True), (Change("break", 0.0, {}, fault="cut off"),)),
)


@pytest.mark.timeout(400)
async def test_whatever_operators_are_at_when_it_is_killed_the_next_start_finds_whole(tmp_path: Path) -> None:
    """P1, P2, P4, P5: eight cycles of `make crash`, always the same."""
    async with grounds(tmp_path, seed=3) as shared, shared.block(0, "isolated") as block:
        assert isinstance(block, Upheaval)
        block.restarts_at_rest = 1
        waves = iter([changes for _, changes in PLAN])
        block.draw = lambda: next(waves)
        outcome = await block.run([kill for kill, _ in PLAN])
    assert outcome.violations == [], "\n".join(outcome.violations)
    assert outcome.kills == len(PLAN)
    assert {"exec before", "exec after", "rename to openclaw.yaml before"} <= set(outcome.died_at)


def test_the_same_seed_draws_the_same_changes_and_all_kinds_of_them() -> None:
    def drawn() -> list[Change]:
        changes = Changes(Random("3 1"))  # noqa: S311 - drawn so that it can be drawn again
        return [change for _ in range(200) for change in changes.wave()]

    assert drawn() == drawn()
    assert {change.kind for change in drawn()} == set(KINDS)
    assert {change.fault for change in drawn()} == {"", *FAULTS}


# --- what a check has to find ------------------------------------------------------------------------------------------


@pytest.fixture
async def home(start_gateway: StartGateway) -> Path:
    """What a gateway leaves that took a change and was killed."""
    gateway = await start_gateway()
    async with gateway.connect() as client:
        found = await client.request("config.get")
        await client.request("config.patch", {"raw": '{"session": {"queueLimit": 7}}', "baseHash": found["hash"]})
    await gateway.kill()
    return gateway.home


def lines_of(home: Path) -> list[str]:
    checks = (aftermath.free, aftermath.generations, aftermath.chained, aftermath.bounded, aftermath.not_counted)
    return [line for check in checks for line in check(home)]


def cut_generation(home: Path) -> None:
    newest = aftermath.newest_generation(home)
    assert newest is not None
    path = home / FOLDER / f"{newest.files['openclaw.yaml']}.yaml"
    path.write_bytes(path.read_bytes()[:20])


def change_hash(home: Path) -> None:
    with closing(sqlite3.connect(home / aftermath.DATABASE)) as connection:
        connection.execute("UPDATE kernel_generations SET hash = 'another'")
        connection.commit()


def cut_last_good(home: Path) -> None:
    (home / FOLDER / "last-good").write_text('{"number": 2, "fi')


def change_audit(home: Path) -> None:
    with closing(sqlite3.connect(home / aftermath.DATABASE)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'kernel_audit'").fetchall():
            connection.execute(f'DROP TRIGGER "{name}"')
        connection.execute("DELETE FROM kernel_audit WHERE rowid = (SELECT min(rowid) + 1 FROM kernel_audit)")
        connection.commit()


def litter(home: Path) -> None:
    for number in range(aftermath.MOST_TEMPORARY + 1):
        (home / f".openclaw.yaml.{number:012}.new").touch()


def count_death(home: Path) -> None:
    attempts = Attempts(home)
    attempts.begin(safe=False)
    assert (home / FOLDER / FILE).exists()


async def test_what_a_kill_must_not_leave_is_found(home: Path, tmp_path: Path) -> None:
    assert lines_of(home) == []
    spoils: list[tuple[Callable[[Path], None], str]] = [
        (cut_generation, "cannot be read"),
        (change_hash, "has the hash another"),
        (cut_last_good, "last-good cannot be read"),
        (change_audit, "the audit log does not verify"),
        (litter, "temporary files are left"),
        (count_death, "P2: 1 starts count as died"),
    ]
    for number, (spoil, words) in enumerate(spoils):
        spoiled = tmp_path / str(number)
        shutil.copytree(home, spoiled)
        spoil(spoiled)
        assert any(words in line for line in lines_of(spoiled)), spoil


def test_a_lock_that_somebody_still_holds_is_found(tmp_path: Path) -> None:
    lock = StateLock(tmp_path)
    lock.acquire()
    assert len(list(aftermath.free(tmp_path))) == 1
    lock.release()
    assert list(aftermath.free(tmp_path)) == []


async def test_a_process_that_outlives_it_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aftermath, "PROCESS_SECONDS", 0.0)
    assert await aftermath.alone(tmp_path) == []
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", str(tmp_path), stdin=asyncio.subprocess.PIPE)
    try:
        assert [f"a process outlived the gateway: {process.pid}" in line for line in await aftermath.alone(tmp_path)] == [True]
    finally:
        process.kill()
        await process.wait()


def test_a_descriptor_that_outlives_a_restart_is_found(tmp_path: Path) -> None:
    log = tmp_path / "execs"
    told = [{"exec": "begins"}, {"exec": "done", "strays": []}, {"exec": "begins"}, {"exec": "done", "strays": ["anon_inode:inotify"]}]
    log.write_text("".join(f"{json.dumps(line)}\n" for line in told))
    assert aftermath.executed(log) == (2, ["over a restart stayed open: anon_inode:inotify"])
    assert aftermath.executed(tmp_path / "none") == (0, [])


@pytest.fixture
async def shared(tmp_path: Path) -> AsyncIterator[Grounds]:
    async with grounds(tmp_path, 1) as made:
        yield made


async def test_a_config_that_is_not_written_whole_is_found(shared: Grounds) -> None:
    for number, sabotage in enumerate((None, "write in place"), 1):
        async with shared.block(number, "changing", sabotage=sabotage) as block:
            assert isinstance(block, Upheaval)
            block.draw = lambda: [Change("patch", 0.0, {"session": {"queueLimit": 77}})]
            await block.cycle(Kill("rename to openclaw.yaml before"))
            assert block.outcome.died_at
        lines = [line for line in block.outcome.violations if "openclaw.yaml is none of" in line]
        assert bool(lines) == (sabotage is not None), block.outcome
