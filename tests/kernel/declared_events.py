"""Events of plugins, for buses that no plugin is around."""

from __future__ import annotations

from openclaw_kernel.api import Access, EventSpec, Scope
from openclaw_kernel.bus import EventBus
from openclaw_kernel.protocol.events import EventRegistry, protocol_scope

NAMES = "agent chat cron device.pair.requested exec.approval.requested plugin.anything session.message sessions.changed".split()


def declared(name: str, scope: Scope | Access | None = None) -> EventSpec:
    """An event, by default with the scope that the protocol gives it."""
    return EventSpec(name=name, scope=scope or protocol_scope(name) or Scope.READ, doc="Something happened.")


def bus_with_events() -> EventBus:
    """A bus that lets these events through."""
    return EventBus(EventRegistry(("test", declared(name)) for name in NAMES))
