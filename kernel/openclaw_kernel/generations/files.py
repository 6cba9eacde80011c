"""The bytes of accepted configs, below `generations` in the state folder. No database, so that a start can do without one.

A file is called by the SHA-256 of its bytes and holds what the config file itself holds, literal secrets included: it lies beside it
with the same protection, mode 0600 in a folder of 0700. `last-good` says which of them a gateway last worked with.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from openclaw_config.whole_files import replace_whole

FOLDER: Final = "generations"
LAST_GOOD: Final = "last-good"
REJECTED: Final = "rejected"
"""The folder in it for what was refused or written over."""
KEPT: Final = 200
"""So many of the newest generations can be gone back to."""
REJECTED_KEPT: Final = 20
"""So many files that were refused, or written over by a rollback, are kept beside."""
LONGEST: Final = 4 << 20
_SUFFIX: Final = ".yaml"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")

Digests = Mapping[str, str]
"""By path (relative to the state folder, or absolute where it lies elsewhere): the SHA-256 of each file that took part."""


class NotKept(Exception):
    """The bytes of a generation are not there any more, or are not what they were; the message names file and reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastGood:
    """The config that a gateway last worked with. `number` is that of its generation in the database of then."""

    number: int
    files: Digests


class GenerationFiles:
    """The folder of one state folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / FOLDER

    def name_of(self, path: Path) -> str:
        """How a file that took part is called in `Digests`."""
        return str(path.relative_to(self.home)) if path.is_relative_to(self.home) else str(path)

    def path_of(self, name: str) -> Path:
        """Where a file of `Digests` lies."""
        return self.home / name

    def keep(self, content: Mapping[Path, bytes]) -> dict[str, str]:
        """Keep the bytes of files that took part, durably; raise `OSError`."""
        return {self.name_of(path): self._put(self.folder, data) for path, data in content.items()}

    def keep_rejected(self, data: bytes) -> str:
        """Keep a file that was refused or is written over, of which the newest few stay; return its SHA-256. Raise `OSError`."""
        folder = self.folder / REJECTED
        digest = self._put(folder, data)
        for path in _oldest_first(folder)[:-REJECTED_KEPT]:
            path.unlink(missing_ok=True)
        return digest

    def read(self, digest: str) -> bytes:
        """Return the bytes of this SHA-256; raise `NotKept`."""
        path = self.folder / f"{digest}{_SUFFIX}"
        try:
            data = _read(path)
        except OSError as error:
            raise NotKept(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise NotKept(f"{path}: is not what was kept; its SHA-256 is another one")
        return data

    def holds(self, digests: Digests) -> bool:
        """Whether there is a file for each."""
        return all((self.folder / f"{digest}{_SUFFIX}").is_file() for digest in digests.values())

    def sweep(self, wanted: Collection[str]) -> None:
        """Remove the oldest files that nothing wants, where there are more than are kept; raise `OSError`."""
        files = _oldest_first(self.folder)
        for path in files[: max(0, len(files) - KEPT)]:
            if path.stem not in wanted:
                path.unlink(missing_ok=True)

    def last_good(self) -> LastGood | None:
        """Return what a gateway last worked with; None where that is not known."""
        found = read_json(self.folder / LAST_GOOD)
        number, files = found.get("number"), found.get("files")
        if not isinstance(number, int) or not isinstance(files, dict) or not files:
            return None
        if not all(isinstance(digest, str) and _DIGEST.fullmatch(digest) for digest in files.values()):
            return None
        return LastGood(number=number, files=files)

    def mark_good(self, good: LastGood) -> None:
        """Write down what a gateway works with, durably; raise `OSError`."""
        if self.last_good() != good:
            write_json(self.folder / LAST_GOOD, {"number": good.number, "files": dict(good.files)}, durable=True)

    def _put(self, folder: Path, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        path = folder / f"{digest}{_SUFFIX}"
        try:
            if _read(path) == data:
                os.utime(path)
                return digest
        except OSError:
            pass
        for missing in (self.folder, folder):
            missing.mkdir(mode=0o700, exist_ok=True)
        replace_whole(path, data, durable=True)
        return digest


def read_json(path: Path) -> dict[str, Any]:
    """The object in a small file; empty where there is none, or none that can be read."""
    try:
        found = json.loads(_read(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, values: Mapping[str, Any], *, durable: bool) -> None:
    """Replace the file; keys that another version wrote and this one does not know stay. Raise `OSError`."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    text = json.dumps({**read_json(path), **values})
    replace_whole(path, f"{text}\n".encode(), durable=durable)


def _read(path: Path) -> bytes:
    # Without waiting: a pipe in its place would hold the start for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor has no path
        return file.read(LONGEST)


def _oldest_first(folder: Path) -> list[Path]:
    found = [path for path in folder.glob(f"*{_SUFFIX}") if _DIGEST.fullmatch(path.stem)]
    return sorted(found, key=lambda path: path.lstat().st_mtime_ns)
