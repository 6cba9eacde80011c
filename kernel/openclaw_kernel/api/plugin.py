"""What a plugin is given and what it hands over."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeVar, runtime_checkable

import pluggy
from pydantic import BaseModel

from openclaw_config.models import Config
from openclaw_kernel.api.authenticator import Authenticator
from openclaw_kernel.api.channel import Channel
from openclaw_kernel.api.check import Check
from openclaw_kernel.api.command import Command
from openclaw_kernel.api.methods import EventSpec
from openclaw_kernel.api.provider import Provider
from openclaw_kernel.api.store import KeyValue, Migration, Store
from openclaw_kernel.api.tool import Tool

if TYPE_CHECKING:
    import asyncio

    from aiohttp import web

API_VERSION: Final = 1
"""The contract of this package. Symbols are only ever added within a version."""

LONGEST_DRAIN_SECONDS: Final = 60.0
"""No plugin holds up the stop for longer, whatever it asks for."""

ServiceT = TypeVar("ServiceT")
SettingsT = TypeVar("SettingsT", bound=BaseModel)

hookimpl: Final = pluggy.HookimplMarker("openclaw")


class Unit(Protocol):
    """Something that lives as long as the plugin runs and is neither channel nor provider."""

    async def start(self) -> None:
        """Begin; raise as `Channel.start` does."""

    async def stop(self) -> None:
        """End; safe to call twice."""


@runtime_checkable
class Drains(Protocol):
    """A unit that finishes what is under way before the gateway stops. Until it has, everything else still works."""

    @property
    def drain_seconds(self) -> float:
        """How long that may take, 60 at most; 0 for not at all."""

    async def drain(self) -> None:
        """Begin nothing more and wait for what is under way; cancelled when its time is over. `stop` follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigChange:
    """What of the config changed, for one plugin. `paths` are the changed keys that concern it, dotted, sorted."""

    paths: Sequence[str]


@runtime_checkable
class Reloads(Protocol):
    """A plugin, or something that it registered, with work to do when a value that its manifest calls `hot` has changed."""

    async def reload(self, change: ConfigChange) -> None:
        """Go by what the context answers now, and return when that is so.

        Raise to refuse: everything is taken back then, and this is called once more with the context as it was before.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRoute:
    """A route on the one listener. `path` is aiohttp's syntax, below the base path."""

    method: str
    path: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]


class PluginContext(Protocol):
    """The gateway as one plugin sees it; handed to its constructor."""

    @property
    def plugin_id(self) -> str: ...
    @property
    def config(self) -> Config:
        """The resolved configuration in force."""
        ...

    @property
    def logger(self) -> logging.Logger: ...
    @property
    def state_dir(self) -> Path:
        """A folder of this plugin alone, made on first use, 0700."""
        ...

    @property
    def home(self) -> Path:
        """The gateway's state folder."""
        ...

    @property
    def store(self) -> Store: ...
    @property
    def storage(self) -> KeyValue: ...

    def settings(self, model: type[SettingsT]) -> SettingsT:
        """Return this plugin's validated section; `model` must be the class named in `Plugin.settings`."""
        ...

    def instances(self, model: type[SettingsT]) -> Mapping[str, SettingsT]:
        """For a provider plugin: its entries of `models.providers` by id, validated one by one."""
        ...

    def service(self, kind: type[ServiceT]) -> ServiceT:
        """Return what another plugin or the kernel provides under this Protocol type.

        Call it when it is needed, not in the constructor or a hook. Raise `LookupError` naming the type where nobody provides it.
        """
        ...

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a task owned by this plugin: named, cancelled at stop; an exception degrades the plugin with that reason."""
        ...

    def degrade(self, reason: str | None) -> None:
        """Report a fault that the plugin itself copes with, in one line with the cure; None reports that it is over."""
        ...

    def now_ms(self) -> int:
        """Return Unix milliseconds."""
        ...


class Plugin(Protocol):
    """What an entry point names: a class with a constructor that takes the context, and hook implementations.

    `settings` is the pydantic model (with `extra="forbid"`) of its config section, None where it has none.
    """

    settings: ClassVar[type[BaseModel] | None]


class Registrar(Protocol):
    """Where hooks put what they register; a name that is taken is refused with both owners named."""

    def add_channel(self, channel: Channel) -> None: ...
    def add_provider(self, provider: Provider) -> None: ...
    def add_tool(self, tool: Tool[Any]) -> None: ...
    def add_command(self, command: Command) -> None: ...
    def add_methods(self, owner: object) -> None:
        """Add every method that `rpc` declared on the class of `owner`."""
        ...

    def add_events(self, events: Iterable[EventSpec]) -> None:
        """Declare the events that the plugin sends; none other can be."""
        ...

    def add_route(self, route: HttpRoute) -> None: ...
    def add_authenticator(self, authenticator: Authenticator) -> None: ...
    def add_check(self, check: Check) -> None: ...
    def add_unit(self, unit: Unit) -> None: ...
    def add_migrations(self, migrations: Iterable[Migration]) -> None: ...
    def provide(self, kind: type[ServiceT], service: ServiceT) -> None:
        """Offer a service under a Protocol type."""
        ...
