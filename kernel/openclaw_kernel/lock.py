"""One gateway per state folder: an flock on an open file, freed by the system when the process dies.

What the file says (pid, address) is information for people; ownership is the lock alone.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any, Final

FILE_NAME: Final = "gateway.lock"


class AlreadyRunning(Exception):
    """Another gateway owns the state folder; `owner` is what it wrote of itself, perhaps nothing."""

    def __init__(self, path: Path, owner: dict[str, Any]) -> None:
        where = owner.get("url") or "an address it has not written yet"
        pid = owner.get("pid", "unknown")
        super().__init__(f"a gateway already runs on {path.parent} at {where} (pid {pid}); stop it, or use another --home")
        self.owner = owner


class StateLock:
    """Held from `acquire` to `release`, or to the end of the process."""

    def __init__(self, home: Path) -> None:
        self.path = home / FILE_NAME
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock at once or raise `AlreadyRunning`."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = read_owner(self.path.parent)
            os.close(descriptor)
            raise AlreadyRunning(self.path, owner) from None
        self._descriptor = descriptor
        self.describe({"pid": os.getpid()})

    def describe(self, owner: dict[str, Any]) -> None:
        """Write who owns the folder, for people and for the command line."""
        if self._descriptor is None:
            message = "the lock is not held"
            raise RuntimeError(message)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(owner).encode() + b"\n", 0)

    def release(self) -> None:
        """Give the lock up."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def read_owner(home: Path) -> dict[str, Any]:
    """What the last owner of a state folder wrote; empty where nothing readable is there."""
    try:
        owner = json.loads((home / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}
