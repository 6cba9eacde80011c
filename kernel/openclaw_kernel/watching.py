"""Notices that files change, where the system tells; where it does not, who waits looks by itself now and then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeAlias

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

Seen: TypeAlias = tuple[tuple[int, ...] | None, ...]
"""What tells one state of files from another, without reading them."""

_LINKS: Final = 40

# Not every write: a database in the same folder would wake us all the time.
_EVENTS: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
]


def _is_news(record: logging.LogRecord) -> bool:
    # The library's own race when a watch ends: an event came just before.
    return "called when the thread is inactive" not in record.getMessage()


class FolderWatch(FileSystemEventHandler):
    """Sets `changed` when something is made, replaced, removed or written to its end in one of the folders."""

    def __init__(self, complain: Callable[[Path, OSError], None]) -> None:
        """Belong to the running loop. `complain` is told, once, of a folder of which the system tells nothing; it is called in no loop."""
        self.changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._observer = Observer()
        self._complain = complain
        self._complained = False
        logging.getLogger("watchdog.observers.inotify").addFilter(_is_news)

    def watch(self, folders: Iterable[Path]) -> None:
        """Watch these folders from now on, and no others. It speaks with the system: not for the loop."""
        if not self._observer.is_alive():
            self._observer.start()
        self._observer.unschedule_all()
        for folder in sorted(folders):
            try:
                self._observer.schedule(self, str(folder), event_filter=_EVENTS)
            except OSError as error:
                if not self._complained:
                    self._complained = True
                    self._complain(folder, error)

    def close(self) -> None:
        """Stop; waits for the observer's threads, so not on the loop."""
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Hand the news over to the loop; called by the observer's thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.changed.set)


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
