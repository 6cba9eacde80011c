"""From a discovered plugin to one whose hooks have been called: import, settings, constructor, hooks; each step fenced."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from openclaw_config.models import Config
from openclaw_kernel.api.errors import ConfigRejected
from openclaw_kernel.api.services import PluginState
from openclaw_kernel.api.store import Store
from openclaw_kernel.host.context import HostedContext
from openclaw_kernel.host.guard import Guard, PluginFault, describe
from openclaw_kernel.host.isolation import ChildFailed, Isolation, LateHold
from openclaw_kernel.host.loader import LoadFailed, load_class
from openclaw_kernel.host.manager import HookRejected, PluginManager
from openclaw_kernel.host.registry import PluginRegistrar, RegistrationRefused, Registry, Unclassified
from openclaw_kernel.host.sections import Share, validate_instances, validate_section
from openclaw_kernel.host.state import Standing
from openclaw_kernel.tasks import TaskOwner

logger: Final = logging.getLogger(__name__)

_PATIENCE_SECONDS: Final = 0.25


class SettingsRejected(Exception):
    """The plugin's section is wrong; the message has a line's worth for each fault."""


_OWN_WORDS = (SettingsRejected, ConfigRejected, RegistrationRefused, HookRejected, LoadFailed, ChildFailed)
"""Errors that say themselves what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class _Settings:
    section: BaseModel | None
    instances: Mapping[str, BaseModel]
    faults: tuple[str, ...] = ()


