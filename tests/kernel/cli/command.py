"""Runs the real command as a process, plainly or on a terminal of its own."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.gateway import INHERITED

DEADLINE_SECONDS = 30.0
COMMAND = (sys.executable, "-W", "default", "-m", "openclaw_kernel")


@dataclass(frozen=True)
class Outcome:
    """What a command left."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


def environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a command whose state folder is this one."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {**inherited, "HOME": str(home), "OPENCLAW_KERNEL_HOME": str(home), "TERM": "xterm", **(extra or {})}


async def run_command(*arguments: str, home: Path, stdin: str = "", env: Mapping[str, str] | None = None) -> Outcome:
    """Run it to its end."""
    process = await start_command(*arguments, home=home, env=env)
    out, err = await asyncio.wait_for(process.communicate(stdin.encode("utf-8", "surrogateescape")), DEADLINE_SECONDS)
    assert process.returncode is not None
    return Outcome(process.returncode, out.decode(), err.decode())


async def start_command(*arguments: str, home: Path, env: Mapping[str, str] | None = None) -> asyncio.subprocess.Process:
    """Run it; the caller waits for its end."""
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*COMMAND, *arguments, env=environment(home, env), stdin=pipe, stdout=pipe, stderr=pipe)


class Terminal:
    """A command on a terminal: what it shows, and a keyboard."""

    def __init__(self, process: asyncio.subprocess.Process, descriptor: int) -> None:
        self.process = process
        self.shown = ""
        self._descriptor = descriptor
        self._changed = asyncio.Event()
        self._read_to = 0
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def type(self, text: str) -> None:
        r"""Press keys: `\x03` is Ctrl+C, `\x04` Ctrl+D."""
        os.write(self._descriptor, text.encode())

    async def expect(self, pattern: str, *, deadline: float = DEADLINE_SECONDS) -> str:
        """Wait until something new that matches is shown; return all that is new up to its end."""
        wanted = re.compile(pattern, re.DOTALL)
        try:
            async with asyncio.timeout(deadline):
                while (found := wanted.search(self.shown, self._read_to)) is None:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            message = f"{pattern!r} was not shown after {self._read_to} characters of {self.shown!r}"
            raise AssertionError(message) from None
        fresh = self.shown[self._read_to : found.end()]
        self._read_to = found.end()
        return fresh

    async def press(self, key: str, *, until: str) -> None:
        """Press a key until what it does is shown; a signal that comes just before the command waits for one is not seen."""
        for _ in range(int(DEADLINE_SECONDS)):
            self.type(key)
            with suppress(AssertionError):
                await self.expect(until, deadline=1.0)
                return
        await self.expect(until)

    def close(self) -> None:
        """Read no more."""
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 65_536)
        except OSError:
            # The other side is closed: the command ended.
            asyncio.get_running_loop().remove_reader(self._descriptor)
            return
        self.shown += data.decode("utf-8", "replace")
        self._changed.set()


@asynccontextmanager
async def on_terminal(*arguments: str, home: Path) -> AsyncIterator[Terminal]:
    """Run it on a terminal; it is killed at the end where it still runs."""
    keyboard, screen = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        env=environment(home),
        stdin=screen,
        stdout=screen,
        stderr=screen,
        start_new_session=True,
        preexec_fn=_own_terminal,
    )
    os.close(screen)
    terminal = Terminal(process, keyboard)
    try:
        yield terminal
    finally:
        terminal.close()
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.wait()


def _own_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
