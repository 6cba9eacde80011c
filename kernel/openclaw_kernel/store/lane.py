"""Work for a thread that owns a connection: handed over by a bounded queue, answered in batches."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final, Literal

from openclaw_kernel.store.errors import StoreClosed, StoreError

logger: Final = logging.getLogger(__name__)

QUEUE_LIMIT: Final = 1024
GROUP_LIMIT: Final = 256
SLOW_SECONDS: Final = 1.0


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


def capture(work: Callable[[], None]) -> BaseException | None:
    """Run the work and return what it raised."""
    captured = _Captured()
    with captured:
        work()
    return captured.error


class Item(_Captured):
    """One work with its waiting caller, later its value or error."""

    __slots__ = ("future", "value", "work")

    def __init__(self, work: Callable[[Any], Any], future: asyncio.Future[Any]) -> None:
        super().__init__()
        self.work = work
        self.future = future
        self.value: Any = None

    def run(self, connection: sqlite3.Connection) -> None:
        """Do the work; its result or exception stays in this item."""
        with self:
            value = self.work(connection)
            if isinstance(value, sqlite3.Cursor):
                # `lambda connection: connection.execute(...)` returns one; left open it would hold up the commit.
                value.close()
                value = None
            self.value = value

    def resolve(self) -> None:
        """Answer the caller; on the loop's thread."""
        if self.future.done():
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


class Lane:
    """A queue of works and the daemon threads that serve it, one connection each.

    `serve` gets a connection and a group of items and leaves each with its value or error; it must not raise.
    """

    def __init__(
        self,
        name: str,
        connections: Sequence[sqlite3.Connection],
        serve: Callable[[Any, list[Item]], None],
        *,
        group_limit: int = GROUP_LIMIT,
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        self._name = name
        self._serve = serve
        self._group_limit = group_limit
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(queue_limit)
        self._queue: SimpleQueue[Item | None] = SimpleQueue()
        self._closed = False
        self._ended = asyncio.Event()
        self._alive = len(connections)
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
        self._queue.put(item)
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

    def _run(self, connection: sqlite3.Connection) -> None:
        try:
            while (group := self._take()) is not None:
                began = time.monotonic()
                self._serve(connection, group)
                self._tell(self._resolve, group)
                seconds = time.monotonic() - began
                if seconds > SLOW_SECONDS:
                    self._complain(group, seconds)
        finally:
            connection.close()
            self._tell(self._thread_ended)

    def _complain(self, group: list[Item], seconds: float) -> None:
        # All others waited meanwhile.
        names = ", ".join(sorted({f"{item.work.__module__}.{getattr(item.work, '__qualname__', '?')}" for item in group}))
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
        for item in group:
            self._slots.release()
            item.resolve()

    def _thread_ended(self) -> None:
        self._alive -= 1
        if self._alive == 0:
            self._ended.set()
