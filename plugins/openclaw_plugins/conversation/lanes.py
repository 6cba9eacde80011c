"""Lanes: in each session one run at a time, the others wait in order; sessions run beside each other."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from openclaw_plugins.conversation.runs import Run

logger: Final = logging.getLogger(__name__)


class _Lane:
    __slots__ = ("queue", "running")

    def __init__(self) -> None:
        self.running: Run | None = None
        self.queue: deque[Run] = deque()


class Lanes:
    """Exclusion by structure: a lane's one task performs its runs one after the other."""

    def __init__(
        self,
        *,
        spawn: Callable[[str, Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        perform: Callable[[Run], Awaitable[None]],
        failed: Callable[[Run, BaseException], Awaitable[None]],
    ) -> None:
        self._spawn = spawn
        self._perform = perform
        self._failed = failed
        self._lanes: dict[str, _Lane] = {}
        self._closing = False
        self._opened = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()

    def open(self) -> None:
        """Let runs be performed; those that came before have waited."""
        self._opened.set()

    @property
    def is_open(self) -> bool:
        """Tell whether a run with its lane is performed at once."""
        return self._opened.is_set()

    def waiting(self, session_key: str) -> int:
        """Return how many runs wait behind the one that goes on."""
        lane = self._lanes.get(session_key)
        return 0 if lane is None else len(lane.queue)

    def running(self, session_key: str) -> Run | None:
        """Return the run that has a session's lane."""
        lane = self._lanes.get(session_key)
        return None if lane is None else lane.running

    def claim(self, run: Run) -> bool:
        """Take a free lane for a run that is about to be written; follow with `start` or `release`."""
        if self._closing or run.session_key in self._lanes:
            return False
        lane = self._lanes[run.session_key] = _Lane()
        lane.running = run
        self._quiet.clear()
        return True

    def start(self, run: Run) -> None:
        """Perform a run that has its lane."""
        lane = self._lanes[run.session_key]
        self._spawn(f"lane {run.session_key}", self._serve(run.session_key, lane))

    def release(self, run: Run) -> None:
        """Give back the lane of a run that never came to be."""
        lane = self._lanes[run.session_key]
        if lane.queue and not self._closing:
            lane.running = lane.queue.popleft()
            self.start(lane.running)
        else:
            self._drop(run.session_key)

    def enqueue(self, run: Run, *, first: bool = False) -> bool:
        """Let a run wait for its turn, or start it where the lane is free; return whether it was started."""
        if self.claim(run):
            self.start(run)
            return True
        lane = self._lanes.get(run.session_key)
        if lane is not None and first:
            lane.queue.appendleft(run)
        elif lane is not None:
            lane.queue.append(run)
        return False

    def withdraw(self, session_key: str, run: Run | None = None) -> list[Run]:
        """Take one waiting run, or all of them, out of a lane."""
        lane = self._lanes.get(session_key)
        if lane is None:
            return []
        taken = [waiting for waiting in lane.queue if run is None or waiting is run]
        for waiting in taken:
            lane.queue.remove(waiting)
        return taken

    async def drain(self) -> None:
        """Begin nothing more, and wait until what runs has ended; what waits goes on waiting."""
        self._closing = True
        if self.is_open:
            await self._quiet.wait()

    def break_off(self) -> None:
        """Begin nothing more, and break off what runs, which the next process takes up."""
        self._closing = True
        self._opened.set()
        for lane in self._lanes.values():
            if lane.running is not None:
                lane.running.stop("interrupted")

    async def close(self, seconds: float) -> None:
        """Break off what runs, and wait until it is quiet."""
        self.break_off()
        try:
            async with asyncio.timeout(seconds):
                await self._quiet.wait()
        except TimeoutError:
            logger.warning("lanes: %d turns had not ended %.0f s after the stop", len(self._lanes), seconds)

    async def _serve(self, session_key: str, lane: _Lane) -> None:
        try:
            await self._opened.wait()
            if self._closing:
                return
            while lane.running is not None:
                run = lane.running
                # A fault in one run, whatever it is, must neither end the lane nor go unanswered.
                (problem,) = await asyncio.gather(self._perform(run), return_exceptions=True)
                if isinstance(problem, BaseException):
                    logger.error("run %s in %s failed", run.run_id, session_key, exc_info=problem)
                    (again,) = await asyncio.gather(self._failed(run, problem), return_exceptions=True)
                    if isinstance(again, BaseException):
                        logger.error("run %s: its failure could not be written down", run.run_id, exc_info=again)
                lane.running = lane.queue.popleft() if lane.queue and not self._closing else None
        finally:
            self._drop(session_key)

    def _drop(self, session_key: str) -> None:
        self._lanes.pop(session_key, None)
        if not self._lanes:
            self._quiet.set()
