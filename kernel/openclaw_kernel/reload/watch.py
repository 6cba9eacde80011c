"""Follows the files of the configuration: a save is told once, when it has come to rest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Final, Protocol

from openclaw_kernel.files.mounts import far_type
from openclaw_kernel.files.states import Seen, folders_of, identity_of, state_of
from openclaw_kernel.files.watching import FolderWatch

logger = logging.getLogger("openclaw.reload")

LOOK_SECONDS: Final = 5.0
"""Between looks, for what the system did not tell."""
FAR_SECONDS: Final = 1.0
"""Between looks where it tells nothing of what others write: on a network's file system."""
_MOST_DEBOUNCES: Final = 10
_LEAST_PATIENCE: Final = 1.0


class Edited(Protocol):
    """Told of a save."""

    def __call__(self, *, at_rest: bool) -> Awaitable[None]:
        """Read the files. Not `at_rest`: they are written again and again, and what is there now may be half of something."""
        ...


class ConfigWatch:
    """Watches while `follow` runs.

    `files` are those that take part, asked for anew before each look; `debounce_ms` is how long they have to stay as they are. `unsettled`
    tells that what was read last was wrong: then it is read at each look, for what mends it may be a file that nobody knows of.
    """

    def __init__(
        self,
        *,
        files: Callable[[], Collection[Path]],
        debounce_ms: Callable[[], int],
        edited: Edited,
        unsettled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._files = files
        self._debounce_ms = debounce_ms
        self._edited = edited
        self._unsettled = unsettled
        self._ends = False
        self._wake: asyncio.Event | None = None
        self._folders: Mapping[Path, tuple[int, ...] | None] = {}
        self._look = LOOK_SECONDS
        self.ready = asyncio.Event()
        """Set once it watches."""

    def end(self) -> None:
        """Let `follow` return."""
        self._ends = True
        if self._wake is not None:
            self._wake.set()

    async def follow(self, seen: Seen | None = None) -> None:
        """Tell of every save after `seen`, by default after now, until `end` is called."""
        watch = FolderWatch(_cannot_watch)
        self._wake = watch.changed
        try:
            await self._watch(watch)
            seen = await self._state() if seen is None else seen
            self.ready.set()
            while not self._ends:
                now = await self._state()
                if now == seen:
                    if not await self._woken(watch) and self._unsettled():
                        await self._edited(at_rest=True)
                    continue
                now, at_rest = await self._at_rest(now)
                # What was told too early is told once more when it has come to rest, also where nobody writes again.
                seen = now if at_rest else None
                await self._edited(at_rest=at_rest)
                # It may be other files from now on, or the same ones elsewhere.
                await self._watch(watch)
        finally:
            self.ready.clear()
            await asyncio.shield(asyncio.to_thread(watch.close))

    async def _watch(self, watch: FolderWatch) -> None:
        files = self._files()
        found = await asyncio.to_thread(lambda: {folder: identity_of(folder) for file in files for folder in folders_of(file)})
        # One that took the name of another is not the one that is watched.
        if found == self._folders:
            return
        self._folders = found
        folders = list(found)
        await asyncio.to_thread(watch.watch, folders)
        far = await asyncio.to_thread(lambda: {folder: kind for folder in folders if (kind := far_type(folder))})
        self._look = FAR_SECONDS if far else LOOK_SECONDS
        for folder, kind in sorted(far.items()):
            logger.info("%s is on %s, which does not tell of every change; the files are looked at every %.0f s", folder, kind, FAR_SECONDS)

    async def _state(self) -> Seen:
        files = sorted(self._files())
        return await asyncio.to_thread(lambda: tuple(state_of(file) for file in files))

    async def _woken(self, watch: FolderWatch) -> bool:
        """Wait for news; return whether there were any before the next look was due."""
        try:
            async with asyncio.timeout(self._look):
                await watch.changed.wait()
        except TimeoutError:
            return False
        watch.changed.clear()
        return True

    async def _at_rest(self, seen: Seen) -> tuple[Seen, bool]:
        """Wait until nothing changes for the debounce, but not for ever; return what is there, and whether it is at rest."""
        loop = asyncio.get_running_loop()
        debounce = self._debounce_ms() / 1000
        deadline = loop.time() + max(_LEAST_PATIENCE, debounce * _MOST_DEBOUNCES)
        while True:
            await asyncio.sleep(debounce)
            now = await self._state()
            if now == seen:
                return now, True
            if loop.time() >= deadline:
                return now, False
            seen = now


def _cannot_watch(folder: Path, error: OSError) -> None:
    reason = (error.strerror or str(error)).lower()
    logger.warning("%s cannot be watched (%s); its files are looked at every %.0f s instead", folder, reason, LOOK_SECONDS)
