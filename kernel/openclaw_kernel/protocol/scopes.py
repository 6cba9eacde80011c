"""Which scope an event needs. The table is closed."""

from __future__ import annotations

from typing import Final

from openclaw_kernel.api.methods import Scope
from openclaw_kernel.api.scopes import ALL_SCOPES
from openclaw_kernel.api.scopes import effective_scopes as effective

__all__ = ["ADVERTISED_EVENTS", "ALL_SCOPES", "UNSCOPED_EVENTS", "effective", "event_scope"]


_APPROVALS: Final = Scope.APPROVALS.value
_READ: Final = Scope.READ.value

UNSCOPED_EVENTS: Final = frozenset({"tick", "health", "heartbeat", "shutdown", "gateway.suspension", "update.available"})
"""Every client gets them, nodes too."""

_EXACT: Final[dict[str, str]] = {
    "agent": _READ,
    "chat": _READ,
    "presence": _READ,
    "cron": _READ,
    "config.changed": _READ,
    "skills.changed": _READ,
    "plugins.changed": _READ,
    "node.presence": _READ,
    "node.hostStats": _READ,
    "session.message": _READ,
    "session.tool": _READ,
    "session.operation": _READ,
    "session.approval": _APPROVALS,
    "sessions.changed": _READ,
    "users.prefs.changed": _READ,
    "mentions.changed": _READ,
    "ui.command": _READ,
    "talk.event": _READ,
    "events.item": _READ,
    "events.gap": _READ,
    "events.current": _READ,
    "talk.mode": Scope.TALK.value,
    "talk.voice.change": Scope.TALK.value,
    "update.run.changed": Scope.ADMIN.value,
    "plugins.install.progress": Scope.ADMIN.value,
}
_PREFIXES: Final[tuple[tuple[str, str], ...]] = (
    ("chat.", _READ),
    ("task", _READ),
    ("voicewake.", _READ),
    ("board.", _READ),
    ("exec.approval.", _APPROVALS),
    ("plugin.approval.", _APPROVALS),
    ("openclaw.approval.", _APPROVALS),
    ("device.pair.", Scope.PAIRING.value),
    ("node.pair.", Scope.PAIRING.value),
    ("question.", Scope.QUESTIONS.value),
    ("terminal.", Scope.ADMIN.value),
    ("plugin.", Scope.WRITE.value),
)

ADVERTISED_EVENTS: Final = (
    "agent",
    "chat",
    "connect.challenge",
    "device.pair.requested",
    "device.pair.resolved",
    "events.current",
    "events.gap",
    "events.item",
    "health",
    "presence",
    "session.message",
    "session.tool",
    "sessions.changed",
    "shutdown",
    "tick",
)
"""What hello-ok says this gateway may send."""


def event_scope(event: str) -> str | None:
    """The scope an event needs, None for everyone; raise `LookupError` for an event nobody classified."""
    if event in UNSCOPED_EVENTS:
        return None
    exact = _EXACT.get(event)
    if exact is not None:
        return exact
    for prefix, scope in _PREFIXES:
        if event.startswith(prefix):
            return scope
    message = f"event {event!r} has no scope; add it to protocol/scopes.py"
    raise LookupError(message)
