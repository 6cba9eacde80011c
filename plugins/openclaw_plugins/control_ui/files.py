"""Files below one folder, opened part by part from the folder's own descriptor, so that no name leads out of it."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PART_BYTES: Final = 64 * 1024
_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_FOLDER: Final = _OPEN | os.O_DIRECTORY


class OpenFile:
    """A regular file that was opened; `close` it. `size` is in bytes, `tag` an entity tag that changes with the file."""

    def __init__(self, descriptor: int, facts: os.stat_result) -> None:
        self.size = facts.st_size
        self.tag = f'"{facts.st_ino:x}-{facts.st_size:x}-{facts.st_mtime_ns:x}"'
        self._descriptor: int | None = descriptor
        # A read may still run in its thread when the one who asked for it is gone; its number must not be another file's by then.
        self._lock = threading.Lock()

    def read(self, limit: int) -> bytes:
        """The next bytes, at most so many; empty at the end."""
        with self._lock:
            return b"" if self._descriptor is None else os.read(self._descriptor, limit)

    def close(self) -> None:
        """Give the descriptor back; safe to call twice."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def __del__(self) -> None:
        # Opened in a thread for somebody who did not wait for it.
        self.close()


def is_plain(name: str) -> bool:
    """Whether a relative path has nothing but plain names, each of which can be one entry of a folder."""
    return "\0" not in name and "\\" not in name and all(part not in {"", ".", ".."} for part in name.split("/"))


def open_below(root: Path, name: str) -> OpenFile | None:
    """Open a regular file below a folder; None where there is none, or where a symbolic link is on the way to it."""
    if not is_plain(name):
        return None
    *folders, last = name.split("/")
    try:
        with _folder(root, folders) as folder:
            descriptor = os.open(last, _OPEN, dir_fd=folder)
    except (OSError, UnicodeEncodeError):
        return None
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        return None
    return OpenFile(descriptor, facts)


@contextmanager
def _folder(root: Path, parts: list[str]) -> Iterator[int]:
    # The folder itself is the user's choice and may be reached over a link; what is in it may not lead out of it.
    current = os.open(root, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        for part in parts:
            inner = os.open(part, _FOLDER, dir_fd=current)
            os.close(current)
            current = inner
        yield current
    finally:
        os.close(current)
