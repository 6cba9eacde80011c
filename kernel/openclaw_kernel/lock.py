"""One gateway per state folder: an flock on the open folder, freed by the system when the process dies.

The folder, not a file in it: a file could be deleted, and whoever makes it anew would own the folder as well. What the file says
(pid, address) is information for people; ownership is the lock alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from openclaw_kernel.files.mounts import far_type

FILE_NAME: Final = "gateway.lock"


_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF, errno.ESTALE})
"""What an flock of a folder fails with where its file system does not do it; NFS wants a file that is open for writing."""


class AlreadyRunning(Exception):
    """Another gateway owns the state folder; `owner` is what it wrote of itself, perhaps nothing."""

    def __init__(self, path: Path, owner: dict[str, Any]) -> None:
        where = owner.get("url") or "an address it has not written yet"
        facts = [f"pid {owner.get('pid', 'unknown')}"]
        if "version" in owner:
            facts.append(f"version {owner['version']}")
        if isinstance(owner.get("startedAtMs"), int):
            # Anybody may have written there; what is no time of this calendar is left out.
            with contextlib.suppress(ValueError, OverflowError, OSError):
                facts.append(f"since {datetime.fromtimestamp(owner['startedAtMs'] / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC")
        super().__init__(f"a gateway already runs on {path.parent} at {where} ({', '.join(facts)}); stop it, or use another --home")
        self.owner = owner


class CannotLock(Exception):
    """The state folder cannot be locked; the message names it, the reason and the cure."""

    def __init__(self, home: Path, error: OSError) -> None:
        super().__init__(unusable(home, error))


def unusable(home: Path, error: OSError) -> str:
    """Why the state folder cannot be used, in a line with the cure."""
    # A file of it may be named; the mounts are asked for the folder.
    place = error.filename if isinstance(error.filename, str) else str(home)
    if error.errno == errno.EROFS:
        return (
            f"{place}: the state folder is on a file system that is mounted read-only, which a system also does after a fault of the disk; "
            "mount it for writing, or use --home"
        )
    far = far_type(home)
    if error.errno in _NO_LOCKS:
        kind = "its file system" if far is None else f"the network file system it is on ({far})"
        cure = "put the state folder on a disk of this machine by --home"
        return f"{home}: {kind} keeps no locks, so two gateways could run on it at once; {cure}"
    reason = (error.strerror or str(error)).lower()
    cure = (
        "make it writable or use --home" if far is None else f"it is on a network file system ({far}); use a disk of this machine by --home"
    )
    return f"{place}: the state folder cannot be used ({reason}); {cure}"


def doubts(home: Path) -> list[str]:
    """Why the lock may not keep everybody out, a line at most: it is kept by a file system that other machines see."""
    far = far_type(home)
    if far is None:
        return []
    risk = "where another machine's gateway may not see the lock, and SQLite's log is not safe"
    return [f"{home} is on a network file system ({far}), {risk}; move the state folder to a disk of this machine"]


class StateLock:
    """Held from `acquire` to `release`, or to the end of the process."""

    def __init__(self, home: Path) -> None:
        self.path = home / FILE_NAME
        self._descriptor: int | None = None

    def acquire(self, passed_on: int | None = None) -> None:
        """Take the lock at once or raise `AlreadyRunning`, `CannotLock`.

        `passed_on` is the descriptor that the process before left: with it the lock was never free. One that is of another folder is
        closed and done without.
        """
        home = self.path.parent
        if passed_on is not None and self._adopt(home, passed_on):
            return
        try:
            descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise CannotLock(home, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._descriptor = descriptor
            self.describe({"pid": os.getpid()})
        except BlockingIOError:
            os.close(descriptor)
            raise AlreadyRunning(self.path, read_owner(home)) from None
        except OSError as error:
            self._descriptor = None
            os.close(descriptor)
            raise CannotLock(home, error) from error

    def _adopt(self, home: Path, descriptor: int) -> bool:
        try:
            if not os.path.samestat(os.fstat(descriptor), home.stat()):
                os.close(descriptor)
                return False
            # Of the same open folder it is held already; what the file says stays true until the next address is known.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            with contextlib.suppress(OSError):
                os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def describe(self, owner: dict[str, Any]) -> None:
        """Write who owns the folder, for people and for the command line."""
        if self._descriptor is None:
            message = "the lock is not held"
            raise RuntimeError(message)
        # Replaced as a whole: a reader never sees half of it, and a link or a pipe in its place is not followed.
        temporary = self.path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(owner) + "\n")
        temporary.replace(self.path)

    def pass_on(self) -> int | None:
        """Hold the lock no longer and leave it locked: the descriptor is the caller's, None where the lock is not held."""
        descriptor, self._descriptor = self._descriptor, None
        return descriptor

    def release(self) -> None:
        """Give the lock up."""
        if self._descriptor is not None:
            # Unlocked by name: a child that was forked meanwhile may hold the same open folder.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None


def read_owner(home: Path) -> dict[str, Any]:
    """What the last owner of a state folder wrote; empty where nothing readable is there."""
    try:
        owner = json.loads((home / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def is_running(owner: dict[str, Any]) -> bool:
    """Whether the process that wrote this is there and has said where it is reached."""
    pid = owner.get("pid")
    if not owner.get("url") or not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
