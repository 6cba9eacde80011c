"""The plugin host: loads what was found, runs it, and answers for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from openclaw_config.composed import Section
from openclaw_config.describe import schema_of
from openclaw_config.models import Config
from openclaw_kernel.api.audit import AuditLog
from openclaw_kernel.api.config import ReloadOutcome
from openclaw_kernel.api.secrets import Secrets
from openclaw_kernel.api.services import Channels, Commands, PluginState, PluginStatus, Policies, Providers, Tools
from openclaw_kernel.host.authenticators import HostedAuthenticators
from openclaw_kernel.host.component import Component, ComponentState
from openclaw_kernel.host.composing import sections_of
from openclaw_kernel.host.discovery import Discovery
from openclaw_kernel.host.faults import Faults
from openclaw_kernel.host.guard import Guard, PluginFault, describe, or_else
from openclaw_kernel.host.inforce import InForce, Surface, no_surface
from openclaw_kernel.host.isolation import Isolation
from openclaw_kernel.host.lag import LagMeter
from openclaw_kernel.host.lifecycle import Hosted, Lifecycle
from openclaw_kernel.host.loading import Loader
from openclaw_kernel.host.manager import PluginManager
from openclaw_kernel.host.order import start_order
from openclaw_kernel.host.registry import KERNEL, Owned, Registry
from openclaw_kernel.host.replacing import Prepared
from openclaw_kernel.host.retiring import Retiring
from openclaw_kernel.host.secrets import SecretBroker
from openclaw_kernel.host.sections import assign
from openclaw_kernel.host.services import (
    HostedChannels,
    HostedCommands,
    HostedPolicies,
    HostedProviders,
    HostedTools,
)
from openclaw_kernel.host.staging import MigratingStore, Stager, Wanted
from openclaw_kernel.host.state import Standing
from openclaw_kernel.host.timing import Timing
from openclaw_kernel.host.watchdog import LoopWatchdog
from openclaw_kernel.tasks import TaskOwner

logger: Final = logging.getLogger(__name__)

AnswerT = TypeVar("AnswerT")


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000


def _unheard(_status: PluginStatus) -> None:
    """Nobody is told of what is not in force yet, or not any more."""


def _task_failed(name: str, error: BaseException) -> None:
    logger.error("%s failed: %s", name, describe(error), exc_info=error)


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
        store: MigratingStore,
        discovery: Discovery,
        services: Mapping[type, object],
        on_state: Callable[[PluginStatus], None],
        now_ms: Callable[[], int] = _unix_ms,
        timing: Timing | None = None,
        place: Callable[[str], str] = str,
        isolation: Isolation | None = None,
    ) -> None:
        self._place = place
        self._on_state = on_state
        self._now_ms = now_ms
        self.timing: Final = replace(timing if timing is not None else Timing(), call=config.plugins.call_timeout_seconds)
        self.guard: Final = Guard()
        self.tasks: Final = TaskOwner("plugins", _task_failed)
        self._retiring: Final = Retiring(self.tasks, self.timing)
        self._lifecycle: Lifecycle | None = None
        self._watchdog: LoopWatchdog | None = None
        self._packages: dict[str, str] = {}
        self.lag: Final = LagMeter(self.timing.loop_noticed / 2, time.monotonic, now_ms)
        self._faults: Final = Faults(self._standing_of, self.timing, self.lag)
        self._changing: Final = asyncio.Lock()
        self.registry: Final = Registry()
        self._manager: Final = PluginManager(self.guard, self._faults.report)
        self._now = InForce(
            config=config,
            discovery=discovery,
            assignment=assign(config, discovery),
            standings={found.id: Standing(found, self._changed, now_ms, place) for found in discovery.plugins},
            registry=self.registry,
            manager=self._manager,
        )
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
        self._stager: Final = Stager(
            guard=self.guard,
            home=home,
            store=store,
            now_ms=now_ms,
            live=self.registry,
            report=self._faults.report,
            blank=lambda found: Standing(found, _unheard, now_ms, place),
            isolation=isolation,
        )
        self.surface: Surface = no_surface
        self.channels: Final = HostedChannels(
            self.registry,
            self.guard,
            self.timing,
            component=lambda channel: self._component("channel", channel),
        )
        audit: Any = services.get(AuditLog)
        broker = self._broker = SecretBroker(config, store, audit)
        self.providers: Final = HostedProviders(
            self.registry, self.guard, broker, unstarted=self._unstarted_provider, report=self._faults.report
        )
        self.tools: Final = HostedTools(self.registry, self.guard, broker)
        self.commands: Final = HostedCommands(self.registry, self.guard, self.timing)
        self.policies: Final = HostedPolicies(self._manager)
        self.authenticators: Final = HostedAuthenticators(self.registry, self.guard, report=self._faults.report)
        self._offer_all(services)

    def _offer_all(self, services: Mapping[type, object]) -> None:
        own: dict[type, object] = {
            Channels: self.channels,
            Providers: self.providers,
            Tools: self.tools,
            Commands: self.commands,
            Policies: self.policies,
            Secrets: self._broker,
        }
        for kind, service in {**own, **services}.items():
            self.offer(kind, service)

    def offer(self, kind: type, service: object) -> None:
        """Let plugins ask for a service of the kernel that needs the loaded plugins itself; call it before `start`."""
        self.registry.services[kind] = Owned(KERNEL, service)

    async def load(self) -> None:
        """Import, construct and register every plugin that is to run; what fails is that plugin's state alone."""
        wanted = []
        for found in self._now.discovery.plugins:
            standing = self._now.standings[found.id]
            share = self._now.assignment.shares[found.id]
            if standing.state is PluginState.UNAVAILABLE:
                continue
            if share.disabled is not None:
                standing.become(PluginState.DISABLED, share.disabled)
            elif standing.state is PluginState.DISCOVERED:
                wanted.append((standing, share))
        loaded = await self._loader.load(wanted)
        ordered, circular = start_order([standing.found for standing, _ in wanted if standing.found.id in loaded])
        for plugin_id, reason in circular.items():
            self._fail(plugin_id, reason)
        for found in ordered:
            self._equip(loaded[found.id], self.registry)
        self._now = replace(self._now, hosted={found.id: loaded[found.id] for found in ordered}, models=self._loader.models)

    def refuse_migrations(self, refusals: Mapping[str, Exception]) -> None:
        """Fail the plugins whose migrations the store refused (the result of `Store.open`); call it before `start`."""
        for plugin_id, error in refusals.items():
            if plugin_id in self._now.hosted:
                others = {name: hosted for name, hosted in self._now.hosted.items() if name != plugin_id}
                self._now = replace(self._now, hosted=others)
                self._fail(plugin_id, str(error))

    async def start(self) -> None:
        """Start everything in order; return when each had its first attempt, or after 2 s."""
        self._name_packages()
        self._watchdog = LoopWatchdog(
            self._packages,
            self._faults.blocked,
            noticed_after=self.timing.loop_noticed,
            interrupt_after=self.timing.call,
            measured=self.lag.add,
        )
        self._watchdog.start()
        self._lifecycle = Lifecycle(list(self._now.hosted.values()), self.timing)
        await self._lifecycle.start()

    async def drain(self) -> None:
        """Let every plugin that can finish what is under way, each for as long as it says, before anything is stopped."""
        if self._lifecycle is not None:
            await self._lifecycle.drain()

    async def stop(self, timeout: float) -> list[str]:
        """Stop everything in reverse within `timeout` seconds; return what had to be abandoned, a line each."""
        abandoned: list[str] = []
        # One that is under way is taken back; what was replaced ends at once.
        abandoned += await self.tasks.close(min(timeout, 2 * self.timing.call))
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
        return [standing.status() for standing in self._now.standings.values()]

    def problems(self) -> list[str]:
        """Return what is wrong, a line each: parts of the config nobody owns, plugins that are wanted and do not run."""
        lines = [*self._now.discovery.problems, *map(self._place, self._now.assignment.problems)]
        for plugin_id, standing in self._now.standings.items():
            wanted = self._now.assignment.shares[plugin_id].disabled is None
            state = standing.state
            if state in {PluginState.FAILED, PluginState.DEGRADED} or (wanted and state is PluginState.UNAVAILABLE):
                lines.append(f"plugin {plugin_id!r} is {state.value}: {standing.reason}")
        return lines

    def settings_schemas(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the JSON Schema of each loaded plugin's section by its id; one that cannot be made is an open object."""
        return {
            plugin_id: or_else(plugin_id, "schema of the settings", schema_of, {"type": "object"})(model)
            for plugin_id, model in self._now.models.items()
        }

    @property
    def discovery(self) -> Discovery:
        """What is installed."""
        return self._now.discovery

    def sections(self) -> Sequence[Section]:
        """Return what each installed plugin's section may hold; that of one that was not imported is an open object."""
        now = self._now
        models: dict[str, type[BaseModel] | None] = dict(now.models)
        for plugin_id in now.hosted.keys() - models.keys():
            entry, manifest = now.config.plugins.entries.get(plugin_id), now.standings[plugin_id].found.manifest
            if manifest is not None and manifest.child is None and (entry is None or entry.isolation == "inproc"):
                models[plugin_id] = None
        return sections_of(now.discovery, models)

    async def prepare(
        self,
        config: Config,
        wanted: Mapping[str, ReloadOutcome],
        *,
        paths: Mapping[str, Sequence[str]] | None = None,
    ) -> Prepared:
        """Make what a config needs beside what runs; nothing of it is visible before `Prepared.commit`.

        Until that, or `Prepared.discard`, is over, a further `prepare` waits.

        `config` is what is to be in force: keys that wait for a restart still have their old values in it. `wanted` and `paths` are the
        plan's outcomes and changed keys by plugin id; a plugin that is not named is `NONE`. Who starts and stops follows from the config
        by itself. With `NONE` a plugin sees the new snapshot and is not told; with `HOT` its `Reloads.reload` is called; with `UNIT` it
        is replaced by a new instance; with `PROCESS` it keeps the snapshot and the instance that it has, also where it would stop.

        Raises:
            NotApplied: a plugin's settings are wrong, it cannot be loaded, or it cannot be replaced (see `fixed`).
        """
        return await self.prepare_all(lambda now: Wanted(config=config, discovery=now.discovery, outcomes=wanted, paths=paths or {}))

    async def prepare_all(self, want: Callable[[InForce], Wanted], *, dropped: Callable[[], None] = lambda: None) -> Prepared:
        """Do the same where code or plugins are new; `want` says what to do to what is in force when it is this change's turn.

        `dropped` is called once when that did not come about.
        """
        await self._changing.acquire()
        try:
            staged = await self._stager.stage(self._now, want(self._now), self.surface, self._equip)
        except BaseException:
            self._changing.release()
            dropped()
            raise
        return Prepared(self, staged, back=lambda before: self.surface(before.registry), dropped=dropped, over=self._changing.release)

    def ask(self, kind: type[Any], what: str, question: Callable[[Any], AnswerT], otherwise: AnswerT) -> AnswerT:
        """Put a question to what provides a service; answer `otherwise` where nobody does, or where it fails."""
        owned = self.registry.services.get(kind)
        if owned is None:
            return otherwise
        try:
            return self.guard.call(owned.plugin_id, what, lambda: question(owned.item))
        except PluginFault as fault:
            logger.error("%s", fault, exc_info=fault.error)  # noqa: TRY400 - the plugin's traceback, not the guard's
            return otherwise

    def fixed(self, plugin_id: str) -> str | None:
        """Say why a plugin cannot be started, stopped or replaced while the gateway runs, None where it can or nobody has tried."""
        return self._now.fixed(plugin_id) or self._stager.frozen.get(plugin_id)

    def current(self) -> InForce:
        """Return what is in force, as something that can be put back."""
        return replace(self._now, registry=self.registry.without(()), manager=self._manager.twin())

    def put_in_force(self, inforce: InForce) -> None:
        """Go by this from now on, in one step: nobody sees half of it."""
        before, after = {*self._now.standings.values()}, {*inforce.standings.values()}
        for standing in before - after:
            standing.follow(_unheard)
        self._now = inforce
        self.registry.adopt(inforce.registry)
        self._manager.adopt(inforce.manager)
        self._broker.config = inforce.config
        self.timing.call = inforce.config.plugins.call_timeout_seconds
        if self._lifecycle is not None:
            self._lifecycle.arrange(list(inforce.hosted.values()))
        self._name_packages()
        for standing in after - before:
            standing.follow(self._changed)
            # What it came to before anybody listened.
            self._changed(standing.status())

    def retire(self, hosted: Hosted) -> None:
        """Let an instance that is not in force any more end once nothing of it is under way."""
        self._retiring.begin(hosted)

    def _equip(self, hosted: Hosted, registry: Registry) -> None:
        hosted.components = self._components(hosted, registry)
        hosted.standing.become(PluginState.LOADED)

    def _name_packages(self) -> None:
        packages = {standing.found.package: plugin_id for plugin_id, standing in self._now.standings.items()}
        # The watchdog reads it on a thread of its own: what is in it is only ever replaced or added to.
        self._packages.update(packages)

    def _components(self, hosted: Hosted, registry: Registry) -> list[Component]:
        plugin_id = hosted.id
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
                timing=self.timing,
                changed=hosted.update,
            )
            for kind, name, item in found
        ]

    def _component(self, kind: str, name: str) -> Component | None:
        mapping: Mapping[str, Owned[Any]] = self.registry.channels if kind == "channel" else self.registry.providers
        owned = mapping.get(name)
        hosted = self._now.hosted.get(owned.plugin_id) if owned is not None else None
        if hosted is None:
            return None
        return next((one for one in hosted.components if one.kind == kind and one.name == name), None)

    def _unstarted_provider(self, name: str) -> str | None:
        component = self._component("provider", name)
        if not self.registry.providers[name].calls.is_open:
            # It is being replaced: who calls it waits for the new one.
            return None
        if component is None or component.state is ComponentState.RUNNING:
            return None
        return component.reason or f"provider {name!r} is {component.state.value}"

    def _standing_of(self, plugin_id: str) -> Standing | None:
        return self._now.standings.get(plugin_id)

    def _changed(self, status: PluginStatus) -> None:
        self._faults.note(status)
        self._on_state(status)

    def _fail(self, plugin_id: str, reason: str) -> None:
        self.registry.remove(plugin_id)
        self._manager.remove(plugin_id)
        self._now.standings[plugin_id].become(PluginState.FAILED, reason)
