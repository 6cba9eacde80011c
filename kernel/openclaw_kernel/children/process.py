"""One process of a child: from its start on a leash to the end of all that came of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openclaw_kernel.api.children import Leash
from openclaw_kernel.children.errors import ContractBroken, CutOff
from openclaw_kernel.children.launch import environment, limited
from openclaw_kernel.children.peer import CHUNK_BYTES, Bounds, Handler, Notice, Peer
from openclaw_kernel.children.stderr import ChildLog
from openclaw_kernel.tasks import TaskOwner

logger: Final = logging.getLogger(__name__)

GONE_SECONDS: Final = 5.0
"""How long a killed process may take to be gone."""
STATUS_SECONDS: Final = 1.0
"""How long one that closed its output may take to end."""
DRAIN_SECONDS: Final = 1.0
"""How long what it wrote before its end is read after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How one child is started. `command[0]` is an absolute path; nothing of it comes from the config."""

    plugin_id: str
    command: Sequence[str]
    home: Path
    """The gateway's state folder."""
    state_folder: Path
    """The child's own, its working folder."""
    memory_mb: int = 1024
    files: int = 256
    processes: int = 256


class ChildProcess:
    """Whoever makes one calls `start`, and `close` in the end. `peer` is there once it has started."""

    def __init__(self, launch: Launch, *, handlers: Mapping[str, Handler], notices: Mapping[str, Notice], log: ChildLog) -> None:
        self._launch = launch
        self._handlers = handlers
        self._notices = notices
        self._log = log
        self._leash = Leash(launch.home)
        self._tasks = TaskOwner(f"child {launch.plugin_id}", _failed)
        self._process: asyncio.subprocess.Process | None = None
        self._fault: str | None = None
        self._exited = asyncio.Event()
        self._ended = asyncio.Event()
        self.reason = "has not begun"
        self.peer: Peer

    async def start(self) -> None:
        """Start it; raise `OSError` where that is not possible."""
        launch = self._launch
        self._log.begin()
        command = limited(list(launch.command), memory_mb=launch.memory_mb, files=launch.files, processes=launch.processes)
        try:
            process = await self._leash.start(
                asyncio.create_subprocess_exec,
                command,
                environment=environment(str(launch.state_folder)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=launch.state_folder,
                limit=CHUNK_BYTES,
            )
        except BaseException:
            self._leash.release()
            raise
        # For the type checker: all three are pipes.
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise OSError("it was started without its pipes")
        self._process = process
        self.peer = Peer(
            process.stdout,
            process.stdin,
            name=f"child {launch.plugin_id}",
            handlers=self._handlers,
            notices=self._notices,
            bounds=Bounds(),
        )
        log = self._tasks.spawn("log", self._log.copy(process.stderr))
        serving = self._tasks.spawn("contract", self._serve(process.stdout))
        self._tasks.spawn("end", self._follow(process, (log, serving)))

    @property
    def pid(self) -> int | None:
        """The process that keeps it, None where it was not started."""
        return None if self._process is None else self._process.pid

    async def wait_ended(self) -> str:
        """Wait until nothing of it is left; return why it ended."""
        await self._ended.wait()
        return self.reason

    @property
    def ended(self) -> bool:
        """Whether nothing of it is left."""
        return self._ended.is_set()

    def kill(self, reason: str) -> None:
        """End all that came of it; the first reason counts."""
        if self._fault is None:
            self._fault = reason
        self._leash.kill()

    async def close(self, grace: float) -> None:
        """Close its input, give it `grace` seconds to end by itself, and kill what is left."""
        try:
            if self._process is not None:
                if self._process.stdin is not None:
                    self._process.stdin.close()
                await self._within(grace)
                self.kill("was ended by the gateway")
                if not await self._within(GONE_SECONDS):
                    logger.error("child %r is not gone %g s after it was killed", self._launch.plugin_id, GONE_SECONDS)
                await self.peer.close(self.reason)
        finally:
            # Also where this was broken off: nobody else knows of the process.
            self._leash.release()
        await self._tasks.close(1.0)

    async def _within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        return self._ended.is_set()

    async def _serve(self, stdout: asyncio.StreamReader) -> None:
        try:
            await self.peer.serve()
            await self._end_without_output("closed its standard output")
        except CutOff as breach:
            await self._end_without_output(str(breach))
        except ContractBroken as breach:
            self.kill(f"broke the contract: it {breach}")
            # Read to its end, which comes with the kill: only then is the pipe closed.
            while chunk := await stdout.read(CHUNK_BYTES):
                logger.debug("%d bytes after the breach", len(chunk))

    async def _end_without_output(self, reason: str) -> None:
        # Mostly because it has ended, and then its status says more.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STATUS_SECONDS):
                await self._exited.wait()
        if not self._exited.is_set():
            self.kill(reason)

    async def _follow(self, process: asyncio.subprocess.Process, readers: tuple[asyncio.Task[None], ...]) -> None:
        status = await process.wait()
        self._exited.set()
        await asyncio.wait(readers, timeout=DRAIN_SECONDS)
        said = f" ({self._log.last})" if self._log.last and status != 0 else ""
        self.reason = f"{self._fault or _told(status)}{said}"
        await self.peer.close(f"its process {self.reason}")
        self._leash.release()
        self._ended.set()


def _told(status: int) -> str:
    if status >= 0:
        return f"ended by itself with status {status}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-status).name}"
    return f"was ended by signal {-status}"


def _failed(name: str, error: BaseException) -> None:
    logger.error("%s failed", name, exc_info=error)
