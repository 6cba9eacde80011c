"""What the plugins registered, each thing with its owner; a name that is taken is refused."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Generic, Protocol, TypeVar

from openclaw_kernel.api.authenticator import Authenticator
from openclaw_kernel.api.channel import Channel, ChannelCapabilities
from openclaw_kernel.api.check import Check
from openclaw_kernel.api.command import Command
from openclaw_kernel.api.methods import Access, EventSpec, Method, Scope, methods_of
from openclaw_kernel.api.plugin import HttpRoute, Unit
from openclaw_kernel.api.provider import Provider
from openclaw_kernel.api.store import Migration
from openclaw_kernel.api.tool import Tool
from openclaw_kernel.host.calls import Calls, counted
from openclaw_kernel.host.contract import misfit
from openclaw_kernel.host.guard import contained, or_else

ItemT = TypeVar("ItemT")
ServiceT = TypeVar("ServiceT")

KERNEL: Final = "kernel"

RESERVED_METHODS: Final = frozenset({"connect"})
RESERVED_PATHS: Final = frozenset({"/health", "/healthz", "/ready", "/readyz", "/startup", "/startupz"})

_NAME_LIMIT: Final = 128
_TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CHECK_ID: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*(\.[a-z0-9]+(-[a-z0-9]+)*)+")
LONGEST_CHECK_SECONDS: Final = 300.0
"""Somebody waits for all checks; one that hangs has to be told before they give up."""
_COMMAND_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


class RegistrationRefused(Exception):
    """The thing cannot be registered; the message names it, its owner or what it lacks, and the cure."""


class Unclassified(RegistrationRefused):
    """A method or an event says not who may have it: the gateway does not start, for it might be anybody."""


@dataclass(frozen=True, slots=True)
class Owned(Generic[ItemT]):
    plugin_id: str
    item: ItemT
    calls: Calls = field(default_factory=Calls, compare=False)
    """Shared by all that one instance of the plugin registered."""


@dataclass(slots=True)
class Registry:
    """Everything that is registered, by name, in the order of registration."""

    channels: dict[str, Owned[Channel]] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    """What each channel called itself when it was registered: a property of a plugin is asked once."""
    capabilities: dict[str, ChannelCapabilities] = field(default_factory=dict)
    providers: dict[str, Owned[Provider]] = field(default_factory=dict)
    tools: dict[str, Owned[Tool[Any]]] = field(default_factory=dict)
    commands: dict[str, Owned[Command]] = field(default_factory=dict)
    authenticators: dict[str, Owned[Authenticator]] = field(default_factory=dict)
    methods: list[tuple[str, Method]] = field(default_factory=list)
    events: list[tuple[str, EventSpec]] = field(default_factory=list)
    routes: list[tuple[str, HttpRoute]] = field(default_factory=list)
    checks: dict[str, Owned[Check]] = field(default_factory=dict)
    units: list[tuple[str, Unit]] = field(default_factory=list)
    services: dict[type, Owned[object]] = field(default_factory=dict)
    _migrations: dict[str, list[Migration]] = field(default_factory=dict)

    def registrar(self, plugin_id: str, calls: Calls | None = None) -> PluginRegistrar:
        """Return the view through which one plugin registers."""
        return PluginRegistrar(self, plugin_id, calls)

    def without(self, plugin_ids: Collection[str]) -> Registry:
        """Return a copy that lacks everything of these plugins."""
        copy = Registry()
        for each in fields(self):
            setattr(copy, each.name, getattr(self, each.name).copy())
        for plugin_id in plugin_ids:
            copy.remove(plugin_id)
        return copy

    def arrange(self, order: Sequence[str]) -> None:
        """Put everything into the order in which these plugins register; what they offer comes after what the kernel does."""
        position = {plugin_id: number for number, plugin_id in enumerate(order)}
        for mapping in self._owned():
            ordered = sorted(mapping.items(), key=lambda entry: position.get(entry[1].plugin_id, -1))
            mapping.clear()
            mapping.update(ordered)
        entries: tuple[list[tuple[str, Any]], ...] = (self.methods, self.events, self.routes, self.units)
        for each in entries:
            each.sort(key=lambda entry: position.get(entry[0], -1))

    def adopt(self, other: Registry) -> None:
        """Become what the other is, in one step: who looks something up finds either all of the old or all of the new."""
        for each in fields(self):
            setattr(self, each.name, getattr(other, each.name))

    def _owned(self) -> tuple[dict[Any, Owned[Any]], ...]:
        return (
            self.channels, self.providers, self.tools, self.commands, self.authenticators, self.services,
            self.checks,
        )  # fmt: skip

    def migrations(self) -> Mapping[str, Sequence[Migration]]:
        """Return each plugin's migrations, for `Store.open`."""
        return self._migrations

    def add_migrations(self, plugin_id: str, migrations: Iterable[Migration]) -> None:
        """Add to a plugin's migrations."""
        self._migrations.setdefault(plugin_id, []).extend(migrations)

    def provide(self, plugin_id: str, kind: type[Any], service: object) -> None:
        """Offer a service; raise `RegistrationRefused` where the type is taken or not fulfilled."""
        owner = self.services.get(kind)
        if owner is not None:
            raise _taken("service", kind.__name__, owner.plugin_id, plugin_id)
        check_fulfils(kind, service, f"service {kind.__name__}")
        self.services[kind] = Owned(plugin_id, service)

    def service(self, kind: type[ServiceT]) -> ServiceT:
        """Return the service of this type; raise `LookupError`."""
        owned = self.services.get(kind)
        if owned is None:
            raise LookupError(f"nobody provides {kind.__name__}; enable or install a plugin that does")
        return owned.item  # type: ignore[return-value]  # `provide` put it under its own type

    def remove(self, plugin_id: str) -> None:
        """Forget everything of one plugin."""
        for mapping in self._owned():
            # Labels and capabilities of a channel that is gone are never asked for.
            for name in [name for name, owned in mapping.items() if owned.plugin_id == plugin_id]:
                del mapping[name]
        self.methods[:] = [entry for entry in self.methods if entry[0] != plugin_id]
        self.events[:] = [entry for entry in self.events if entry[0] != plugin_id]
        self.routes[:] = [entry for entry in self.routes if entry[0] != plugin_id]
        self.units[:] = [entry for entry in self.units if entry[0] != plugin_id]
        self._migrations.pop(plugin_id, None)


