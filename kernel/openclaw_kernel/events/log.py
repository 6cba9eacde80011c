"""The event log: events are written in batches behind the broadcasts, and read again from any position that is still kept.

It records only while somebody may ask: from the first `events.subscribe` in a state folder until the last client with a cursor has been
away for longer than events are kept. A gateway that nobody asks for a cursor writes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeAlias

from openclaw_kernel.api.errors import GatewayError, InvalidRequest, Unavailable
from openclaw_kernel.api.services import GapReason
from openclaw_kernel.api.store import Store
from openclaw_kernel.events import table
from openclaw_kernel.events.records import Bounds, Epoch, Record, read_cursor, record_size
from openclaw_kernel.tasks import TaskOwner

logger: Final = logging.getLogger(__name__)

_SOON_BYTES: Final = 1_048_576
_FIRST_DELAY: Final = 0.05
_LONGEST_DELAY: Final = 10.0
_CLOSE_SECONDS: Final = 3.0
_NEWEST_KEPT: Final = 1_000

_Key: TypeAlias = tuple[str, tuple[str, ...] | None, str | None, str]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reader stands: the epoch's number in `EventLog.epochs` and the last position it has seen."""

    epoch: int
    position: int


@dataclass(slots=True, eq=False)
class _Target:
    position: int


