"""Events to subscribers: who is meant, in which order, and that one's trouble is not another's."""

from __future__ import annotations

import json
from collections.abc import Collection

import pytest

from openclaw_kernel.protocol.frames import EventFrame
from tests.kernel.declared_events import bus_with_events


class Listener:
    """A subscriber that keeps what it is offered."""

    def __init__(self, name: str, scopes: Collection[str] = ("operator.read",), role: str = "operator") -> None:
        self.connection_id = name
        self.role = role
        self.effective_scopes = frozenset(scopes)
        self.caps: frozenset[str] = frozenset()
        self.topics: set[str] = set()
        self.offered: list[EventFrame] = []

    def offer(self, frame: EventFrame) -> None:
        """Keep the frame."""
        self.offered.append(frame)

    def payloads(self) -> list[object]:
        """What was in the frames."""
        return [json.loads(frame.targeted())["payload"] for frame in self.offered]


@pytest.mark.parametrize(
    ("event", "scopes", "role", "heard"),
    [
        ("tick", [], "operator", True),
        ("tick", [], "node", True),
        ("chat", [], "operator", False),
        ("chat", ["operator.read"], "operator", True),
        ("chat", ["operator.read"], "node", False),
        ("exec.approval.requested", ["operator.read"], "operator", False),
        ("exec.approval.requested", ["operator.approvals"], "operator", True),
        ("device.pair.requested", ["operator.approvals"], "operator", False),
        ("plugin.anything", ["operator.write"], "operator", True),
    ],
)
def test_scopes_decide_who_hears(event: str, scopes: list[str], role: str, heard: bool) -> None:
    bus, listener = bus_with_events(), Listener("a", scopes, role)
    bus.attach(listener)
    bus.broadcast(event, {"n": 1})
    bus.publish(EventFrame(event, b'{"n":2}'))
    assert listener.payloads() == ([{"n": 1}, {"n": 2}] if heard else [])


def test_an_event_nobody_declared_goes_to_nobody() -> None:
    bus, listener = bus_with_events(), Listener("a", ["operator.admin"])
    bus.attach(listener)
    with pytest.raises(LookupError, match=r"event 'secret\.thing' is not declared"):
        bus.broadcast("secret.thing", {})
    assert listener.offered == []


def test_everybody_gets_the_same_frame_in_the_same_order() -> None:
    bus, one, two = bus_with_events(), Listener("a"), Listener("b")
    bus.attach(one)
    bus.attach(two)
    for number in range(5):
        bus.broadcast("chat", {"n": number})
    assert one.payloads() == [{"n": number} for number in range(5)]
    # Encoded once: the same object for both.
    assert all(left is right for left, right in zip(one.offered, two.offered, strict=True))


def test_who_left_hears_nothing_and_may_leave_twice() -> None:
    bus, listener = bus_with_events(), Listener("a")
    leave = bus.attach(listener)
    leave()
    leave()
    bus.broadcast("chat", {})
    assert listener.offered == []


def test_connections_topics_and_exclusions_narrow_and_never_widen() -> None:
    bus, one, two, outsider = bus_with_events(), Listener("a"), Listener("b"), Listener("c", [])
    for listener in (one, two, outsider):
        bus.attach(listener)
    bus.broadcast("chat", {"n": 1}, connections=["a", "c", "gone"])
    bus.broadcast("chat", {"n": 2}, exclude=["a"])
    bus.broadcast("chat", {"n": 3}, topics=["x"])
    two.topics.add("x")
    outsider.topics.add("x")
    bus.broadcast("chat", {"n": 4}, topics=["x", "y"])
    bus.broadcast("chat", {"n": 5}, topics=[])
    bus.broadcast("chat", {"n": 6}, connections=[])
    assert (one.payloads(), two.payloads(), outsider.payloads()) == ([{"n": 1}], [{"n": 2}, {"n": 4}], [])


def test_a_client_of_single_sessions_hears_those_it_subscribed_to() -> None:
    bus, scoped, other = bus_with_events(), Listener("a"), Listener("b")
    scoped.caps = frozenset({"session-scoped-events"})
    bus.attach(scoped)
    bus.attach(other)
    bus.broadcast("agent", {"n": 1}, scoped_topic="session:main")
    scoped.topics.add("session:main")
    bus.broadcast("agent", {"n": 2}, scoped_topic="session:main")
    assert scoped.payloads() == [{"n": 2}]
    assert other.payloads() == [{"n": 1}, {"n": 2}]


def test_one_that_leaves_while_it_is_offered_something_does_not_disturb_the_rest() -> None:
    bus, last = bus_with_events(), Listener("z")

    class Leaving(Listener):
        def offer(self, frame: EventFrame) -> None:
            super().offer(frame)
            leave()

    leaving = Leaving("a")
    leave = bus.attach(leaving)
    bus.attach(last)
    bus.publish(EventFrame("tick", b"{}"))
    bus.broadcast("tick", {})
    assert (len(leaving.offered), len(last.offered)) == (1, 2)


def test_what_json_cannot_hold_is_the_senders_fault() -> None:
    bus, listener = bus_with_events(), Listener("a")
    bus.attach(listener)
    with pytest.raises(TypeError):
        bus.broadcast("chat", {"x": object()})
    assert listener.offered == []