class PluginRegistrar:
    """Implements `openclaw_kernel.api.Registrar` for one plugin, until it is closed."""

    def __init__(self, registry: Registry, plugin_id: str, calls: Calls | None = None) -> None:
        self._registry = registry
        self._plugin_id = plugin_id
        self._calls = Calls() if calls is None else calls
        self._closed = False

    def close(self) -> None:
        """Refuse what still comes: from a hook that was abandoned, or later than the hooks."""
        self._closed = True

    def add_channel(self, channel: Channel) -> None:
        """Register a channel under its id."""
        check_fulfils(Channel, channel, "channel")
        name, label, capabilities = channel.id, channel.label, channel.capabilities
        _check_name(name, "channel")
        _check_type(label, str, f"channel {name!r}: label")
        _check_whole(capabilities, ChannelCapabilities, f"channel {name!r}: capabilities")
        self._put(self._registry.channels, "channel", name, channel)
        self._registry.labels[name] = label
        self._registry.capabilities[name] = capabilities

    def add_provider(self, provider: Provider) -> None:
        """Register a provider instance under its id."""
        check_fulfils(Provider, provider, "provider")
        name = provider.id
        _check_name(name, "provider")
        self._put(self._registry.providers, "provider", name, provider)

    def add_tool(self, tool: Tool[Any]) -> None:
        """Register a tool under its name."""
        _check_whole(tool, Tool, "tool")
        if _TOOL_NAME.fullmatch(tool.name) is None:
            raise RegistrationRefused(f"tool {tool.name!r}: use 1 to 64 letters, digits, '_' or '-'")
        if not 0 < tool.timeout_seconds < math.inf:
            raise RegistrationRefused(f"tool {tool.name!r}: timeout_seconds is {tool.timeout_seconds}; give a positive one")
        _check_schema(tool)
        self._put(self._registry.tools, "tool", tool.name, tool)

    def add_command(self, command: Command) -> None:
        """Register a command under its name and aliases."""
        _check_whole(command, Command, "command")
        if _COMMAND_NAME.fullmatch(command.name) is None:
            raise RegistrationRefused(f"command {command.name!r}: use lower-case letters, digits, '_' or '-', no slash")
        for alias in command.aliases:
            if not alias or alias != " ".join(alias.lower().split()):
                raise RegistrationRefused(f"command {command.name!r}: alias {alias!r}: use lower-case words parted by one space")
        for owned in self._registry.commands.values():
            for alias in {*command.aliases} & {*owned.item.aliases}:
                raise _taken("command alias", alias, owned.plugin_id, self._plugin_id)
        self._put(self._registry.commands, "command", command.name, command)

    def add_methods(self, owner: object) -> None:
        """Register every method that `rpc` declared on the class of `owner`."""
        self._refuse_late("methods")
        found = methods_of(owner)
        if not found:
            raise RegistrationRefused(f"{type(owner).__name__} declares no method; decorate its handlers with @rpc")
        taken = {method.name: plugin_id for plugin_id, method in self._registry.methods}
        for method in found:
            if method.name in taken:
                raise _taken("method", method.name, taken[method.name], self._plugin_id)
            _check_method(self._plugin_id, method)
        self._registry.methods.extend((self._plugin_id, self._fenced(method)) for method in found)

    def add_events(self, events: Iterable[EventSpec]) -> None:
        """Declare events."""
        self._refuse_late("events")
        for spec in events:
            self._check_event(spec)
            for owner, other in self._registry.events:
                if other.name == spec.name:
                    raise _taken("event", spec.name, owner, self._plugin_id)
            self._registry.events.append((self._plugin_id, spec))

    def _check_event(self, spec: EventSpec) -> None:
        _check_type(spec, EventSpec, "event")
        _check_name(spec.name, "event")
        if not isinstance(spec.scope, Scope) and spec.scope is not Access.ANYONE:
            raise Unclassified(f"event {spec.name!r} of plugin {self._plugin_id!r} has no scope; name one in EventSpec(scope=...)")
        if not spec.doc:
            raise RegistrationRefused(f"event {spec.name!r} has no doc; say in it when the event is sent")

    def add_route(self, route: HttpRoute) -> None:
        """Register an HTTP route."""
        self._refuse_late("route")
        _check_type(route, HttpRoute, "route")
        _check_route(route)
        for owner, other in self._registry.routes:
            if (other.method.upper(), other.path) == (route.method.upper(), route.path):
                raise _taken("route", f"{route.method} {route.path}", owner, self._plugin_id)
        handler = counted(self._calls, self._plugin_id, route.handler)
        self._registry.routes.append((self._plugin_id, replace(route, handler=handler)))

    def add_authenticator(self, authenticator: Authenticator) -> None:
        """Register an authenticator under its id."""
        check_fulfils(Authenticator, authenticator, "authenticator")
        name = authenticator.id
        _check_name(name, "authenticator")
        self._put(self._registry.authenticators, "authenticator", name, authenticator)

    def add_check(self, check: Check) -> None:
        """Register a check under its id."""
        _check_whole(check, Check, "check")
        if len(check.id) > _NAME_LIMIT or _CHECK_ID.fullmatch(check.id) is None:
            raise RegistrationRefused(f"check {check.id!r}: use lower-case words of letters, digits and '-', two or more with dots between")
        if not 0 < check.timeout_seconds <= LONGEST_CHECK_SECONDS:
            cure = f"give a positive one of at most {LONGEST_CHECK_SECONDS:.0f}"
            raise RegistrationRefused(f"check {check.id!r}: timeout_seconds is {check.timeout_seconds}; {cure}")
        self._put(self._registry.checks, "check", check.id, check)

    def add_unit(self, unit: Unit) -> None:
        """Register what starts and stops with the plugin."""
        self._refuse_late("unit")
        check_fulfils(Unit, unit, "unit")
        self._registry.units.append((self._plugin_id, unit))

    def add_migrations(self, migrations: Iterable[Migration]) -> None:
        """Register the steps of the plugin's own tables."""
        self._refuse_late("migrations")
        steps = list(migrations)
        for step in steps:
            _check_whole(step, Migration, "migration")
        self._registry.add_migrations(self._plugin_id, steps)

    def provide(self, kind: type[ServiceT], service: ServiceT) -> None:
        """Offer a service under a Protocol type."""
        self._refuse_late("service")
        self._registry.provide(self._plugin_id, kind, service)

    def _fenced(self, method: Method) -> Method:
        what = f"method {method.name}"
        # A plugin that cannot say which scopes a call needs lets nobody in but who may do everything.
        requires = method.requires and or_else(self._plugin_id, f"scopes of {what}", method.requires, (Scope.ADMIN,))
        handler = counted(self._calls, self._plugin_id, contained(self._plugin_id, what, method.handler))
        return replace(method, handler=handler, requires=requires)

    def _put(self, mapping: dict[str, Owned[ItemT]], what: str, name: str, item: ItemT) -> None:
        self._refuse_late(what)
        owner = mapping.get(name)
        if owner is not None:
            raise _taken(what, name, owner.plugin_id, self._plugin_id)
        mapping[name] = Owned(self._plugin_id, item, self._calls)

    def _refuse_late(self, what: str) -> None:
        if self._closed:
            raise RegistrationRefused(f"{what}: plugin {self._plugin_id!r} registers too late; register in the hook")


