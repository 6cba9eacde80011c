"""A name has one owner, and what is registered is what its Protocol asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import pytest
from pydantic import BaseModel

from openclaw_kernel.api import (
    Access,
    ChannelCapabilities,
    Command,
    EventSpec,
    HttpRoute,
    Migration,
    RetryClass,
    Scope,
    Tool,
    ToolContext,
    ToolResult,
    rpc,
)
from openclaw_kernel.host.registry import PluginRegistrar, RegistrationRefused, Registry


class Params(BaseModel):
    pass


class Thing(Protocol):
    size: int

    def grow(self) -> None: ...


class BigThing:
    size = 1

    def grow(self) -> None:
        self.size += 1


class OneChannel:
    id = "one"
    label = "One"
    capabilities = ChannelCapabilities()

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def send(self, message: object) -> None: ...
    async def show_progress(self, progress: object) -> None: ...
    def status(self) -> list[object]:
        return []


class BareChannel(OneChannel):
    capabilities = True  # type: ignore[assignment]


class OneProvider:
    id = "one"
    label = "One"

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def models(self) -> list[object]:
        return []

    def stream(self, request: object) -> None: ...
    def problem(self) -> None: ...


class Methods:
    @rpc("thing.get", scope=Scope.READ, result=dict)
    def get(self, call: object) -> dict[str, int]:
        """Get it."""
        return {}


def event(name: str, scope: Any = Scope.READ, doc: str = "It rang.") -> EventSpec:
    return EventSpec(name=name, scope=scope, doc=doc)


class Unscoped:
    @rpc("thing.free", scope=(), result=dict)
    def get(self, call: object) -> dict[str, int]:
        """Get it."""
        return {}


class Undocumented:
    @rpc("thing.mute", scope=Scope.READ, result=dict)
    def get(self, call: object) -> dict[str, int]:
        return {}


class Connect:
    @rpc("connect", scope=Scope.READ, result=dict)
    def get(self, call: object) -> dict[str, int]:
        """Get it."""
        return {}


class Undecided:
    def requires(self) -> tuple[Scope, ...]:
        raise SystemExit(3)

    @rpc("thing.undecided", scope=Scope.READ, result=dict, requires=requires)
    def get(self, call: object) -> dict[str, int]:
        """Get it."""
        return {}


def route(path: str, method: str = "GET") -> HttpRoute:
    return HttpRoute(method=method, path=path, handler=answer)


async def run_tool(context: ToolContext, params: Params) -> ToolResult:
    return ToolResult(text="")


async def run_command(call: object) -> str:
    return ""


async def answer(request: object) -> Any: ...


def tool(name: str = "one", timeout: float = 1.0) -> Tool[Params]:
    return Tool(name=name, label="", description="", params=Params, run=run_tool, retry_class=RetryClass.PURE, timeout_seconds=timeout)


def command(name: str = "one", *aliases: str) -> Command:
    return Command(name=name, description="", run=run_command, aliases=aliases)


REGISTRATIONS: dict[str, Callable[[PluginRegistrar], None]] = {
    "channel 'one'": lambda registrar: registrar.add_channel(OneChannel()),  # type: ignore[arg-type]
    "provider 'one'": lambda registrar: registrar.add_provider(OneProvider()),  # type: ignore[arg-type]
    "tool 'one'": lambda registrar: registrar.add_tool(tool()),
    "command 'one'": lambda registrar: registrar.add_command(command()),
    "method 'thing.get'": lambda registrar: registrar.add_methods(Methods()),
    "route 'GET /x'": lambda registrar: registrar.add_route(HttpRoute(method="GET", path="/x", handler=answer)),
    "service 'Thing'": lambda registrar: registrar.provide(Thing, BigThing()),
    "event 'acme.rang'": lambda registrar: registrar.add_events([event("acme.rang")]),
}


@pytest.mark.parametrize("name", REGISTRATIONS)
def test_a_name_that_is_taken_is_refused_with_both_owners(name: str) -> None:
    registry = Registry()
    REGISTRATIONS[name](registry.registrar("first"))
    with pytest.raises(RegistrationRefused) as refused:
        REGISTRATIONS[name](registry.registrar("second"))
    assert str(refused.value) == f"{name} is registered by plugin 'first' already, 'second' cannot register it as well; disable one"


@pytest.mark.parametrize("name", REGISTRATIONS)
def test_what_is_removed_can_be_registered_again(name: str) -> None:
    registry = Registry()
    REGISTRATIONS[name](registry.registrar("first"))
    registry.remove("first")
    REGISTRATIONS[name](registry.registrar("second"))


@pytest.mark.parametrize("name", REGISTRATIONS)
def test_nothing_is_registered_after_the_hooks(name: str) -> None:
    registrar = Registry().registrar("late")
    registrar.close()
    with pytest.raises(RegistrationRefused, match="'late' registers too late"):
        REGISTRATIONS[name](registrar)


def test_an_alias_of_another_command_is_refused() -> None:
    registry = Registry()
    registry.registrar("first").add_command(command("stop", "halt", "enough"))
    with pytest.raises(RegistrationRefused, match="command alias 'halt' is registered by plugin 'first'"):
        registry.registrar("second").add_command(command("end", "halt"))


WRONG: dict[str, Callable[[PluginRegistrar], None]] = {
    "channel: object lacks capabilities, id, label, send": lambda registrar: registrar.add_channel(object()),  # type: ignore[arg-type]
    "channel 'one': capabilities: found bool; give a ChannelCapabilities": lambda registrar: registrar.add_channel(BareChannel()),  # type: ignore[arg-type]
    "provider: OneChannel lacks models, problem, stream": lambda registrar: registrar.add_provider(OneChannel()),  # type: ignore[arg-type]
    "unit: object lacks start, stop": lambda registrar: registrar.add_unit(object()),  # type: ignore[arg-type]
    "service Thing: object lacks grow, size": lambda registrar: registrar.provide(Thing, object()),
    "tool: found str; give a Tool": lambda registrar: registrar.add_tool("x"),  # type: ignore[arg-type]
    "command: found str; give a Command": lambda registrar: registrar.add_command("x"),  # type: ignore[arg-type]
    "route: found str; give a HttpRoute": lambda registrar: registrar.add_route("x"),  # type: ignore[arg-type]
    "migration: found str; give a Migration": lambda registrar: registrar.add_migrations(["x"]),  # type: ignore[list-item]
    "tool 'a b': use 1 to 64 letters": lambda registrar: registrar.add_tool(tool("a b")),
    "tool 'one': timeout_seconds is 0": lambda registrar: registrar.add_tool(tool(timeout=0)),
    "command '/one': use lower-case letters": lambda registrar: registrar.add_command(command("/one")),
    "object declares no method": lambda registrar: registrar.add_methods(object()),
    "method 'thing.mute' has no docstring": lambda registrar: registrar.add_methods(Undocumented()),
    "method 'connect' is the protocol's own": lambda registrar: registrar.add_methods(Connect()),
    "route '/readyz' is the gateway's own": lambda registrar: registrar.add_route(route("/readyz")),
    "route 'GET x': path should be started with / or be empty": lambda registrar: registrar.add_route(route("x")),
    "route 'GET /{x': Invalid path": lambda registrar: registrar.add_route(route("/{x")),
    "route 'G T /x': G T is not allowed HTTP method": lambda registrar: registrar.add_route(route("/x", "G T")),
    "method 'thing.free' of plugin 'bad' has no scope": lambda registrar: registrar.add_methods(Unscoped()),
    "event: found str; give a EventSpec": lambda registrar: registrar.add_events(["x"]),  # type: ignore[list-item]
    "event 'x' of plugin 'bad' has no scope": lambda registrar: registrar.add_events([event("x", None)]),
    "event 'x' of plugin 'bad' has no scope; name": lambda registrar: registrar.add_events([event("x", Access.NODE)]),
    "event 'x' has no doc": lambda registrar: registrar.add_events([event("x", doc="")]),
    "event ' x': use 1 to 128 characters": lambda registrar: registrar.add_events([event(" x")]),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_does_not_fulfil_its_contract_is_refused(message: str) -> None:
    with pytest.raises(RegistrationRefused) as refused:
        WRONG[message](Registry().registrar("bad"))
    assert message in str(refused.value)


def test_scopes_that_cannot_be_told_are_those_of_an_admin() -> None:
    registry = Registry()
    registry.registrar("bad").add_methods(Undecided())
    ((_, method),) = registry.methods
    assert method.requires is not None
    assert list(method.requires(None)) == [Scope.ADMIN]


def test_a_service_nobody_provides_is_named() -> None:
    with pytest.raises(LookupError, match="nobody provides Thing; enable or install a plugin that does"):
        Registry().service(Thing)


def test_migrations_are_kept_by_owner() -> None:
    registry = Registry()
    step = Migration(number=1, name="first", apply=lambda database: None)
    registry.registrar("one").add_migrations([step])
    assert registry.migrations() == {"one": [step]}
