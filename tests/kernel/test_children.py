"""S22, S27: programs on a leash, with real processes. What commands do to get away is in the tests of the tool `shell`."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from openclaw_kernel.api import Leash
from openclaw_kernel.api import children as leashes
from openclaw_kernel.api.children import MARK_VARIABLE, kill_leftovers, new_mark

PIPE = asyncio.subprocess.PIPE
linux = pytest.mark.skipif(sys.platform != "linux", reason="it needs /proc")
#: The keeper as on a system that tells nothing of other processes.
ELSEWHERE = """
import os, runpy, sys
def nothing(path):
    raise FileNotFoundError(path)
sys.platform, os.listdir = "darwin", nothing
runpy.run_path({keeper!r}, run_name="__main__")
"""


@asynccontextmanager
async def program(
    home: Path, *argv: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[Leash, asyncio.subprocess.Process]]:
    leash = Leash(home)
    try:
        yield (
            leash,
            await leash.start(
                asyncio.create_subprocess_exec,
                argv,
                environment={"PATH": os.defpath} if environment is None else environment,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
            ),
        )
    finally:
        leash.release()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until_gone(*pids: int) -> None:
    async with asyncio.timeout(10):
        while any(map(is_alive, pids)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", -signal.SIGTERM), ("kill -SEGV $$", -11)])
async def test_streams_and_status_are_the_programs(tmp_path: Path, script: str, status: int) -> None:
    async with program(tmp_path, "/bin/sh", "-c", f"cat; echo problem >&2; {script}") as (_, process):
        assert await process.communicate(b"said") == (b"said", b"problem\n")
        assert process.returncode == status


@pytest.mark.parametrize(("name", "number"), [("/no/such/program", errno.ENOENT), ("/", errno.EACCES)])
async def test_what_cannot_be_started_says_why(tmp_path: Path, name: str, number: int) -> None:
    with pytest.raises(OSError) as refused:  # noqa: PT011
        async with program(tmp_path, name):
            pass
    assert refused.value.errno == number


@pytest.mark.parametrize("own", [{}, {"LC_CTYPE": "C"}, {"LANG": "C.UTF-8", "WORD": "\udcff"}])
async def test_the_environment_is_what_was_given_and_the_mark(tmp_path: Path, own: dict[str, str]) -> None:
    async with program(tmp_path, "/usr/bin/env", environment=own) as (leash, process):
        seen, _ = await process.communicate()
    lines = sorted(seen.splitlines())
    assert lines == sorted(os.fsencode(f"{name}={value}") for name, value in {**own, MARK_VARIABLE: leash.mark}.items())


async def test_a_keeper_that_does_not_begin_is_ended_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hung = tmp_path / "hung.py"
    hung.write_text(f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n")
    monkeypatch.setattr(leashes, "_KEEPER", str(hung))
    monkeypatch.setattr(leashes, "KEEPER_SECONDS", 1.0)
    with pytest.raises(OSError, match="its keeper did not begin within 1 s"):
        async with program(tmp_path, "true"):
            raise AssertionError
    await until_gone(int((tmp_path / "pid").read_text()))


async def test_a_program_is_asked_before_it_is_killed(tmp_path: Path) -> None:
    script = "trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.02; done"
    async with program(tmp_path, "/bin/sh", "-c", script) as (leash, process):
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        leash.terminate()
        assert await process.stdout.readline() == b"asked\n"
        assert await process.wait() == 3


@linux
async def test_where_nothing_is_known_of_other_processes_the_group_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "keeper.py"
    elsewhere.write_text(ELSEWHERE.format(keeper=leashes._KEEPER))
    monkeypatch.setattr(leashes, "_KEEPER", str(elsewhere))
    async with program(tmp_path, "/bin/sh", "-c", "sleep 600 > /dev/null 2>&1 & echo $!") as (_, process):
        assert process.stdout is not None
        child = int(await process.stdout.readline())
        assert await process.wait() == 0
        await until_gone(child)
    async with program(tmp_path, "/bin/sh", "-c", "sleep 600 & echo $!; trap '' TERM; wait; wait") as (leash, process):
        assert process.stdout is not None
        child = int(await process.stdout.readline())
        leash.kill()
        assert await process.wait() == -signal.SIGKILL
        await until_gone(child)


@linux
async def test_leftovers_are_those_of_the_same_folder_and_an_earlier_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    marks = [new_mark(home), new_mark(other)]
    monkeypatch.setattr(leashes, "_START", "later")
    marks.append(new_mark(home))
    started = [
        await asyncio.create_subprocess_exec("sleep", "600", env={"PATH": os.defpath, **({MARK_VARIABLE: mark} if mark else {})})
        for mark in [*marks, ""]
    ]
    try:
        left, *others = started
        assert kill_leftovers(home) == 1
        assert await left.wait() == -signal.SIGKILL
        assert all(is_alive(process.pid) for process in others)
        assert kill_leftovers(home) == 0
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
            await process.wait()


@linux
async def test_a_gateway_that_a_leftover_started_does_not_end_itself(tmp_path: Path) -> None:
    """One that an agent starts for its own state folder has the mark of the call, as has all above it."""
    code = (
        "import os, sys; from pathlib import Path; from openclaw_kernel.api.children import kill_leftovers;"
        "print(kill_leftovers(Path(sys.argv[1])), flush=True)"
    )
    environment = {"PATH": os.defpath, MARK_VARIABLE: new_mark(tmp_path)}
    command = f"sleep 600 & {sys.executable} -c '{code}' {tmp_path}; kill -0 $! 2>/dev/null; echo $?"
    process = await asyncio.create_subprocess_exec("/bin/sh", "-c", command, env=environment, stdout=PIPE, start_new_session=True)
    said, _ = await asyncio.wait_for(process.communicate(), 30)
    assert said.split() == [b"1", b"1"]