class EventLog:
    """The log over the store's tables; used on the loop only. `written` is the last position that is on disk."""

    def __init__(self, store: Store, *, now_ms: Callable[[], int], bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self.recording = False
        self.epochs: list[Epoch] = []
        self.written = 0
        self.oldest: table.Oldest | None = None
        self._store = store
        self._now_ms = now_ms
        self._waiting: list[Record] = []
        self._waiting_bytes = 0
        self._last = 0
        self._total = self._taken_total = 0
        self._newest: dict[_Key, tuple[int, int]] = {}
        self._lost = False
        self._targets: list[_Target] = []
        self._tail: deque[Record] = deque()
        self._tail_bytes = 0
        self._followers = 0
        self._wanted_ms = 0
        self._closing = False
        self._work = asyncio.Event()
        self._hurry = asyncio.Event()
        self._moved = asyncio.Event()
        self._beginning = asyncio.Lock()
        self._tasks = TaskOwner("event log", _task_failed)
        self._writer: asyncio.Task[None] | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Take up what an earlier process left; record where its clients may still come back."""
        found = await self._store.read(table.find)
        self.oldest = await self._store.read(table.oldest_of)
        self.epochs = found.epochs
        self.written = self._last = found.last
        self._total = self._taken_total = found.total
        self._wanted_ms = found.wanted_ms
        if found.epochs and self._is_wanted():
            await self._begin(None if found.ended else GapReason.CRASH)
        self._writer = self._tasks.spawn("writer", self._run())

    async def close(self) -> None:
        """Write what waits; note that nothing was lost. What cannot be written within 3 s is told as a gap later."""
        recording, self.recording = self.recording, False
        self._closing = True
        self._work.set()
        self._hurry.set()
        if self._writer is not None:
            await asyncio.wait({self._writer}, timeout=_CLOSE_SECONDS)
        await self._tasks.close(1.0)
        if not recording or self._waiting or self._lost or self.written != self._last:
            return
        if self._followers:
            self._wanted_ms = self._now_ms()
        name, wanted = self.epochs[-1].name, self._wanted_ms
        try:
            await self._store.write(lambda connection: table.mark(connection, name, wanted_ms=wanted, ended=True))
        except GatewayError as error:
            logger.warning("the event log could not be closed; clients will be told of a gap: %s", error.message)

    async def record(self) -> None:
        """Record from now on, where it does not; raise `Unavailable` where the store fails."""
        async with self._beginning:
            if self._closing:
                raise Unavailable("gateway is restarting; retry shortly", retry_after_ms=1000)
            if not self.recording:
                self._wanted_ms = self._now_ms()
                await self._begin(GapReason.PAUSED)

    def follow(self) -> Callable[[], None]:
        """Count a client that follows live; call the result when it leaves."""
        self._followers += 1
        self._hurry.set()
        return self._unfollow

    def _unfollow(self) -> None:
        self._followers -= 1
        self._wanted_ms = self._now_ms()

    def _is_wanted(self) -> bool:
        return self._followers > 0 or self._now_ms() - self._wanted_ms <= self.bounds.age_seconds * 1000

    async def _begin(self, gap: GapReason | None) -> None:
        epoch, wanted = self._new_epoch(gap), self._wanted_ms
        await self._store.write(lambda connection: table.begin_epoch(connection, epoch, wanted))
        self.epochs.append(epoch)
        self.recording = True
        self._notify()

    def _new_epoch(self, gap: GapReason | None) -> Epoch:
        return Epoch(self.written + 1, secrets.token_hex(8), gap)

    # --- writing ------------------------------------------------------------------------------------------------------

    def append(
        self, event: str, payload: bytes, topics: Collection[str] | None, scoped_topic: str | None, replaces: str | None = None
    ) -> None:
        """Take an event, to be written soon; does nothing while nothing is recorded."""
        if not self.recording:
            return
        size = record_size(event, payload)
        if self._waiting_bytes + size > self.bounds.waiting and self._waiting:
            self._give_up()
        self._last += 1
        self._total += size
        names = None if topics is None else tuple(topics)
        replaced = None if replaces is None else self._replace((event, names, scoped_topic, replaces), len(payload))
        self._waiting.append(Record(self._last, self._now_ms(), event, names, scoped_topic, payload, self._total, replaced))
        self._waiting_bytes += size
        self._work.set()
        if self._waiting_bytes >= _SOON_BYTES:
            self._hurry.set()

    def _replace(self, key: _Key, size: int) -> int | None:
        """Note the newest event of its kind; return the position of the one before, whose bytes no longer count."""
        before = self._newest.pop(key, None)
        self._newest[key] = (self._last, size)
        if len(self._newest) > _NEWEST_KEPT:
            del self._newest[next(iter(self._newest))]
        if before is None:
            return None
        position, freed = before
        self._total -= freed
        return position

    @property
    def last(self) -> int:
        """The position of the newest event, which may not be on disk yet."""
        return self._last

    def _give_up(self) -> None:
        logger.error(
            "%d events wait for the disk and are not kept; clients are told of a gap. Look after the disk of the state folder",
            len(self._waiting),
        )
        self._last = self._waiting[0].position - 1
        self._total = self._taken_total
        self._newest.clear()
        self._waiting, self._waiting_bytes = [], 0
        self._lost = True
        for target in self._targets:
            target.position = min(target.position, self._last)
        self._notify()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self.bounds.maintain_seconds
        while True:
            if not self._waiting and not self._lost:
                if self._closing:
                    return
                self._work.clear()
                await _within(max(0.0, due - loop.time()), self._work)
            if loop.time() >= due:
                await self._maintain()
                due = loop.time() + self.bounds.maintain_seconds
            if not self._waiting and not self._lost:
                continue
            self._hurry.clear()
            if not self._closing:
                seconds = self.bounds.gather_seconds if self._followers else self.bounds.linger_seconds
                await _within(seconds, self._hurry)
            await self._flush()

    async def _flush(self) -> None:
        batch, self._waiting, self._waiting_bytes = self._waiting, [], 0
        self._taken_total = self._total
        epoch = self._new_epoch(GapReason.LOST) if self._lost else None
        self._lost = False
        self.oldest = await self._written(lambda connection: self._write(connection, batch, epoch), len(batch))
        if epoch is not None:
            self.epochs.append(epoch)
        if batch:
            self.written = batch[-1].position
            self._remember(batch)
        self._notify()

    async def _written(self, work: Callable[[sqlite3.Connection], table.Oldest | None], count: int) -> table.Oldest | None:
        delay = _FIRST_DELAY
        while True:
            try:
                return await self._store.write(work)
            except (GatewayError, sqlite3.Error) as error:
                logger.warning("%d events are not written yet; again in %.1f s: %s", count, delay, error)
            await asyncio.sleep(delay)
            delay = min(_LONGEST_DELAY, delay * 3)

    def _write(self, connection: sqlite3.Connection, batch: list[Record], epoch: Epoch | None) -> table.Oldest | None:
        if epoch is not None:
            table.begin_epoch(connection, epoch, self._wanted_ms)
        table.insert(connection, batch)
        # A little more than came in, so that the log shrinks in small steps where it must.
        return table.trim(connection, self.bounds, self._now_ms(), 2 * len(batch) + 16)[0]

    def _remember(self, batch: list[Record]) -> None:
        self._tail.extend(batch)
        self._tail_bytes += sum(one.size for one in batch)
        while self._tail and (self._tail_bytes > self.bounds.tail or not self._followers):
            self._tail_bytes -= self._tail.popleft().size

    async def _maintain(self) -> None:
        now = self._now_ms()
        if self._followers:
            self._wanted_ms = now
        wanted, more = self._wanted_ms, True
        try:
            if self.recording and not self._is_wanted():
                self.recording = False
            if self.epochs and self._followers:
                name = self.epochs[-1].name
                await self._store.write(lambda connection: table.mark(connection, name, wanted_ms=wanted, ended=False))
            while more and self.oldest is not None and now - self.oldest.time_ms > self.bounds.age_seconds * 1000:
                self.oldest, more = await self._store.write(lambda connection: table.trim(connection, self.bounds, now))
        except (GatewayError, sqlite3.Error) as error:
            logger.warning("old events are not forgotten yet: %s", error)

    # --- reading ------------------------------------------------------------------------------------------------------

    def end(self) -> Place:
        """Return the place behind all that is on disk."""
        return Place(len(self.epochs) - 1, self.written)

    def cursor(self, place: Place) -> str:
        """Return the cursor of a place."""
        return self.epochs[place.epoch].cursor(place.position)

    def find(self, cursor: str) -> Place | GapReason:
        """Return the place of a cursor, or the reason why there is a gap; raise `InvalidRequest` for what is no cursor."""
        parts = read_cursor(cursor)
        if parts is None:
            raise InvalidRequest(f"since: {cursor[:80]!r} is no cursor; use one that events.subscribe or an event brought, or leave it out")
        name, position = parts
        index = next((index for index, epoch in enumerate(self.epochs) if epoch.name == name), None)
        if index is None:
            return GapReason.UNKNOWN
        last = self.epochs[index + 1].first - 1 if index + 1 < len(self.epochs) else self.written
        if not self.epochs[index].first - 1 <= position <= last:
            return GapReason.UNKNOWN
        if position < self._first_kept() - 1:
            return GapReason.TOO_OLD
        return Place(index, position)

    def cross(self, place: Place) -> tuple[Place, GapReason | None]:
        """Step into the epoch of what follows a place; also return why events may be missing there."""
        index = place.epoch
        gap: GapReason | None = None
        while index + 1 < len(self.epochs) and self.epochs[index + 1].first <= place.position + 1:
            index += 1
            gap = self.epochs[index].gap or gap
        return (place if index == place.epoch else Place(index, place.position)), gap

    async def read(self, after: int) -> list[Record] | None:
        """Return the next records, none at the end; None where they are no longer kept. Raise `StoreError`."""
        if after >= self.written:
            return []
        if self._tail and self._tail[0].position <= after + 1:
            first = after + 1 - self._tail[0].position
            return table.fitting(islice(self._tail, first, first + table.PAGE_ROWS), self.bounds.page)
        until, size = self.written, self.bounds.page
        records = await self._store.read(lambda connection: table.page(connection, after, until, size))
        return records if records and records[0].position == after + 1 else None

    async def moved(self, place: Place) -> None:
        """Wait until there is something after a place."""
        while self.written <= place.position and place.epoch == len(self.epochs) - 1:
            await self._moved.wait()

    async def settled(self) -> tuple[Place, GapReason | None]:
        """Wait until all that was appended so far is on disk or given up; return the place behind it, and why there is a gap."""
        target = _Target(self._last)
        index = len(self.epochs) - 1
        self._targets.append(target)
        try:
            while self.written < target.position:
                self._hurry.set()
                await self._moved.wait()
        finally:
            self._targets.remove(target)
        return self.cross(Place(index, target.position))

    def _first_kept(self) -> int:
        return self.written + 1 if self.oldest is None else self.oldest.position

    def _notify(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


async def _within(seconds: float, event: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _task_failed(name: str, error: BaseException) -> None:
    logger.error("task %s failed", name, exc_info=error)
