"""A program that the gateway runs to its end: what it says is bounded, and nothing of it holds up who waits."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from openclaw_kernel.api.errors import InvalidRequest, Unavailable
from openclaw_kernel.handover.candidate import Candidate
from openclaw_kernel.programs import KEPT_BYTES, run_to_end
from tests.plugins.conversation.harness import until

FLOOD = """
import sys
for stream in (sys.stdout, sys.stderr):
    for _ in range(64):
        stream.write("x" * 65_536)
    stream.write("the last words")
"""
# The one that is started keeps the output open, in a session of its own, and takes no notice of signals.
HANGS = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
open(sys.argv[1] + "/" + str(os.getpid()), "w").close()
time.sleep(600)
"""


async def test_of_what_it_says_the_end_is_kept(tmp_path: Path) -> None:
    ended = await run_to_end([sys.executable, "-c", FLOOD], home=tmp_path, environment=os.environ, seconds=30)
    assert ended.status == 0
    for said in (ended.out, ended.err):
        assert len(said) == KEPT_BYTES
        assert said.endswith(b"xthe last words")


async def test_one_that_hangs_is_killed_with_all_that_came_of_it(tmp_path: Path) -> None:
    descriptors = _descriptors()
    with pytest.raises(TimeoutError):
        await run_to_end([sys.executable, "-c", HANGS, str(tmp_path)], home=tmp_path, environment=os.environ, seconds=2)
    pids = [int(each.name) for each in tmp_path.iterdir()]
    assert len(pids) == 2
    await until(lambda: not any(_runs(pid) for pid in pids), "their end")
    assert _descriptors() == descriptors


async def test_a_next_start_that_hangs_with_a_child_of_its_own_keeps_nobody_waiting(tmp_path: Path) -> None:
    candidate = Candidate([sys.executable, "-c", HANGS, str(tmp_path)], home=tmp_path, environment=os.environ, seconds=2)
    with pytest.raises(Unavailable, match="was not checked within 2 s"):
        await candidate.try_out()


async def test_a_next_start_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    candidate = Candidate([str(tmp_path / "gone")], home=tmp_path, environment=os.environ)
    with pytest.raises(InvalidRequest, match=r"gone cannot be run again \(no such file or directory\)"):
        await candidate.try_out()


async def test_a_next_start_that_floods_is_told_by_its_last_words(tmp_path: Path) -> None:
    program = FLOOD + "sys.stderr.write('\\nit broke')\nsys.exit(3)\n"
    candidate = Candidate([sys.executable, "-c", program], home=tmp_path, environment=os.environ)
    with pytest.raises(InvalidRequest, match=r"the gateway could not start again: .*it broke"):
        await candidate.try_out()


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in {"Z", "X"}
