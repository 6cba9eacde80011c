"""All events of this gateway, each declared once with who hears it; one that nobody classified is refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from openclaw_kernel.api.methods import Access, EventSpec, Scope
from openclaw_kernel.protocol.registry import RegistryError

KERNEL_EVENTS: Final = (
    EventSpec(
        name="config.changed",
        scope=Scope.READ,
        advertised=False,
        doc="Another configuration is in force: the name of its file, its hash, and when.",
    ),
    EventSpec(
        name="connect.challenge",
        scope=Access.ANYONE,
        doc="The first frame of a connection; the nonce is what a device signs.",
    ),
    EventSpec(
        name="events.current",
        scope=Scope.READ,
        doc="What `events.subscribe` reads again from the log has all been sent; what follows is new.",
    ),
    EventSpec(
        name="events.gap",
        scope=Scope.READ,
        doc="The log does not go back as far as was asked; what lies between is missing.",
    ),
    EventSpec(
        name="events.item",
        scope=Scope.READ,
        doc="One event of the past, as it was sent then. For who asked by `events.subscribe {since}`.",
    ),
    EventSpec(name="health", scope=Access.ANYONE, doc="The health changed, or a minute has passed."),
    EventSpec(
        name="plugins.changed",
        scope=Scope.READ,
        doc="Plugins came, went or were replaced; methods, events, tools and commands may be others. Ask `plugins.list`.",
    ),
    EventSpec(
        name="plugins.install.progress",
        scope=Scope.ADMIN,
        doc="An installation, an upgrade or a removal of a plugin goes on: the step that it is at, and a line of what pip says.",
    ),
    EventSpec(name="presence", scope=Scope.READ, doc="Somebody came or went."),
    EventSpec(name="shutdown", scope=Access.ANYONE, doc="The gateway stops; the close with 1012 follows."),
    EventSpec(name="tick", scope=Access.ANYONE, doc="Every 30 seconds, so that a client knows the connection is alive."),
)

# What the protocol says of its own names, whoever sends them.
_EVERYBODY: Final = frozenset({"connect.challenge", "tick", "health", "heartbeat", "shutdown", "gateway.suspension", "update.available"})
_EXACT: Final[dict[str, Scope]] = {
    "agent": Scope.READ,
    "chat": Scope.READ,
    "presence": Scope.READ,
    "cron": Scope.READ,
    "config.changed": Scope.READ,
    "skills.changed": Scope.READ,
    "plugins.changed": Scope.READ,
    "node.presence": Scope.READ,
    "node.hostStats": Scope.READ,
    "session.approval": Scope.APPROVALS,
    "sessions.changed": Scope.READ,
    "users.prefs.changed": Scope.READ,
    "mentions.changed": Scope.READ,
    "ui.command": Scope.READ,
    "talk.event": Scope.READ,
    "talk.mode": Scope.TALK,
    "talk.voice.change": Scope.TALK,
    "update.run.changed": Scope.ADMIN,
    "plugins.install.progress": Scope.ADMIN,
}
_PREFIXES: Final[tuple[tuple[str, Scope], ...]] = (
    ("chat.", Scope.READ),
    ("session.", Scope.READ),
    ("task", Scope.READ),
    ("voicewake.", Scope.READ),
    ("board.", Scope.READ),
    ("exec.approval.", Scope.APPROVALS),
    ("plugin.approval.", Scope.APPROVALS),
    ("openclaw.approval.", Scope.APPROVALS),
    ("device.pair.", Scope.PAIRING),
    ("node.pair.", Scope.PAIRING),
    ("question.", Scope.QUESTIONS),
    ("terminal.", Scope.ADMIN),
    ("plugin.", Scope.WRITE),
)


def protocol_scope(event: str) -> Scope | Access | None:
    """Who hears an event by the protocol's word, None for a name that is not the protocol's."""
    if event in _EVERYBODY:
        return Access.ANYONE
    exact = _EXACT.get(event)
    return exact or next((scope for prefix, scope in _PREFIXES if event.startswith(prefix)), None)


class EventRegistry:
    """Changes only as a whole, by `become`. Takes the events of plugins, each with its owner; those of the kernel are in it."""

    def __init__(self, events: Iterable[tuple[str, EventSpec]] = ()) -> None:
        self._specs: dict[str, EventSpec] = {}
        self._scopes: dict[str, str | None] = {}
        for owner, spec in (*(("kernel", spec) for spec in KERNEL_EVENTS), *events):
            self._add(owner, spec)
        self.advertised = tuple(sorted(spec.name for spec in self._specs.values() if spec.advertised))

    def _add(self, owner: str, spec: EventSpec) -> None:
        if spec.name in self._specs:
            raise RegistryError(f"event {spec.name!r} of plugin {owner!r} is declared already; choose another name")
        wanted = protocol_scope(spec.name)
        if wanted is not None and spec.scope is not wanted:
            raise RegistryError(
                f"event {spec.name!r} of plugin {owner!r} is for {spec.scope.value!r}, in the protocol for {wanted.value!r};"
                " declare that, or choose another name"
            )
        self._specs[spec.name] = spec
        self._scopes[spec.name] = None if spec.scope is Access.ANYONE else spec.scope.value

    def become(self, other: EventRegistry) -> None:
        """Hold what the other holds from now on, in one step."""
        self._specs, self._scopes, self.advertised = other._specs, other._scopes, other.advertised

    def scope(self, event: str) -> str | None:
        """The scope that an event needs, None for everybody; raise `LookupError` for one that nobody declared."""
        try:
            return self._scopes[event]
        except KeyError:
            raise LookupError(f"event {event!r} is not declared; declare it with registrar.add_events") from None

    def all(self) -> tuple[EventSpec, ...]:
        """Return every event, by name."""
        return tuple(self._specs[name] for name in sorted(self._specs))
