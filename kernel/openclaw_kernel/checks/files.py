"""What the file system says of the state folder; no file is opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from openclaw_kernel.api.check import FileEntry

MOST: Final = 20_000
_AGENTS: Final = "workspace"
_AGENT_LEVELS: Final = 2
"""Below the folder of the agents: an agent's own, and what lies in it."""


def entry_of(path: Path) -> FileEntry | None:
    """Look at one, without following a link; None where there is nothing, or it cannot be seen."""
    try:
        found = path.lstat()
    except OSError:
        return None
    mode = found.st_mode
    return FileEntry(
        path=path,
        mode=stat.S_IMODE(mode),
        user_id=found.st_uid,
        group_id=found.st_gid,
        kind="file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "link" if stat.S_ISLNK(mode) else "other",
        modified_ms=found.st_mtime_ns // 1_000_000,
        links=found.st_nlink,
        size=found.st_size,
    )


def files_below(home: Path) -> dict[Path, FileEntry]:
    """Everything below the folder, and the folder itself, at most `MOST`."""
    found: dict[Path, FileEntry] = {}
    for path in _walk(home):
        entry = entry_of(path)
        if entry is not None:
            found[path] = entry
        if len(found) >= MOST:
            break
    return found


def _walk(home: Path) -> Iterator[Path]:
    yield home
    waiting = [(home, 0)]
    while waiting:
        folder, depth = waiting.pop(0)
        try:
            names = sorted(os.scandir(folder), key=lambda each: each.name)
        except OSError:
            continue
        for each in names:
            path = folder / each.name
            yield path
            agents = path.is_relative_to(home / _AGENTS)
            if each.is_dir(follow_symlinks=False) and not (agents and depth >= _AGENT_LEVELS):
                waiting.append((path, depth + 1))
