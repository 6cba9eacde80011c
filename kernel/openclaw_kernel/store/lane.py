"""Work for a thread that owns a connection: handed over by a bounded queue, answered in batches."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from types import BuiltinFunctionType, FunctionType, MethodType, TracebackType
from typing import Any, Final, Literal

from openclaw_kernel.store.connection import SharedConnection
from openclaw_kernel.store.errors import StoreClosed, StoreError

logger: Final = logging.getLogger(__name__)

QUEUE_LIMIT: Final = 1024
GROUP_LIMIT: Final = 256
SLOW_SECONDS: Final = 1.0
WATCH_SECONDS: Final = 2.0
"""How long a work may run before the log names it, while it runs; then again after twice that time, and so on."""
STUCK_SECONDS: Final = 30.0
"""How long a work may run before the statement it is in is broken off. What hangs outside of SQLite cannot be."""


class _Captured:
    """A context manager that keeps whatever its body raises.

    A work's exception is its caller's, whatever it is; the thread that ran it must outlive it.
    """

    __slots__ = ("error",)

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> Literal[True]:
        self.error = error
        return True


def capture(work: Callable[[], object]) -> BaseException | None:
    """Run the work and return what it raised."""
    captured = _Captured()
    with captured:
        work()
    return captured.error


class Item(_Captured):
    """One work with its waiting caller, later its value or error. `began` is set while it runs."""

    __slots__ = ("began", "future", "next_warning", "value", "work")

    def __init__(self, work: Callable[[Any], Any], future: asyncio.Future[Any]) -> None:
        super().__init__()
        self.work = work
        self.future = future
        self.value: Any = None
        self.began: float | None = None
        self.next_warning = 0.0

    @property
    def name(self) -> str:
        """Where the work comes from, for people."""
        # Attributes of an object of a plugin's own may be properties that raise.
        named = self.work if isinstance(self.work, FunctionType | MethodType | BuiltinFunctionType) else type(self.work)
        return f"{named.__module__}.{named.__qualname__}"

    def run(self, connection: sqlite3.Connection) -> None:
        """Do the work; its result or exception stays in this item."""
        self.began = time.monotonic()
        with self:
            self.value = _settled(self.work(connection))
        self.began = None

    def resolve(self) -> None:
        """Answer the caller; on the loop's thread."""
        if self.future.done():
            if self.error is not None:
                logger.warning("nobody waits any more for %s, which failed", self.name, exc_info=self.error)
            return
        if self.error is None:
            self.future.set_result(self.value)
        elif isinstance(self.error, Exception) and not isinstance(self.error, StopIteration):
            self.future.set_exception(self.error)
        else:
            # A future refuses StopIteration, and SystemExit would end the loop of all.
            replacement = StoreError(f"a work of the store raised {self.error!r}; raise an ordinary exception")
            replacement.__cause__ = self.error
            self.future.set_exception(replacement)


def _settled(value: Any) -> Any:
    """Return what a work returned; raise `TypeError` for what would only begin to read once the work is over."""
    if isinstance(value, sqlite3.Cursor):
        # `lambda connection: connection.execute(...)` returns one; left open it would hold up the commit.
        value.close()
        return None
    if inspect.iscoroutine(value):
        value.close()
        raise TypeError("a work of the store is async; make it a plain function")
    if isinstance(value, Iterator):
        raise TypeError(f"a work of the store returned a {type(value).__name__}, which reads later; return a list")
    return value