def check_fulfils(kind: type[Any], item: object, what: str) -> None:
    """Raise `RegistrationRefused` where `item` is not a `kind`; of a Protocol's members, name those it lacks."""
    if not getattr(kind, "_is_protocol", False):
        _check_type(item, kind, what)
        return
    missing = sorted(name for name in _members(kind) if not hasattr(item, name))
    if missing:
        raise RegistrationRefused(f"{what}: {type(item).__name__} lacks {', '.join(missing)}; add what {kind.__name__} asks")


def _members(kind: type[Any]) -> set[str]:
    members: set[str] = set()
    for base in kind.__mro__:
        if getattr(base, "_is_protocol", False) and base is not Protocol:
            members.update(inspect.get_annotations(base), base.__dict__)
    return {name for name in members if not name.startswith("_")}


def _check_type(item: object, kind: type[Any], what: str) -> None:
    if not isinstance(item, kind):
        raise RegistrationRefused(f"{what}: found {type(item).__name__}; give a {kind.__name__}")


def _check_whole(item: object, kind: type[Any], what: str) -> None:
    _check_type(item, kind, what)
    wrong = misfit(item)
    if wrong is not None:
        raise RegistrationRefused(f"{what} {getattr(item, 'name', '')!r}: {wrong}; give what the type says")


