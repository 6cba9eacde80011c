"""Every frame that a gateway sends in any test is recorded and judged; one violation fails the test that caused it.

A test whose gateway answers with what the contract does not know says so, with the reason, and names what is not looked at::

    pytestmark = pytest.mark.payloads_not_judged("the methods are the test's own")
    @pytest.mark.payloads_not_judged("a plugin breaks its promise", "status")

Envelopes, order and sequence are judged all the same. A process that runs a gateway and is not recorded fails its test, but where
the test says `@pytest.mark.not_recorded("why")`.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import contract
from tests.support.judge import EVERYTHING, Judge
from tests.support.parallel import WorkerDone, report_judged
from tests.support.recorder import Recorder

RECORDER = Path(__file__).with_name("recorder.py")
SHOWN = 5
_CURRENT: list[FrameWatch] = []

# `python -m openclaw_kernel run`, `openclaw-kernel run`, `make run`, also as one line for a shell.
_GATEWAY = re.compile(r"openclaw[_-]kernel(/__main__\.py)?( -\S+( \S+)?)* run\b|\bmake( \S+)* run\b")


def recorded(executable: str, *options: str) -> list[str]:
    """The words for `openclaw-kernel` in a process that is recorded, its command follows; a plain one outside a test session."""
    if not _CURRENT:
        return [executable, *options, "-m", "openclaw_kernel"]
    return [executable, "-P", *options, str(RECORDER), str(_CURRENT[-1].folder)]


class FrameWatch:
    """Reads what was recorded after each test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds = 0.0
        self.spawned_unrecorded: list[str] = []
        self._judges: dict[str, tuple[Judge, int]] = {}
        self._own = Judge()
        self._own_records: list[bytes] = []
        self._frames_before = 0
        self._recorder = Recorder(self._own_records.append)

    @property
    def frames(self) -> int:
        """How many frames were judged."""
        return self._frames_before + self._own.frames + sum(judge.frames for judge, _ in self._judges.values())

    def add(self, frames: int, seconds: float) -> None:
        """Count what another process of the session judged."""
        self._frames_before += frames
        self.seconds += seconds

    def start(self) -> None:
        """Record the gateways in this process, and watch for processes that are not recorded."""
        self._recorder.install()
        _CURRENT.append(self)
        sys.addaudithook(self._audit)

    def stop(self) -> None:
        """The session is over."""
        self._recorder.remove()
        _CURRENT.remove(self)

    def problems(self, unjudged: Collection[str]) -> Iterator[str]:
        """Judge what came since the last time."""
        records = b"".join(self._own_records)
        self._own_records.clear()
        yield from self._own.feed(records, unjudged=unjudged)
        for path in sorted(self.folder.glob("*.frames")):
            judge, offset = self._judges.get(path.name, (Judge(), 0))
            # Asked before its file is read: what a process writes until it ends is not thrown away with it.
            is_running = _is_running(int(path.name.partition(".")[0]))
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read()
            yield from judge.feed(data, unjudged=unjudged)
            if is_running:
                self._judges[path.name] = (judge, offset + len(data))
            else:
                self._frames_before += judge.frames
                self._judges.pop(path.name, None)
                path.unlink()

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "subprocess.Popen" or self not in _CURRENT:
            return
        words = arguments[1]
        line = words if isinstance(words, str) else " ".join(os.fsdecode(word) for word in words)
        if _GATEWAY.search(line):
            self.spawned_unrecorded.append(line)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


WATCH = pytest.StashKey[FrameWatch]()


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers, and begin to record where the contract is there."""
    config.addinivalue_line("markers", "payloads_not_judged(why, *names): leave out the payloads of these methods and events, or all")
    config.addinivalue_line("markers", "not_recorded(why): a gateway that this test starts cannot be recorded")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Begin to record."""
    factory = session.config._tmp_path_factory  # type: ignore[attr-defined]
    watch = FrameWatch(factory.mktemp("frames"))
    session.config.stash[WATCH] = watch
    if session.config.pluginmanager.hasplugin("dsession"):
        session.config.pluginmanager.register(WorkerDone(watch.add), "worker-done")
    watch.start()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop recording."""
    watch = session.config.stash.get(WATCH, None)
    if watch is not None:
        watch.stop()
        report_judged(session.config, watch.frames, watch.seconds)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Judge once the fixtures of the test are gone, and with them its gateways."""
    try:
        yield
    except Exception as error:
        for problem in problems_of(item):
            error.add_note(problem)
        raise
    found = problems_of(item)
    if found:
        more = f"\nand {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        pytest.fail(f"{len(found)} faults in what the gateway sent:\n" + "\n".join(found[:SHOWN]) + more, pytrace=False)


def problems_of(item: pytest.Item) -> list[str]:
    """What is wrong with the frames of a test, and with how it started its gateways."""
    watch = item.config.stash[WATCH]
    started = time.perf_counter()
    found = list(watch.problems(_unjudged(item)))
    watch.seconds += time.perf_counter() - started
    unrecorded, watch.spawned_unrecorded = watch.spawned_unrecorded, []
    if item.get_closest_marker("not_recorded") is None:
        found += [f"a gateway was started unrecorded: {line}\n  start it with tests.support.frames.recorded" for line in unrecorded]
    return found


def _unjudged(item: pytest.Item) -> Collection[str]:
    if not contract.is_installed():
        # The tests of the contract themselves are listed as not run then.
        return EVERYTHING
    left_out: set[str] = set()
    for mark in item.iter_markers("payloads_not_judged"):
        left_out |= set(mark.args[1:]) or EVERYTHING
    return left_out


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A mark says why."""
    for item in items:
        for name in ("payloads_not_judged", "not_recorded"):
            for mark in item.iter_markers(name):
                if not mark.args or " " not in mark.args[0]:
                    raise pytest.UsageError(f"{item.nodeid}: {name}{mark.args!r} does not say why: its first word is a sentence")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how much was judged."""
    watch = config.stash.get(WATCH, None)
    if watch is not None and watch.frames:
        against = "the contract" if contract.is_installed() else "the rules of order alone (the contract is not installed)"
        terminalreporter.write_line(f"{watch.frames} frames of gateways judged by {against} in {watch.seconds:.1f} s")
