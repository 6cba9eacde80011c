"""Notices that files change, where the system tells; where it does not, who waits looks by itself now and then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

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
