"""Files as they are on disk, without reading them: where one really lies, and what tells one state of it from another."""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeAlias

Seen: TypeAlias = tuple[tuple[int, ...] | None, ...]
"""What tells one state of files from another, without reading them."""

_LINKS: Final = 40


def folders_of(path: Path) -> frozenset[Path]:
    """The folder of a file, and of every link that is followed to it: certbot swaps the last part, Kubernetes one before."""
    folders: set[Path] = set()
    rest = list(reversed(path.absolute().parts))
    here = Path(rest.pop())
    links = 0
    while rest:
        part = rest.pop()
        if part == "..":
            here = here.parent
            continue
        try:
            target = (here / part).readlink()
        except OSError:
            if not rest and here.is_dir():
                folders.add(here)
            here /= part
            continue
        links += 1
        if links > _LINKS:
            break
        folders.add(here)
        rest += reversed(target.parts[1:] if target.is_absolute() else target.parts)
        here = Path(target.anchor) if target.is_absolute() else here
    return frozenset(folders)


def state_of(path: Path) -> tuple[int, ...] | None:
    """What tells one state of a file from another, None where there is none."""
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def identity_of(path: Path) -> tuple[int, ...] | None:
    """What tells a folder from another one that took its name, None where there is none."""
    state = state_of(path)
    return None if state is None else state[:2]
