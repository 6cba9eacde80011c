"""Files that a reader sees as they were or as they are to be, never in between, also after a crash."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

UNFINISHED_SECONDS: Final = 60.0
"""What is to take a file's place and is older than this was left by somebody who was killed."""
_UNFINISHED: Final = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{12}\.new")


def beside(path: Path) -> Path:
    """A new file of no one else's, in the same folder, that may take the place of this one; `remove_unfinished` knows it by its name."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.new")


def replace_whole(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Write a file in the place of the one that is there, if any; a link in its place is replaced, not followed. Raise `OSError`.

    `durable`: it is on disk when this returns.
    """
    temporary = beside(path)
    try:
        write_new(temporary, data, mode=mode, durable=durable)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def write_new(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Write a file that is not there yet, whatever the umask; raise `OSError`, `FileExistsError` among them."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        if durable:
            os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk, which are there only once their folder is; raise `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_unfinished(folders: Iterable[Path], *, name: str | None = None) -> int:
    """Remove what was to take the place of a file in one of these folders, and whoever wrote it was killed before it did.

    `name` is that of the only file that is meant, in a folder that is shared with others. What somebody may still be writing stays.
    Return how many were removed; raise `OSError`.
    """
    latest, count = time.time() - UNFINISHED_SECONDS, 0
    for folder in folders:
        try:
            entries = list(os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            match = _UNFINISHED.fullmatch(entry.name)
            if match is None or (name is not None and match["name"] != name):
                continue
            with contextlib.suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and found.st_mtime < latest:
                    Path(entry.path).unlink()
                    count += 1
    return count