def _check_name(name: object, what: str) -> None:
    # A subclass of str may compare and hash as it likes.
    if type(name) is not str:
        raise RegistrationRefused(f"{what} {name!r}: its id is a {type(name).__name__}; give a plain str")
    if not (name.isprintable() and name.strip() == name and 0 < len(name) <= _NAME_LIMIT):
        raise RegistrationRefused(f"{what} {name!r}: use 1 to {_NAME_LIMIT} characters without spaces around them")


def _check_schema(tool: Tool[Any]) -> None:
    # Asked for in every turn, where it would harm the tools of all others.
    schema = tool.schema()
    if not isinstance(schema, dict):
        raise RegistrationRefused(f"tool {tool.name!r}: schema() returned {type(schema).__name__}; return a JSON Schema object")
    try:
        json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RegistrationRefused(f"tool {tool.name!r}: its schema is not JSON ({error}); correct the model of its parameters") from error


def _check_method(plugin_id: str, method: Method) -> None:
    if not method.scopes and method.access is None:
        raise Unclassified(f"method {method.name!r} of plugin {plugin_id!r} has no scope; name one in @rpc(..., scope=...)")
    if not method.doc:
        raise RegistrationRefused(f"method {method.name!r} has no docstring; say in one what it does")
    if method.name in RESERVED_METHODS:
        raise RegistrationRefused(f"method {method.name!r} is the protocol's own; choose another name")


def _check_route(route: HttpRoute) -> None:
    # Only plugins with routes pay for the import; the listener has it anyway.
    from aiohttp import web

    if route.path in RESERVED_PATHS:
        raise RegistrationRefused(f"route {route.path!r} is the gateway's own; choose another path")

    async def nothing(_request: web.Request) -> web.StreamResponse:
        return web.Response()

    try:
        web.UrlDispatcher().add_route(route.method, route.path, nothing)
    except ValueError as error:
        raise RegistrationRefused(f"route '{route.method} {route.path}': {error}; write it as aiohttp does") from error


def _taken(what: str, name: str, owner: str, second: str) -> RegistrationRefused:
    return RegistrationRefused(
        f"{what} {name!r} is registered by plugin {owner!r} already, {second!r} cannot register it as well; disable one"
    )
