"""A change of what is installed taken back by its files alone, wherever pip was: what came is taken away, what was there comes back.

Taking back twice, or a second time after the first was cut off too, leaves the same.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openclaw_kernel.api.children import kill_leftovers
from openclaw_kernel.packages.files import files_of, put_back
from openclaw_kernel.packages.journal import FOLDER, Record, Unfinished, unfinished
from openclaw_kernel.packages.pip import key_of

logger: Final = logging.getLogger("openclaw.plugins")

_OF_OTHER_INSTALLERS: Final = (".egg-info", ".egg-link")
_INFO: Final = ".dist-info"
_STASH: Final = "~"
"""With it begins the name of what pip has moved aside, and of nothing that can be installed."""


UNREADABLE: Final = (OSError, TypeError, ValueError, KeyError, IndexError, AttributeError)
"""What `take_back` raises: files that cannot be changed, and lists of files, of whatever distribution, that are in no order."""


def take_back(change: Unfinished) -> None:
    """Have installed what was before the change, and forget it; on a thread.

    Raise one of `UNREADABLE`, after which it can be tried again.
    """
    record = change.record
    if record is None:
        raise OSError(f"{change.folder}: what was changed cannot be read")
    planned = change.planned()
    removal = _Removal(record, {key_of(name) for name in planned or ()}, change.until_ns())
    if not change.is_being_taken_back and removal.was_settled():
        logger.warning("%s was cut off, and somebody has changed it since: it is left as it is", record.what)
        change.over()
        return
    change.begin_taking_back()
    if record.operation == "remove" or planned is not None:
        removal.carry_out()
    put_back(change.folder, record.files)
    importlib.invalidate_caches()
    change.over()


def take_back_all(home: Path) -> list[str]:
    """Take back what a gateway that was killed left unfinished, and clear away the rest of what is over.

    Only for who holds the lock of the state folder. Return what could not be taken back, a line each with the cure.
    """
    for folder in (home / FOLDER).glob(".*"):
        shutil.rmtree(folder, ignore_errors=True)
    found = unfinished(home)
    if found:
        # A pip that is about to be ended writes no more.
        kill_leftovers(home)
    return [line for line in map(_taken_back, found) if line is not None]


def _taken_back(change: Unfinished) -> str | None:
    record = change.record
    if record is None:
        return change.told()
    if record.prefix != sys.prefix:
        cure = f"start the gateway once with {record.python} -m openclaw_kernel run, or delete {change.folder} where that is gone"
        return f"{record.what} was cut off, in another Python than this one; {cure}"
    command = record.by_hand(change.planned() or {})
    try:
        take_back(change)
    except UNREADABLE as error:
        return f"{record.what} was cut off and could not be taken back ({error}); run {command} and delete {change.folder}"
    done = "it was taken off again" if record.distribution is None else f"{record.version} was put back"
    logger.warning("%s was cut off by the end of the gateway: %s; to do it again: %s", record.what, done, record.again)
    return None


@dataclass(frozen=True, slots=True)
class _Removal:
    """Takes away what pip wrote, and what it moved aside."""

    record: Record
    planned: set[str]
    """Comparable names of what pip was to install; empty where it was to remove."""
    until_ns: int
    """What was changed later is not pip's."""

    def was_settled(self) -> bool:
        """Whether somebody has installed anew, long after pip, what was being changed."""
        changed = self.planned | ({key_of(self.record.distribution)} if self.record.distribution is not None else set())
        infos = [info for root in self._roots() for info in root.glob(f"*{_INFO}") if _key_of(info) in changed]
        return any(info.lstat().st_ctime_ns > self.until_ns for info in infos)

    def carry_out(self) -> None:
        """Do it; raise `OSError`."""
        came = [info for root in self._roots() for info in root.glob(f"*{_INFO}") if self._came(info)]
        others = self._files_of_others(came)
        self._remove_distributions(came, others)
        self._remove_new_names(others)
        self._clean_own_folders(others)

    def _roots(self) -> list[Path]:
        return [root for root in map(Path, self.record.names) if root.is_dir()]

    def _places(self) -> set[Path]:
        return {one.place for one in self.record.files}

    def _came(self, info: Path) -> bool:
        key = _key_of(info)
        is_replaced = self.record.distribution is not None and key == key_of(self.record.distribution)
        return key in self.planned and (is_replaced or info.name not in self.record.names[str(info.parent)])

    def _files_of_others(self, came: list[Path]) -> set[Path]:
        ours = {*came, *(place.parent for place in self._places() if place.parent.name.endswith(_INFO))}
        found = {info for root in self._roots() for info in root.glob(f"*{_INFO}") if not info.name.startswith(_STASH)}
        return {file for info in found - ours for file in files_of(importlib.metadata.PathDistribution(info))}

    def _remove_distributions(self, came: list[Path], others: set[Path]) -> None:
        spared = others | self._places()
        for info in came:
            for file in files_of(importlib.metadata.PathDistribution(info)):
                inside = file.is_relative_to(self.record.prefix) or file.is_relative_to(info.parent)
                if inside and file not in spared and (file.is_file() or file.is_symlink()):
                    file.unlink()
                    _remove_empty(file.parent, info.parent)

    def _remove_new_names(self, others: set[Path]) -> None:
        for root in self._roots():
            owned = {file.relative_to(root).parts[0] for file in others if file.is_relative_to(root) and file != root}
            for name in {path.name for path in root.iterdir()} - self.record.names[str(root)] - owned:
                is_pips = name.startswith(_STASH) or (self.planned and not name.endswith(_OF_OTHER_INSTALLERS))
                if is_pips and (root / name).lstat().st_ctime_ns <= self.until_ns:
                    _remove(root / name)

    def _clean_own_folders(self, others: set[Path]) -> None:
        """Take out of the folders of the replaced distribution what another version brought, and what of it was compiled."""
        places = self._places()
        for top in self._own_folders(places):
            for folder in _folders_below(top):
                if not folder.is_dir():
                    continue
                is_stash = folder.name.startswith(_STASH) and not any(file.is_relative_to(folder) for file in others)
                if is_stash or folder.name == "__pycache__":
                    _remove(folder)
                    continue
                for file in folder.iterdir():
                    is_known = file.is_dir() or file in places or file in others
                    if not is_known and self.record.began_ns <= file.lstat().st_ctime_ns <= self.until_ns:
                        file.unlink()
                _remove_empty(folder, top.parent)

    def _own_folders(self, places: set[Path]) -> set[Path]:
        tops = {root / place.relative_to(root).parts[0] for root in self._roots() for place in places if place.is_relative_to(root)}
        return {top for top in tops if top.is_dir() and not top.is_symlink()}


def _key_of(info: Path) -> str:
    return key_of(info.name.removesuffix(_INFO).rpartition("-")[0])


def _folders_below(top: Path) -> Iterator[Path]:
    """The deepest first."""
    for folder, _, _ in os.walk(top, topdown=False):
        yield Path(folder)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_empty(folder: Path, above: Path) -> None:
    """Remove folders as long as nothing but compiled code is in them, up to one that stays."""
    while folder != above and folder.is_relative_to(above) and folder.is_dir():
        if any(path.name != "__pycache__" for path in folder.iterdir()):
            return
        shutil.rmtree(folder)
        folder = folder.parent
