"""One life of the worker process, seen from the gateway. The engine itself is never imported here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

_COMMAND: Final = ("-P", "-m", "openclaw_providers.local.worker")
_LINE_LIMIT: Final = 4 * 1024 * 1024
_LOG_LINES_KEPT: Final = 5
_LOG_PIECE_BYTES: Final = 4096
_KILL_SECONDS: Final = 5.0
# The worker needs no credentials, so it gets none.
_ENVIRONMENT: Final = frozenset(
    {
        "HOME",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "LD_LIBRARY_PATH",
        "PATH",
        "SYSTEMROOT",
        "TEMP",
        "TMP",
        "TMPDIR",
        "VIRTUAL_ENV",
    }
)
_ENVIRONMENT_PREFIXES: Final = ("GGML_", "OMP_", "PYTHON")


class WorkerProcess:
    """A running worker: requests in, events out. Whoever starts it must call `stop`."""

    def __init__(self, process: Process, *, requests: StreamWriter, events: StreamReader, log: StreamReader) -> None:
        self._process = process
        self._requests = requests
        self._events = events
        self._log_stream = log
        self._log: deque[str] = deque(maxlen=_LOG_LINES_KEPT)

    @classmethod
    async def start(cls) -> WorkerProcess:
        """Start a process in a group of its own, so that no signal of the terminal reaches it. Raise `OSError`."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *_COMMAND,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=_environment(),
            start_new_session=True,
            limit=_LINE_LIMIT,
        )
        if process.stdin is None or process.stdout is None or process.stderr is None:
            message = "the worker process has no pipes"
            raise OSError(message)
        return cls(process, requests=process.stdin, events=process.stdout, log=process.stderr)

    @property
    def pid(self) -> int:
        """The id of the process, which is the id of its group as well."""
        return self._process.pid

    def send(self, request: Mapping[str, Any]) -> None:
        """Queue one request; without effect where the worker has ended, which `next_event` tells."""
        if not self._requests.is_closing():
            self._requests.write(json.dumps(request, separators=(",", ":")).encode() + b"\n")

    async def next_event(self) -> dict[str, Any] | None:
        """Return the next event, None once the worker has ended. May be cancelled without losing one."""
        line = b""
        try:
            line = await self._events.readline()
            if not line.endswith(b"\n"):
                return None
            event: dict[str, Any] = json.loads(line)
        except ValueError as error:
            # A line without end or sense: the stream cannot be trusted any more.
            self._log.append(f"the worker wrote {line[:100]!r} ({error})")
            self.kill()
            return None
        return event

    async def copy_log(self, logger: logging.Logger) -> None:
        """Pass on what the worker writes to its log, until it ends; of a line without end, pieces."""
        while piece := await self._log_stream.read(_LOG_PIECE_BYTES):
            if not piece.endswith(b"\n") and not self._log_stream.at_eof():
                piece += await self._rest_of_line()
            for text in piece.decode("utf-8", "replace").splitlines():
                self._log.append(text.rstrip())
                logger.debug("worker %d: %s", self.pid, text.rstrip())

    async def _rest_of_line(self) -> bytes:
        try:
            return await self._log_stream.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            return error.partial
        except asyncio.LimitOverrunError as error:
            return await self._log_stream.read(error.consumed)

    async def ending(self) -> str:
        """Wait for the end and say in a few words how it came."""
        code = await self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"{how}; last words: {self._log[-1]}" if self._log else how

    def kill(self) -> None:
        """End the process group at once."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def stop(self, *, grace_seconds: float) -> None:
        """Ask the worker to end, make it end after the grace, and wait until it is gone; safe to call twice."""
        self.send({"op": "shutdown"})
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_seconds):
                    await self._process.wait()
        finally:
            self.kill()
        async with asyncio.timeout(_KILL_SECONDS):
            await self._process.wait()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)}
