"""The files of installed distributions: which they are, copies of them, and how they come to lie safely on disk."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from openclaw_config.whole_files import sync_folder


@dataclass(frozen=True, slots=True)
class Copied:
    """A file of a distribution: the name of its copy, where it belongs, and the SHA-256 of what is in it."""

    name: str
    place: Path
    digest: str


def copy_into(folder: Path, files: Iterable[Path]) -> list[Copied]:
    """Copy files durably into a folder, with their modes and times; what is made by running a distribution is left out. Raise `OSError`."""
    copied: list[Copied] = []
    for number, place in enumerate(files):
        if "__pycache__" not in place.parts and place.is_file():
            copy = folder / str(number)
            shutil.copy2(place, copy)
            sync_file(copy)
            copied.append(Copied(copy.name, place, _digest(copy)))
    return copied


def put_back(folder: Path, copied: Iterable[Copied]) -> None:
    """Have each file where it belongs as it was; one that is so already is not touched. Raise `OSError`."""
    for one in copied:
        if one.place.is_file() and _digest(one.place) == one.digest:
            continue
        one.place.parent.mkdir(parents=True, exist_ok=True)
        if one.place.is_symlink():
            # Else what it leads to would be written over.
            one.place.unlink()
        shutil.copy2(folder / one.name, one.place)
        sync_file(one.place)
        sync_folder(one.place.parent)
        if _digest(one.place) != one.digest:
            raise OSError(f"{folder / one.name}: the copy was changed")


def files_of(distribution: importlib.metadata.Distribution) -> list[Path]:
    """The files that a distribution says are its own; empty where it does not say."""
    return [Path(os.path.normpath(str(file.locate()))) for file in distribution.files or ()]


def state_of(distribution: str) -> str | None:
    """What tells one installation of a distribution from another: the text of its RECORD; None where it is not installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, OSError):
        return importlib.metadata.distribution(distribution).read_text("RECORD")
    return None


def settle(distributions: Iterable[str]) -> None:
    """Have on disk what pip has written of these distributions, and left to the system; raise `OSError`."""
    folders: set[Path] = set()
    for name in distributions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            for place in files_of(importlib.metadata.distribution(name)):
                if place.is_file():
                    sync_file(place)
                    folders.add(place.parent)
    for folder in folders:
        sync_folder(folder)


def sync_file(path: Path) -> None:
    """Have the content of a file on disk; raise `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