class Loader:
    """Loads plugins one after the other. `models` are the settings models of those that were imported, by plugin id."""

    def __init__(
        self,
        *,
        registry: Registry,
        manager: PluginManager,
        guard: Guard,
        config: Config,
        home: Path,
        store: Store,
        now_ms: Callable[[], int],
        isolation: Isolation | None = None,
    ) -> None:
        self._isolation = isolation
        self.holds: dict[str, LateHold] = {}
        self._registry = registry
        self._manager = manager
        self._guard = guard
        self._config = config
        self._home = home
        self._store = store
        self._now_ms = now_ms
        self._deadline = config.plugins.call_timeout_seconds
        self.models: dict[str, type[BaseModel]] = {}

    async def load(self, wanted: Sequence[tuple[Standing, Share]]) -> dict[str, HostedContext]:
        """Load the plugins; return the contexts of those that did not fail. The others have become `failed`.

        Raises:
            Unclassified: a plugin has a method or an event of which it does not say who may have it.
        """
        built = await self._construct_all(wanted)
        contexts: dict[str, HostedContext] = {}
        # pluggy calls the last registered first; thus the bundled ones, which are first here, get their names first.
        for standing, context, plugin in reversed(built):
            try:
                await self._register(standing.found.id, plugin)
                contexts[standing.found.id] = context
            except PluginFault as fault:
                self._fail(standing, fault)
        standings = {standing.found.id: standing for standing, _ in wanted}
        for plugin_id, failure in (await self._call_hooks(contexts)).items():
            del contexts[plugin_id]
            self._fail(standings[plugin_id], failure)
        return contexts

    async def _construct_all(self, wanted: Sequence[tuple[Standing, Share]]) -> list[tuple[Standing, HostedContext, object]]:
        """Construct one after the other, but wait for none longer than `_PATIENCE_SECONDS` before the next begins.

        Several that hang thus hang together, and the start waits for one deadline, not for the sum of all.
        """
        owner = TaskOwner("load", lambda name, error: logger.debug("%s ended with %s", name, describe(error)))
        tasks = []
        built: list[tuple[Standing, HostedContext, object]] = []
        try:
            for standing, share in wanted:
                task = owner.spawn(standing.found.id, self._construct(standing, share))
                tasks.append((standing, task))
                await asyncio.wait({task}, timeout=_PATIENCE_SECONDS)
            for standing, task in tasks:
                try:
                    built.append((standing, *await task))
                except PluginFault as fault:
                    self._fail(standing, fault)
        finally:
            await owner.close(0)
        return built

    async def _construct(self, standing: Standing, share: Share) -> tuple[HostedContext, object]:
        found = standing.found
        if share.isolated:
            return await self._isolate(standing, share)
        plugin_class = await self._guard.run_sync(found.id, "import", lambda: load_class(found), self._deadline)
        settings = await self._guard.run_sync(found.id, "settings", lambda: self._settings(standing, share, plugin_class), self._deadline)
        standing.fault("settings", "; ".join(settings.faults) or None)
        context = self._context(standing, settings)
        plugin = await self._guard.run_sync(found.id, "constructor", lambda: plugin_class(context), self._deadline)
        return context, plugin

    def _context(self, standing: Standing, settings: _Settings) -> HostedContext:
        return HostedContext(
            standing=standing,
            config=self._config,
            home=self._home,
            store=self._store,
            registry=self._registry,
            settings=settings.section,
            instances=settings.instances,
            now_ms=self._now_ms,
        )

    async def _isolate(self, standing: Standing, share: Share) -> tuple[HostedContext, object]:
        found, isolation = standing.found, self._isolation
        if isolation is None:
            raise PluginFault(found.id, "isolation", "is process", "run it in a gateway: nothing here starts processes")
        context = self._context(standing, _Settings(None, {}))
        hold = self.holds[found.id] = LateHold()
        # It has deadlines of its own, for each step.
        plugin = await self._guard.run(found.id, "process", lambda: isolation.build(found, context, share, hold), None)
        return context, plugin

    def _settings(self, standing: Standing, share: Share, plugin_class: type[Any]) -> _Settings:
        found = standing.found
        model = getattr(plugin_class, "settings", None)
        if model is None:
            if share.section.keys() - {"enabled"}:
                raise SettingsRejected(f"{found.section}: the plugin takes no settings; remove the section's keys")
            return _Settings(None, {})
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise LoadFailed(f"{plugin_class.__name__}.settings is {model!r}; name a pydantic model, or None")
        self.models[found.id] = model
        if found.kind == "provider":
            validated = validate_instances(model, share.instances)
            if not validated.instances:
                raise SettingsRejected("; ".join(validated.faults))
            return _Settings(None, validated.instances, validated.faults)
        try:
            return _Settings(validate_section(model, found.section, share.section), {})
        except ValueError as error:
            raise SettingsRejected(str(error)) from error

    async def _register(self, plugin_id: str, plugin: object) -> None:
        await self._guard.run_sync(plugin_id, "hooks", lambda: self._manager.register(plugin_id, plugin), self._deadline)

    async def _call_hooks(self, contexts: Mapping[str, HostedContext]) -> dict[str, PluginFault]:
        manager = self._manager
        registrars: dict[str, PluginRegistrar] = {plugin_id: self._registry.registrar(plugin_id) for plugin_id in contexts}
        everyone = list(registrars.values())
        faults: dict[str, PluginFault] = {}
        for call in (
            manager.register_services,
            manager.register_channels,
            manager.register_providers,
            manager.register_tools,
            manager.register_commands,
            manager.register_methods,
            manager.register_routes,
            manager.register_authenticators,
        ):
            failed = await call(registrars, self._deadline)
            faults.update(failed)
            for plugin_id in failed:
                registrars.pop(plugin_id).close()
                self._registry.remove(plugin_id)
        for registrar in everyone:
            registrar.close()
        return faults

    def _fail(self, standing: Standing, fault: PluginFault) -> None:
        if isinstance(fault.error, Unclassified):
            raise fault.error
        self._manager.remove(standing.found.id)
        if standing.found.id in self.holds and self._isolation is not None:
            self._isolation.discard(standing.found.id)
        own = isinstance(fault.error, _OWN_WORDS)
        standing.become(PluginState.FAILED, str(fault.error) if own else fault.reason)
