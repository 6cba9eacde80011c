"""One run of the program in a process group of its own, and its end with everything it started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Final, cast

#: What tells the processes of one run from all others: whatever they start inherits it.
RUN_VARIABLE: Final = "OPENCLAW_CLI_RUN"
_TERM_SECONDS: Final = 0.5
_LOOK_SECONDS: Final = 0.01
_EXIT_SECONDS: Final = 5.0
_LINE_LIMIT_BYTES: Final = 32 * 1024 * 1024
_STDERR_LINES: Final = 20


class Silence(Exception):
    """The program said nothing for longer than it may."""


class EndlessLine(Exception):
    """The program wrote a line longer than 32 MiB."""


class CliProcess:
    """A started program. Whoever starts one calls `close`."""

    def __init__(self, process: asyncio.subprocess.Process, run: str) -> None:
        self._process = process
        self._run = run
        self._stdin = cast("asyncio.StreamWriter", process.stdin)
        self._stdout = cast("asyncio.StreamReader", process.stdout)
        self._stderr = cast("asyncio.StreamReader", process.stderr)
        self._errors: deque[str] = deque(maxlen=_STDERR_LINES)
        self._drained = asyncio.Event()

    @classmethod
    async def start(cls, command: Sequence[str], *, cwd: Path, environment: Mapping[str, str]) -> CliProcess:
        """Start it. Raise `OSError` where it or the folder is not there."""
        run = uuid.uuid4().hex
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            env={**environment, RUN_VARIABLE: run},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # Its own session and group: a signal for the gateway's is not for it, and one for it is for all of it.
            start_new_session=True,
            limit=_LINE_LIMIT_BYTES,
        )
        return cls(process, run)

    @property
    def pid(self) -> int:
        """Id of the program and of its group."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, None while it runs."""
        return self._process.returncode

    @property
    def errors(self) -> str:
        """The last lines it wrote to its standard error."""
        return "\n".join(self._errors)

    async def say(self, line: str, silence_seconds: float) -> None:
        """Write the one line it is to read, and the end after it; a program that is gone reads nothing.

        Raise `Silence` where it does not take it in time.
        """
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._stdin.write(line.encode())
                async with asyncio.timeout(silence_seconds):
                    await self._stdin.drain()
        except TimeoutError as error:
            raise Silence from error
        self._stdin.close()

    async def drain_errors(self) -> None:
        """Read its standard error to the end, so that it never waits for a reader."""
        try:
            while chunk := await self._stderr.read(65_536):
                self._errors.extend(chunk.decode(errors="replace").splitlines())
        finally:
            self._drained.set()

    async def lines(self, silence_seconds: float) -> AsyncGenerator[bytes, None]:
        """Yield each line it writes. Raise `Silence` where one takes too long, `EndlessLine` where one is."""
        while True:
            try:
                async with asyncio.timeout(silence_seconds):
                    line = await self._stdout.readline()
            except TimeoutError as error:
                raise Silence from error
            except ValueError as error:
                raise EndlessLine from error
            if not line:
                return
            yield line

    async def finish(self) -> None:
        """Let it end by itself after its last line, for it still writes its conversation to disk."""
        if await self._has_ended(_EXIT_SECONDS) and self._process.returncode:
            # What it left running may hold its standard error open.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TERM_SECONDS):
                    await self._drained.wait()

    async def close(self) -> None:
        """End it and all it started, within a second: asked first, then killed."""
        started = descendants(self.pid)
        try:
            if self._process.returncode is None:
                self._signal(signal.SIGTERM)
                await self._has_ended(_TERM_SECONDS)
        finally:
            # Also where this wait itself is cancelled. Its tools run in sessions of their own, beyond the group.
            started |= descendants(self.pid)
            self._signal(signal.SIGKILL)
            for pid, birth in (started | of_run(self._run)).items():
                if birth_of(pid) == birth:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        await self._has_ended(_EXIT_SECONDS)

    async def _has_ended(self, seconds: float) -> bool:
        """Wait for its end, so long at most. `Process.wait` would wait for whoever holds its pipes as well."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._process.returncode is None:  # noqa: ASYNC110  # nothing tells of the end alone
                    await asyncio.sleep(_LOOK_SECONDS)
        return self._process.returncode is not None

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def descendants(pid: int) -> dict[int, str]:
    """Return every process under this one with the time of its birth, where the system has /proc; else none."""
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                for child in map(int, task.read_text().split()):
                    found[child] = birth_of(child)
                    waiting.append(child)
    return found


def of_run(run: str) -> dict[int, str]:
    """Return every process that inherited the mark of a run, also those whose parents are gone; as `descendants`."""
    mark = f"{RUN_VARIABLE}={run}".encode()
    found: dict[int, str] = {}
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in environment.read_bytes().split(b"\0"):
                pid = int(environment.parent.name)
                found[pid] = birth_of(pid)
    return found


def birth_of(pid: int) -> str:
    """Return what tells a process from a later one of the same id; empty where there is none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""
