"""The plugin host: loads what was found, runs it, and answers for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from openclaw_config.describe import schema_of
from openclaw_config.models import Config
from openclaw_kernel.api.audit import AuditLog
from openclaw_kernel.api.secrets import Secrets
from openclaw_kernel.api.services import Channels, Commands, PluginState, PluginStatus, Policies, Providers, Tools
from openclaw_kernel.api.store import Store
from openclaw_kernel.host.authenticators import HostedAuthenticators
from openclaw_kernel.host.component import Component, ComponentState
from openclaw_kernel.host.discovery import Discovery
from openclaw_kernel.host.guard import Guard, PluginFault, or_else
from openclaw_kernel.host.isolation import Isolation
from openclaw_kernel.host.lifecycle import Hosted, Lifecycle
from openclaw_kernel.host.loading import Loader
from openclaw_kernel.host.manager import PluginManager
from openclaw_kernel.host.order import start_order
from openclaw_kernel.host.registry import KERNEL, Owned, Registry
from openclaw_kernel.host.secrets import SecretBroker
from openclaw_kernel.host.sections import assign
from openclaw_kernel.host.services import (
    HostedChannels,
    HostedCommands,
    HostedPolicies,
    HostedProviders,
    HostedTools,
)
from openclaw_kernel.host.state import Standing
from openclaw_kernel.host.timing import Timing
from openclaw_kernel.host.watchdog import Block, LoopWatchdog

logger: Final = logging.getLogger(__name__)


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000


class PluginHost:
    """All plugins of one gateway: `load`, then (with the store open) `start`, then `stop`.

    `services` are the kernel's own, by Protocol type. `on_state` is called on the loop with every change of a plugin's state. `place`
    puts file and line before a text that begins with a key of the config.
    """

    def __init__(
        self,
        *,
        config: Config,
        home: Path,
        store: Store,
        discovery: Discovery,
        services: Mapping[type, object],
        on_state: Callable[[PluginStatus], None],
        now_ms: Callable[[], int] = _unix_ms,
        timing: Timing | None = None,
        place: Callable[[str], str] = str,
        isolation: Isolation | None = None,
    ) -> None:
        self._place = place
        self._config = config
        self._discovery = discovery
        self._on_state = on_state
        self._timing = replace(timing if timing is not None else Timing(), call=config.plugins.call_timeout_seconds)
        self._assignment = assign(config, discovery)
        self.guard: Final = Guard()
        self._manager = PluginManager(self.guard, self._report)
        self._standings = {found.id: Standing(found, self._changed, now_ms, place) for found in discovery.plugins}
        self._hosted: dict[str, Hosted] = {}
        self._complaints: dict[str, str | None] = {}
        self._lifecycle: Lifecycle | None = None
        self._watchdog: LoopWatchdog | None = None
        self.registry: Final = Registry()
        self._loader = Loader(
            registry=self.registry,
            manager=self._manager,
            guard=self.guard,
            config=config,
            home=home,
            store=store,
            now_ms=now_ms,
            isolation=isolation,
        )
        self.channels: Final = HostedChannels(
            self.registry,
            self.guard,
            self._timing,
            component=lambda channel: self._component("channel", channel),
        )
        audit: Any = services.get(AuditLog)
        broker = SecretBroker(config, store, audit)
        self.providers: Final = HostedProviders(self.registry, self.guard, broker, unstarted=self._unstarted_provider, report=self._report)
        self.tools: Final = HostedTools(self.registry, self.guard, broker)
        self.commands: Final = HostedCommands(self.registry, self.guard, self._timing)
        self.policies: Final = HostedPolicies(self._manager)
        self.authenticators: Final = HostedAuthenticators(self.registry, self.guard, report=self._report)
        own: dict[type, object] = {
            Channels: self.channels,
            Providers: self.providers,
            Tools: self.tools,
            Commands: self.commands,
            Policies: self.policies,
            Secrets: broker,
        }
        for kind, service in {**own, **services}.items():
            self.registry.services[kind] = Owned(KERNEL, service)

    async def load(self) -> None:
        """Import, construct and register every plugin that is to run; what fails is that plugin's state alone."""
        wanted = []
        for found in self._discovery.plugins:
            standing = self._standings[found.id]
            share = self._assignment.shares[found.id]
            if standing.state is PluginState.UNAVAILABLE:
                continue
            if share.disabled is not None:
                standing.become(PluginState.DISABLED, share.disabled)
            elif standing.state is PluginState.DISCOVERED:
                wanted.append((standing, share))
        contexts = await self._loader.load(wanted)
        loaded = [standing.found for standing, _ in wanted if standing.found.id in contexts]
        ordered, circular = start_order(loaded)
        for plugin_id, reason in circular.items():
            self._fail(plugin_id, reason)
        for found in ordered:
            hosted = Hosted(self._standings[found.id], contexts[found.id])
            hosted.components = self._components(hosted)
            self._hosted[found.id] = hosted
            if found.id in self._loader.holds:
                self._loader.holds[found.id].bind(hosted)
            hosted.standing.become(PluginState.LOADED)

    def refuse_migrations(self, refusals: Mapping[str, Exception]) -> None:
        """Fail the plugins whose migrations the store refused (the result of `Store.open`); call it before `start`."""
        for plugin_id, error in refusals.items():
            if plugin_id in self._hosted:
                del self._hosted[plugin_id]
                self._fail(plugin_id, str(error))

    async def start(self) -> None:
        """Start everything in order; return when each had its first attempt, or after 2 s."""
        self._watchdog = LoopWatchdog(
            {standing.found.package: plugin_id for plugin_id, standing in self._standings.items()},
            self._loop_was_blocked,
            noticed_after=self._timing.loop_noticed,
            interrupt_after=self._timing.call,
        )
        self._watchdog.start()
        self._lifecycle = Lifecycle(list(self._hosted.values()), self._timing)
        await self._lifecycle.start()

    async def drain(self) -> None:
        """Let every plugin that can finish what is under way, each for as long as it says, before anything is stopped."""
        if self._lifecycle is not None:
            await self._lifecycle.drain()

    async def stop(self, timeout: float) -> list[str]:
        """Stop everything in reverse within `timeout` seconds; return what had to be abandoned, a line each."""
        abandoned: list[str] = []
        if self._lifecycle is not None:
            abandoned += await self._lifecycle.stop(timeout)
        await self.channels.close(1.0)
        await self.guard.close(1.0)
        if self._watchdog is not None:
            self._watchdog.stop()
        for line in abandoned:
            logger.error("abandoned at stop: %s", line)
        return abandoned

    def statuses(self) -> list[PluginStatus]:
        """Return the state of every plugin that is installed."""
        return [standing.status() for standing in self._standings.values()]

    def problems(self) -> list[str]:
        """Return what is wrong, a line each: parts of the config nobody owns, plugins that are wanted and do not run."""
        lines = [*self._discovery.problems, *map(self._place, self._assignment.problems)]
        for plugin_id, standing in self._standings.items():
            wanted = self._assignment.shares[plugin_id].disabled is None
            state = standing.state
            if state in {PluginState.FAILED, PluginState.DEGRADED} or (wanted and state is PluginState.UNAVAILABLE):
                lines.append(f"plugin {plugin_id!r} is {state.value}: {standing.reason}")
        return lines

    def settings_schemas(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the JSON Schema of each loaded plugin's section by its id; one that cannot be made is an open object."""
        return {
            plugin_id: or_else(plugin_id, "schema of the settings", schema_of, {"type": "object"})(model)
            for plugin_id, model in self._loader.models.items()
        }

    def _components(self, hosted: Hosted) -> list[Component]:
        registry, plugin_id = self.registry, hosted.id
        units = [unit for owner, unit in registry.units if owner == plugin_id]
        found: list[tuple[Any, str, Any]] = [("unit", type(unit).__name__, unit) for unit in units]
        providers = [(name, owned) for name, owned in registry.providers.items() if owned.plugin_id == plugin_id]
        channels = [(name, owned) for name, owned in registry.channels.items() if owned.plugin_id == plugin_id]
        found += [("provider", name, owned.item) for name, owned in providers]
        found += [("channel", name, owned.item) for name, owned in channels]
        return [
            Component(
                plugin_id=plugin_id,
                kind=kind,
                name=name,
                item=item,
                guard=self.guard,
                tasks=hosted.context.tasks,
                timing=self._timing,
                changed=hosted.update,
            )
            for kind, name, item in found
        ]

    def _component(self, kind: str, name: str) -> Component | None:
        mapping: Mapping[str, Owned[Any]] = self.registry.channels if kind == "channel" else self.registry.providers
        owned = mapping.get(name)
        hosted = self._hosted.get(owned.plugin_id) if owned is not None else None
        if hosted is None:
            return None
        return next((one for one in hosted.components if one.kind == kind and one.name == name), None)

    def _unstarted_provider(self, name: str) -> str | None:
        component = self._component("provider", name)
        if component is None or component.state is ComponentState.RUNNING:
            return None
        return component.reason or f"provider {name!r} is {component.state.value}"

    def _fail(self, plugin_id: str, reason: str) -> None:
        self.registry.remove(plugin_id)
        self._manager.remove(plugin_id)
        self._standings[plugin_id].become(PluginState.FAILED, reason)

    def _changed(self, status: PluginStatus) -> None:
        is_news = status.state in {PluginState.FAILED, PluginState.DEGRADED} and status.reason != self._complaints.get(status.id)
        self._complaints[status.id] = status.reason
        level = logging.WARNING if is_news else logging.DEBUG
        logger.log(level, "plugin %r is %s%s", status.id, status.state.value, f": {status.reason}" if status.reason else "")
        self._on_state(status)

    def _report(self, fault: PluginFault) -> None:
        logger.warning("%s", fault, exc_info=fault.error)
        self._show_for_a_while(fault.plugin_id, fault.what, fault.reason)

    def _loop_was_blocked(self, block: Block) -> None:
        if block.plugin_id is not None:
            reason = f"blocked the event loop for {block.seconds:.1f} s at {block.place}; use asyncio.to_thread there"
            self._show_for_a_while(block.plugin_id, "loop", reason)

    def _show_for_a_while(self, plugin_id: str, source: str, reason: str) -> None:
        standing = self._standings.get(plugin_id)
        if standing is not None:
            standing.fault(source, reason)
            asyncio.get_running_loop().call_later(self._timing.fault_shown, standing.fault, source, None)
