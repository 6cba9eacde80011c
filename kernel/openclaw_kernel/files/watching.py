"""Notices that files change, where the system tells; where it does not, who waits looks by itself now and then."""

from __future__ import annotations

import asyncio
import logging
import threading
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
from watchdog.observers.api import BaseObserver

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
        self._observer: BaseObserver | None = None
        # It is closed by whoever does not wait for its thread any more.
        self._lock = threading.Lock()
        self._closed = False
        self._complain = complain
        self._complained = False
        logging.getLogger("watchdog.observers.inotify").addFilter(_is_news)

    def watch(self, folders: Iterable[Path]) -> None:
        """Watch these folders from now on, and no others. It speaks with the system: not for the loop."""
        with self._lock:
            if self._closed:
                return
            chosen = sorted(folders)
            try:
                observer = self._started()
            except OSError as error:
                for folder in chosen[:1]:
                    self._tell(folder, error)
                return
            observer.unschedule_all()
            for folder in chosen:
                try:
                    observer.schedule(self, str(folder), event_filter=_EVENTS)
                except OSError as error:
                    self._tell(folder, error)

    def close(self) -> None:
        """Stop; waits for the observer's threads and for a `watch` that is under way, so not on the loop."""
        with self._lock:
            self._closed = True
            observer, self._observer = self._observer, None
            if observer is not None:
                observer.stop()
                observer.join()

    def _started(self) -> BaseObserver:
        if self._observer is None:
            # Made no earlier: it holds one of the user's few inotify instances from then on, and gives it back only once it has run.
            observer = Observer()
            observer.start()
            self._observer = observer
        return self._observer

    def _tell(self, folder: Path, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            self._complain(folder, error)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Hand the news over to the loop; called by the observer's thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.changed.set)
