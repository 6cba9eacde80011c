"""Clients that follow the event log: one feed a connection, paced by what its socket takes."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Protocol

from openclaw_kernel.api.errors import GatewayError, InvalidRequest, Unavailable
from openclaw_kernel.api.methods import Scope
from openclaw_kernel.api.services import EventGap, EventSubscription, GapReason
from openclaw_kernel.bus import EventBus, Subscriber, may_hear
from openclaw_kernel.events.log import EventLog, Place
from openclaw_kernel.events.records import Record, current_frame, gap_frame
from openclaw_kernel.protocol.events import KERNEL_EVENTS, EventRegistry, protocol_scope
from openclaw_kernel.tasks import TaskOwner

logger: Final = logging.getLogger(__name__)

_SKIPPED_BEFORE_TOLD: Final = 1_000
_RETRY_SECONDS: Final = 1.0
_KERNELS: Final = frozenset(spec.name for spec in KERNEL_EVENTS)
_NOBODYS: Final = "no scope"
"""A scope that nobody can hold."""


class Follower(Subscriber, Protocol):
    """A connection as a feed needs it."""

    async def room(self) -> None:
        """Wait until the socket has taken most of what was sent."""
        ...

    def send(self, frame: bytes) -> None:
        """Queue a frame outside the broadcast sequence."""
        ...

    def skipped(self) -> None:
        """Leave a gap in the broadcast sequence: the connection missed something."""
        ...


@dataclass(slots=True)
class _Following:
    leave: Callable[[], None]
    feed: _Feed | None = None
    task: asyncio.Task[None] | None = None


class LogReplay:
    """Implements the service `EventReplay`."""

    def __init__(self, log: EventLog, bus: EventBus) -> None:
        self._log = log
        self._bus = bus
        self._open: dict[str, Follower] = {}
        self._following: dict[str, _Following] = {}
        self._tasks = TaskOwner("event feeds", _task_failed)

    def attach(self, follower: Follower) -> Callable[[], None]:
        """Let a connection subscribe; call the result when it is gone."""
        self._open[follower.connection_id] = follower

        def detach() -> None:
            self._open.pop(follower.connection_id, None)
            self.unsubscribe(follower.connection_id)

        return detach

    async def close(self) -> None:
        """End all feeds."""
        for connection_id in list(self._following):
            self.unsubscribe(connection_id)
        await self._tasks.close(1.0)

    async def subscribe(self, connection_id: str, *, since: str | None, events: Collection[str] | None) -> EventSubscription:
        """See `openclaw_kernel.api.EventReplay.subscribe`."""
        wanted = None if events is None else self._check(events)
        await self._log.record()
        follower = self._open.get(connection_id)
        if follower is None:
            raise Unavailable("the connection is gone")
        place, gap = self._start(since)
        self.unsubscribe(connection_id)
        following = self._following[connection_id] = _Following(self._log.follow())
        # From here on nothing that is recorded comes to it any other way; what came before is behind `place`.
        self._bus.follow(connection_id)
        if place is None:
            place, lost = await self._settle(follower, following)
            gap = gap or lost
        feed = following.feed = _Feed(self._log, follower, wanted, place, self._bus.events)
        # Its first step comes after this method's answer, which does not wait any more.
        following.task = self._tasks.spawn(f"feed {connection_id}", feed.run())
        oldest = self._log.oldest
        told = None if gap is None else EventGap(reason=gap, oldest_ms=None if oldest is None else oldest.time_ms)
        return EventSubscription(cursor=self._log.cursor(place), gap=told)

    def unsubscribe(self, connection_id: str) -> str | None:
        """See `openclaw_kernel.api.EventReplay.unsubscribe`."""
        following = self._following.pop(connection_id, None)
        self._bus.unfollow(connection_id)
        if following is None:
            return None
        following.leave()
        if following.task is not None:
            following.task.cancel()
        return None if following.feed is None else self._log.cursor(following.feed.place)

    async def _settle(self, follower: Follower, following: _Following) -> tuple[Place, GapReason | None]:
        """Wait until all that the connection got as plain events is on disk: a cursor behind it is the first it is given."""
        name = follower.connection_id
        settled: tuple[Place, GapReason | None] | None = None
        try:
            async with asyncio.timeout(self._log.bounds.settle_seconds):
                settled = await self._log.settled()
        except TimeoutError:
            raise Unavailable("events cannot be written to disk now; the log has the details", retry_after_ms=1000) from None
        finally:
            if settled is None and self._following.get(name) is following:
                # Meanwhile nobody sent it what was recorded.
                self.unsubscribe(name)
                follower.skipped()
        if self._following.get(name) is not following:
            raise InvalidRequest("another events.subscribe or events.unsubscribe of this connection came before the answer")
        return settled

    def _check(self, events: Collection[str]) -> frozenset[str]:
        # The kernel's own are state that a client is told again by itself.
        for event in events:
            if event in _KERNELS or _scope_of(event, self._bus.events) in {None, _NOBODYS}:
                raise InvalidRequest(f"events: {event[:80]!r} is no event that is kept; leave it out, or leave out `events` to get all")
        return frozenset(events)

    def _start(self, since: str | None) -> tuple[Place | None, GapReason | None]:
        if since is None:
            return None, None
        found = self._log.find(since)
        return (None, found) if isinstance(found, GapReason) else (found, None)


class _Feed:
    """Sends one client what it may hear, in order, from its place on."""

    def __init__(self, log: EventLog, follower: Follower, events: frozenset[str] | None, place: Place, registry: EventRegistry) -> None:
        self._log = log
        self._follower = follower
        self._events = events
        self._registry = registry
        self.place = place
        self._scopes: dict[str, str | None] = {}
        self._catch_up = log.last
        self._caught_up = False
        self._unsent = 0

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            self._cross()
            try:
                page = await self._log.read(self.place.position)
            except (GatewayError, sqlite3.Error) as error:
                logger.warning("events cannot be read again; trying again in %.0f s: %s", _RETRY_SECONDS, error)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if page is None:
                await self._follower.room()
                self.place = self._log.end()
                self._tell_gap(GapReason.TOO_OLD)
                continue
            for record in page:
                await self._send(record)
            await self._tell_current()
            if page:
                await asyncio.sleep(0)
            else:
                await self._log.moved(self.place)

    def _cross(self) -> None:
        self.place, gap = self._log.cross(self.place)
        if gap is not None:
            self._tell_gap(gap)

    async def _send(self, record: Record) -> None:
        await self._follower.room()
        self._cross()
        self.place = Place(self.place.epoch, record.position)
        if self._is_for(record):
            self._unsent = 0
            self._follower.send(record.frame(self._log.epochs[self.place.epoch]))
        else:
            self._unsent += 1

    async def _tell_current(self) -> None:
        at_end = self.place.position >= self._log.written
        first = not self._caught_up and self.place.position >= min(self._catch_up, self._log.last)
        if first or (at_end and self._unsent >= _SKIPPED_BEFORE_TOLD):
            await self._follower.room()
            self._cross()
            self._caught_up, self._unsent = True, 0
            self._follower.send(current_frame(self._log.cursor(self.place)))

    def _tell_gap(self, reason: GapReason) -> None:
        oldest = self._log.oldest
        self._follower.send(gap_frame(reason, self._log.cursor(self.place), None if oldest is None else oldest.time_ms))

    def _is_for(self, record: Record) -> bool:
        if not record.payload or (self._events is not None and record.event not in self._events):
            return False
        if record.event not in self._scopes:
            self._scopes[record.event] = _scope_of(record.event, self._registry)
        return may_hear(self._follower, self._scopes[record.event], record.topics, record.scoped_topic)


def _scope_of(event: str, registry: EventRegistry) -> str | None:
    try:
        return registry.scope(event)
    except LookupError:
        # Its plugin does not run now; or a newer version wrote it, and this one cannot tell who may hear it.
        scope = protocol_scope(event)
        return scope.value if isinstance(scope, Scope) else _NOBODYS


def _task_failed(name: str, error: BaseException) -> None:
    logger.error("task %s failed", name, exc_info=error)
