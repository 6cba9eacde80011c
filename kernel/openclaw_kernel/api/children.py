"""Programs that a plugin starts, and the end of everything that comes of them.

A `Leash` holds one program. However it forks, whatever session it begins and whatever signals it ignores, nothing of it outlives
`Leash.kill`, the program's own end, or the gateway, also one that is killed:

- a process of the kernel's (`keeper.py`) stands between the gateway and the program. On Linux it is the parent of all that the program
  cuts loose; it ends with the last of them, so that its end, with the program's exit status, tells that nothing is left;
- every process inherits a mark in its environment, of this state folder, this start of the gateway and this program. By it are found those
  whose keeper was killed: at the end of the call, and by the next gateway of the same folder.

Out of reach on Linux is what clears its environment and outlives the kill of its keeper, both; and what runs as another user.
Where there is no /proc, as on macOS, it is the program's process group that ends, with the gateway too, and what left the group does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from openclaw_kernel.api.keeper import LAST_WORD, kill_below, parent_of

MARK_VARIABLE: Final = "OPENCLAW_CHILD"
_KEEPER: Final = str(Path(__file__).with_name("keeper.py"))
_START: Final = uuid.uuid4().hex
KEEPER_SECONDS: Final = 10.0
"""How long a keeper may take to begin; it takes some 20 ms."""
_PASSES: Final = 20
_PASS_SECONDS: Final = 0.005

StartedT = TypeVar("StartedT")


class Leash:
    """One program that is about to be started. Whoever makes one calls `start`, and `release` in the end."""

    def __init__(self, home: Path) -> None:
        """Take the gateway's state folder, `PluginContext.home`."""
        self.mark = new_mark(home)
        self._gateway, self._keeper = socket.socketpair()
        self._gateway.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._cleared = False

    async def start(
        self,
        spawn: Callable[..., Awaitable[StartedT]],
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        executable: str | None = None,
        **options: Any,
    ) -> StartedT:
        """Start the program by `asyncio.create_subprocess_exec`, or what takes the same arguments; return what that returns.

        It gets this environment and the mark, a session and a process group of its own. What is returned is the keeper's: its streams
        and its exit status are the program's. Raise `OSError` where it cannot be started.
        """
        descriptor = self._keeper.fileno()
        keeper = (sys.executable, "-I", "-S", _KEEPER, str(descriptor), environment.get("LC_CTYPE", ""))
        with self._keeper:
            started = await spawn(
                *(*keeper, executable or arguments[0], *arguments),
                env={**environment, MARK_VARIABLE: self.mark},
                pass_fds=(descriptor,),
                start_new_session=True,
                **options,
            )
        try:
            async with asyncio.timeout(KEEPER_SECONDS):
                word = await asyncio.get_running_loop().sock_recv(self._gateway, 16)
        except BaseException as error:
            # Nobody gets to see it, so nobody else could end it and close its streams.
            if isinstance(started, asyncio.subprocess.Process):
                with contextlib.suppress(ProcessLookupError):
                    started.kill()
                kill_marked(self.mark)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await started.communicate()
            if isinstance(error, TimeoutError):
                raise OSError(errno.ETIMEDOUT, f"its keeper did not begin within {KEEPER_SECONDS:g} s") from None
            raise
        if not word.startswith(b"+"):
            self._cleared = word.startswith(b"-")
            if isinstance(started, asyncio.subprocess.Process):
                await started.wait()
            number = int(word[1:] or 0)
            raise OSError(number, os.strerror(number) if number else "its keeper was ended")
        return started

    def terminate(self) -> None:
        """Ask the program's process group to end (SIGTERM)."""
        with contextlib.suppress(OSError):
            self._gateway.send(b"t")

    def kill(self) -> None:
        """Kill all that came of the program; the end of the keeper tells when nothing is left."""
        with contextlib.suppress(OSError):
            self._gateway.shutdown(socket.SHUT_WR)

    def release(self) -> None:
        """Let go of a program that has ended, or has not in time; what its keeper did not clear up is killed here. Safe to call twice."""
        if self._gateway.fileno() < 0:
            return
        self.kill()
        self._keeper.close()
        with contextlib.suppress(OSError):
            # What the keeper said at the start may not have been read.
            self._cleared |= self._gateway.recv(64).endswith(LAST_WORD)
        self._gateway.close()
        if not self._cleared:
            kill_marked(self.mark)


def new_mark(home: Path) -> str:
    """Return a value of `OPENCLAW_CHILD` for one program of the gateway with this state folder."""
    return f"{_folder_mark(home)}.{_START}.{uuid.uuid4().hex}"


def kill_leftovers(home: Path) -> int:
    """Kill what programs of an earlier gateway with this state folder left running; return how many processes that were."""
    folder = f"{_folder_mark(home)}."
    return _kill_all(lambda mark: mark.startswith(folder) and not mark.startswith(f"{folder}{_START}."))


def leftovers(home: Path, gateway: int | None) -> list[tuple[int, str]]:
    """Return id and name of each process that programs of a gateway with this state folder left running.

    `gateway` is the process of the gateway that runs now: what is below it is at work.
    """
    folder = f"{_folder_mark(home)}."
    spared = _ancestry()
    return [
        (pid, _name_of(pid))
        for pid in _processes()
        if pid not in spared and _mark_of(pid).startswith(folder) and not _is_below(pid, gateway)
    ]


def kill_marked(mark: str) -> int:
    """Kill every process of one program; return how many that were."""
    return _kill_all(lambda found: found == mark)


def _folder_mark(home: Path) -> str:
    return hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:16]


def _kill_all(wanted: Callable[[str], bool]) -> int:
    """Kill those whose mark is wanted, with all below them, and look again for what they have started meanwhile."""
    spared = _ancestry()
    killed: set[int] = set()
    for _ in range(_PASSES):
        found = [pid for pid in _processes() if pid not in spared and wanted(_mark_of(pid))]
        if not found:
            break
        killed |= {pid for pid in found if _kill(pid, wanted)}
        time.sleep(_PASS_SECONDS)
    return len(killed)


def _kill(pid: int, wanted: Callable[[str], bool]) -> bool:
    """Kill a process that is held first and looked at then, so that it is none that got the same id; and what is below it."""
    with contextlib.suppress(OSError):
        held = os.pidfd_open(pid)
        try:
            if wanted(_mark_of(pid)):
                kill_below(pid)
                signal.pidfd_send_signal(held, signal.SIGKILL)
                return True
        finally:
            os.close(held)
    return False


def _processes() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]


def _mark_of(pid: int) -> str:
    """Return the mark in the environment of a process; empty where there is none, where it has ended or is not ours."""
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            name, _, value = entry.partition(b"=")
            if name == MARK_VARIABLE.encode():
                return value.decode("ascii", "replace")
    return ""


def _name_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    return ""


def _is_below(pid: int, above: int | None) -> bool:
    seen: set[int] = set()
    while pid and pid not in seen:
        if pid == above:
            return True
        seen.add(pid)
        pid = parent_of(pid)
    return False


def _ancestry() -> set[int]:
    """Return this process and those above it: a gateway may itself have been started by a tool of another."""
    found = {os.getpid()}
    pid = os.getppid()
    while pid and pid not in found:
        found.add(pid)
        pid = parent_of(pid)
    return found
