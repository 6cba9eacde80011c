"""One run of the program, and its end with everything it started."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Final, cast

from openclaw_kernel.api import Leash

_TERM_SECONDS: Final = 0.5
_LOOK_SECONDS: Final = 0.01
_EXIT_SECONDS: Final = 5.0
_GONE_SECONDS: Final = 0.8
_LINE_LIMIT_BYTES: Final = 32 * 1024 * 1024
_STDERR_LINES: Final = 20


class Silence(Exception):
    """The program said nothing for longer than it may."""


class EndlessLine(Exception):
    """The program wrote a line longer than 32 MiB."""


class CliProcess:
    """A started program. Whoever starts one calls `close`."""

    def __init__(self, process: asyncio.subprocess.Process, leash: Leash) -> None:
        self._process = process
        self._leash = leash
        self._stdin = cast("asyncio.StreamWriter", process.stdin)
        self._stdout = cast("asyncio.StreamReader", process.stdout)
        self._stderr = cast("asyncio.StreamReader", process.stderr)
        self._errors: deque[str] = deque(maxlen=_STDERR_LINES)
        self._drained = asyncio.Event()

    @classmethod
    async def start(cls, command: Sequence[str], *, cwd: Path, environment: Mapping[str, str], home: Path) -> CliProcess:
        """Start it; `home` is the gateway's state folder. Raise `OSError` where the program or the folder is not there."""
        leash = Leash(home)
        try:
            process = await leash.start(
                asyncio.create_subprocess_exec,
                command,
                environment=environment,
                cwd=cwd,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_LINE_LIMIT_BYTES,
            )
        except BaseException:
            leash.release()
            raise
        return cls(process, leash)

    @property
    def returncode(self) -> int | None:
        """Exit code, None while it or anything it started runs."""
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
        try:
            if self._process.returncode is None:
                self._leash.terminate()
                await self._has_ended(_TERM_SECONDS)
        finally:
            # Also where this wait itself is cancelled.
            self._leash.kill()
            try:
                await self._has_ended(_GONE_SECONDS)
            finally:
                self._leash.release()

    async def _has_ended(self, seconds: float) -> bool:
        """Wait for its end, so long at most. `Process.wait` would wait for whoever holds its pipes as well."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._process.returncode is None:  # noqa: ASYNC110  # nothing tells of the end alone
                    await asyncio.sleep(_LOOK_SECONDS)
        return self._process.returncode is not None
