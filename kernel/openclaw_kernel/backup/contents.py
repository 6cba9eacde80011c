"""What of a state folder goes into a backup, and what is left out by name and reason."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DATABASE: Final = "state.sqlite3"
MANIFEST: Final = "openclaw-backup.json"
"""The last of an archive: what is in it. No file of a state folder comes into a backup by this name."""
FORMAT: Final = 1

_LEFT_OUT: Final = {
    "gateway.lock": "it is of the process that runs",
    "gateway.new": "it is of the process that runs",
    "logs": "the log is not state",
    MANIFEST: "it is the list of a backup that was unpacked by hand",
    f"{DATABASE}-wal": "the copy of the database holds it",
    f"{DATABASE}-shm": "the copy of the database holds it",
    f"{DATABASE}-journal": "the copy of the database holds it",
}
_GONE: Final = "gone while the backup was made"
_CONFIG_FILES: Final = (".yaml", ".yml")


class BackupError(Exception):
    """The backup cannot be made, is not whole or cannot be put back; the message names the file and the cure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One thing of the folder. `name` is its path below the folder, with slashes."""

    name: str
    path: Path
    mode: int
    is_folder: bool = False
    link: str | None = None
    """Where a symbolic link leads; it is kept as a link."""


def members(home: Path, left_out: dict[str, str]) -> Iterator[Member]:
    """All that belongs into the backup, folders before what is in them; `left_out` takes what does not, with the reason."""
    waiting = [home]
    while waiting:
        folder = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except FileNotFoundError:
            left_out[folder.relative_to(home).as_posix()] = _GONE
            continue
        for entry in entries:
            name = Path(entry.path).relative_to(home).as_posix()
            reason = _LEFT_OUT.get(name)
            if reason is not None:
                left_out[name] = reason
                continue
            if name == DATABASE:
                continue
            found = _member(home, Path(entry.path), name, left_out)
            if found is None:
                continue
            yield found
            if found.is_folder:
                waiting.append(found.path)


def _member(home: Path, path: Path, name: str, left_out: dict[str, str]) -> Member | None:
    try:
        status = path.lstat()
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISLNK(status.st_mode):
            # Not `resolve`, which refuses a link that leads to itself.
            target = Path(os.path.realpath(path))
            if target.is_relative_to(os.path.realpath(home)):
                # Relative, so that it leads to the same place wherever the folder is put back.
                return Member(name=name, path=path, mode=mode, link=os.path.relpath(target, path.parent.resolve()))
            if path.suffix in _CONFIG_FILES and target.is_file():
                # Kept in another folder, under version control perhaps; without it the backup is worth nothing.
                return Member(name=name, path=target, mode=stat.S_IMODE(target.stat().st_mode))
            left_out[name] = f"a link that leads out of the folder, to {target}"
        elif stat.S_ISDIR(status.st_mode):
            return Member(name=name, path=path, mode=mode, is_folder=True)
        elif stat.S_ISREG(status.st_mode):
            return Member(name=name, path=path, mode=mode)
        else:
            left_out[name] = "neither a file nor a folder"
    except FileNotFoundError:
        left_out[name] = _GONE
    return None
