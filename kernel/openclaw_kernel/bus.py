"""Events to connected clients: encoded once, filtered by role, scope and subscription, bounded per subscriber."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol

from openclaw_kernel.protocol.events import EventRegistry
from openclaw_kernel.protocol.frames import EventFrame, dumps

SESSION_SCOPED_CAP = "session-scoped-events"


class Subscriber(Protocol):
    """A connection as the bus needs it."""

    @property
    def connection_id(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def effective_scopes(self) -> frozenset[str]: ...
    @property
    def caps(self) -> frozenset[str]: ...
    @property
    def topics(self) -> Collection[str]: ...
    def offer(self, frame: EventFrame) -> None:
        """Queue the frame, under the connection's next `seq` where it has one; skip it or close the connection where the queue is full."""


class Log(Protocol):
    """Where events are kept for clients that ask for them again."""

    @property
    def recording(self) -> bool: ...
    def append(
        self, event: str, payload: bytes, topics: Collection[str] | None, scoped_topic: str | None, replaces: str | None = None
    ) -> None:
        """Take an event without waiting for the disk."""


class EventBus:
    """Implements the service `Events`. What `log` records reaches those who follow it from there, and all others at once."""

    def __init__(self, events: EventRegistry | None = None) -> None:
        self.events = EventRegistry() if events is None else events
        self.log: Log | None = None
        self._subscribers: dict[str, Subscriber] = {}
        self._followers: set[str] = set()

    def attach(self, subscriber: Subscriber) -> Callable[[], None]:
        """Begin to deliver to a connection; call the result to end it."""
        self._subscribers[subscriber.connection_id] = subscriber
        return lambda: self._detach(subscriber)

    def _detach(self, subscriber: Subscriber) -> None:
        self._subscribers.pop(subscriber.connection_id, None)
        self._followers.discard(subscriber.connection_id)

    def follow(self, connection_id: str) -> None:
        """Offer a connection no more of what is recorded."""
        self._followers.add(connection_id)

    def unfollow(self, connection_id: str) -> None:
        """Offer it everything again."""
        self._followers.discard(connection_id)

    def broadcast(
        self,
        event: str,
        payload: Mapping[str, Any],
        *,
        topics: Collection[str] | None = None,
        scoped_topic: str | None = None,
        connections: Collection[str] | None = None,
        exclude: Collection[str] = (),
        droppable: bool = False,
        replaces: str | None = None,
    ) -> None:
        """See `openclaw_kernel.api.Events.broadcast`."""
        scope = self.events.scope(event)
        log = self.log if connections is None and scope is not None else None
        if log is not None and not log.recording:
            log = None
        receivers = [
            subscriber
            for subscriber in self._candidates(connections)
            if may_hear(subscriber, scope, topics, scoped_topic)
            and (not exclude or subscriber.connection_id not in exclude)
            and (log is None or subscriber.connection_id not in self._followers)
        ]
        if not receivers and log is None:
            return
        encoded = dumps(payload)
        if log is not None:
            log.append(event, encoded, topics, scoped_topic, replaces)
        frame = EventFrame(event, encoded, droppable=droppable, alone=connections is not None)
        for subscriber in receivers:
            subscriber.offer(frame)

    def publish(self, frame: EventFrame) -> None:
        """Send a frame that the kernel made itself (presence, health, tick) to everyone in scope."""
        scope = self.events.scope(frame.name)
        for subscriber in list(self._subscribers.values()):
            if _in_scope(subscriber, scope):
                subscriber.offer(frame)

    def _candidates(self, connections: Collection[str] | None) -> Iterable[Subscriber]:
        if connections is None:
            return list(self._subscribers.values())
        return [found for name in connections if (found := self._subscribers.get(name)) is not None]


def may_hear(subscriber: Subscriber, scope: str | None, topics: Collection[str] | None, scoped_topic: str | None) -> bool:
    """Tell whether an event of this scope and these topics is for a connection."""
    return _in_scope(subscriber, scope) and _subscribed(subscriber, topics, scoped_topic)


def _in_scope(subscriber: Subscriber, scope: str | None) -> bool:
    return scope is None or (subscriber.role == "operator" and scope in subscriber.effective_scopes)


def _subscribed(subscriber: Subscriber, topics: Collection[str] | None, scoped_topic: str | None) -> bool:
    if topics is not None and not any(topic in subscriber.topics for topic in topics):
        return False
    return scoped_topic is None or SESSION_SCOPED_CAP not in subscriber.caps or scoped_topic in subscriber.topics