class Lane:
    """A queue of works and the daemon threads that serve it, one connection each.

    `serve` gets a connection and a group of items and leaves each with its value or error; it must not raise.
    """

    def __init__(
        self,
        name: str,
        connections: Sequence[SharedConnection],
        serve: Callable[[Any, list[Item]], None],
        *,
        group_limit: int = GROUP_LIMIT,
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        self._name = name
        self.connections: Final = tuple(connections)
        self._serve = serve
        self._group_limit = group_limit
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(queue_limit)
        self._queue: SimpleQueue[Item | None] = SimpleQueue()
        self._closed = False
        self._ended = asyncio.Event()
        self._alive = len(connections)
        self._serving: dict[SharedConnection, list[Item]] = {}
        self._pending = 0
        self._look_timer: asyncio.TimerHandle | None = None
        self._threads = [
            threading.Thread(target=self._run, args=(connection,), name=f"{name}-{number}", daemon=True)
            for number, connection in enumerate(connections, 1)
        ]
        for thread in self._threads:
            thread.start()

    async def submit(self, work: Callable[[Any], Any]) -> Any:
        """Queue a work, waiting while the queue is full, and return its result.

        A caller that is cancelled while it waits for the result does not take the work back.
        """
        await self._slots.acquire()
        # Looked at after the wait, during which the store may have been closed.
        if self._closed:
            self._slots.release()
            raise StoreClosed("the store is closed; nothing is written or read once the gateway has stopped")
        item = Item(work, self._loop.create_future())
        self._pending += 1
        self._queue.put(item)
        self._look_later()
        return await item.future

    async def close(self, timeout: float) -> bool:
        """Finish what is queued and end the threads; return False where one did not end in `timeout` seconds."""
        if not self._closed:
            self._closed = True
            for _ in self._threads:
                self._queue.put(None)
        try:
            async with asyncio.timeout(timeout):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    def running(self) -> list[str]:
        """Return the names of the works that run now."""
        return [item.name for _, item in self._running()]

    def _run(self, connection: SharedConnection) -> None:
        try:
            while (group := self._take()) is not None:
                self._serving[connection] = group
                began = time.monotonic()
                fault = capture(partial(self._serve, connection, group))
                if fault is not None:
                    self._give_up(group, fault)
                del self._serving[connection]
                self._tell(self._resolve, group)
                seconds = time.monotonic() - began
                if seconds > SLOW_SECONDS:
                    self._complain(group, seconds)
        finally:
            connection.close_for_good()
            self._tell(self._thread_ended)

    def _give_up(self, group: list[Item], fault: BaseException) -> None:
        # Whatever it is, the thread lives on: without it nothing would be served any more.
        logger.error("%s: serving %s failed", self._name, ", ".join(item.name for item in group), exc_info=fault)
        for item in group:
            item.error = item.error or StoreError(f"{self._name}: failed ({fault!r}); see the log")

    def _running(self) -> list[tuple[SharedConnection, Item]]:
        return [(connection, item) for connection, group in list(self._serving.items()) for item in group if item.began is not None]

    def _look_later(self) -> None:
        if self._look_timer is None and self._pending and not self._ended.is_set():
            self._look_timer = self._loop.call_later(WATCH_SECONDS / 2, self._look)

    def _look(self) -> None:
        """Name the works that run for too long while they do: whoever waits behind them sees nothing else."""
        self._look_timer = None
        for connection, item in self._running():
            seconds = time.monotonic() - (item.began or time.monotonic())
            if seconds >= max(WATCH_SECONDS, item.next_warning):
                item.next_warning = 2 * seconds
                logger.warning(
                    "%s: %s has not ended for %.1f s, everything behind it waits; make it smaller", self._name, item.name, seconds
                )
            if seconds >= STUCK_SECONDS:
                connection.interrupt()
        self._look_later()

    def _complain(self, group: list[Item], seconds: float) -> None:
        # All others waited meanwhile.
        names = ", ".join(sorted({item.name for item in group}))
        logger.warning("%s: %.1f s for %s; make the works smaller", self._name, seconds, names)

    def _take(self) -> list[Item] | None:
        first = self._queue.get()
        if first is None:
            return None
        group = [first]
        while len(group) < self._group_limit:
            try:
                item = self._queue.get_nowait()
            except Empty:
                break
            if item is None:
                # For the next round, which ends this thread.
                self._queue.put(None)
                break
            group.append(item)
        return group

    def _tell(self, callback: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            logger.warning("%s: the event loop ended before the store was closed", self._name)

    def _resolve(self, group: list[Item]) -> None:
        self._pending -= len(group)
        for item in group:
            self._slots.release()
            item.resolve()

    def _thread_ended(self) -> None:
        self._alive -= 1
        if self._alive == 0:
            self._ended.set()
            if self._look_timer is not None:
                self._look_timer.cancel()
