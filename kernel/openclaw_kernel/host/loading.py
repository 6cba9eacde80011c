"""From a discovered plugin to one whose hooks have been called: import, settings, constructor, hooks; each step fenced."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import BaseModel

from openclaw_config.models import Config
from openclaw_kernel.api.errors import ConfigRejected
from openclaw_kernel.api.services import PluginState
from openclaw_kernel.api.store import Store
from openclaw_kernel.host.calls import Calls
from openclaw_kernel.host.context import HostedContext, Snapshot
from openclaw_kernel.host.discovery import Found
from openclaw_kernel.host.guard import Guard, PluginFault, describe, fault_of
from openclaw_kernel.host.isolation import ChildFailed, Isolation, LateHold
from openclaw_kernel.host.lifecycle import Hosted
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """Loading beside what runs: what is registered takes no calls until `Hosted.calls` is opened."""

    services: Registry
    """Where the plugins will ask for services: the registry in force."""
    importing: Callable[[Found], type[Any]]
    """Imports a plugin and returns its class."""


class Loader:
    """Loads plugins one after the other. `models` are the settings models of those that were imported, by plugin id.

    `unsettled` are those that failed for their settings alone.
    """

    context_class: ClassVar[type[HostedContext]] = HostedContext

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
        beside: Beside | None = None,
    ) -> None:
        self._isolation = isolation
        self.holds: dict[str, LateHold] = {}
        self._registry = registry
        self._services = registry if beside is None else beside.services
        self._importing = load_class if beside is None else beside.importing
        self._opened = beside is None
        self._manager = manager
        self._guard = guard
        self._config = config
        self._home = home
        self._store = store
        self._now_ms = now_ms
        self._deadline = config.plugins.call_timeout_seconds
        self.models: dict[str, type[BaseModel]] = {}
        self.unsettled: set[str] = set()

    async def load(self, wanted: Sequence[tuple[Standing, Share]]) -> dict[str, Hosted]:
        """Load the plugins; return those that did not fail, by id. The others have become `failed`.

        Raises:
            Unclassified: a plugin has a method or an event of which it does not say who may have it.
        """
        built: list[Hosted] = []
        try:
            await self._construct_all(wanted, built)
            return await self._register_all(built)
        except BaseException:
            # Whoever asked gets none of them, so nobody else would end their processes.
            await give_up(built)
            raise

    async def _register_all(self, built: Sequence[Hosted]) -> dict[str, Hosted]:
        loaded: dict[str, Hosted] = {}
        # pluggy calls the last registered first; thus the bundled ones, which are first here, get their names first.
        for hosted in reversed(built):
            try:
                await self._register(hosted.id, hosted.plugin)
                loaded[hosted.id] = hosted
            except PluginFault as fault:
                self._fail(hosted.standing, fault)
        for plugin_id, failure in (await self._call_hooks(loaded)).items():
            self._fail(loaded.pop(plugin_id).standing, failure)
        return loaded

    async def _construct_all(self, wanted: Sequence[tuple[Standing, Share]], built: list[Hosted]) -> None:
        """Construct one after the other into `built`, but wait for none longer than `_PATIENCE_SECONDS` before the next begins.

        Several that hang thus hang together, and the start waits for one deadline, not for the sum of all.
        """
        owner = TaskOwner("load", lambda name, error: logger.debug("%s ended with %s", name, describe(error)))
        tasks = []
        try:
            for standing, share in wanted:
                task = owner.spawn(standing.found.id, self._construct(standing, share))
                tasks.append((standing, task))
                await asyncio.wait({task}, timeout=_PATIENCE_SECONDS)
            for standing, task in tasks:
                try:
                    built.append(await task)
                except PluginFault as fault:
                    self._fail(standing, fault)
        except BaseException:
            built += [task.result() for _, task in tasks if task.done() and not task.cancelled() and task.exception() is None]
            raise
        finally:
            await owner.close(0)

    async def _construct(self, standing: Standing, share: Share) -> Hosted:
        found = standing.found
        if share.isolated:
            return await self._isolate(standing, share)
        plugin_class = await self._guard.run_sync(found.id, "import", lambda: self._importing(found), self._deadline)
        model = getattr(plugin_class, "settings", None)
        self._note_model(found, plugin_class, model)
        snapshot, faults = await self.validate(found, share, model)
        standing.fault("settings", "; ".join(faults) or None)
        context = self._context(standing, snapshot)
        plugin = await self._guard.run_sync(found.id, "constructor", lambda: plugin_class(context), self._deadline)
        return self._hosted(standing, context, plugin)

    def _hosted(self, standing: Standing, context: HostedContext, plugin: object) -> Hosted:
        return Hosted(standing, context, plugin=plugin, calls=Calls(opened=self._opened))

    def _context(self, standing: Standing, snapshot: Snapshot) -> HostedContext:
        return self.context_class(
            standing=standing,
            snapshot=snapshot,
            home=self._home,
            store=self._store,
            registry=self._services,
            now_ms=self._now_ms,
        )

    async def _isolate(self, standing: Standing, share: Share) -> Hosted:
        found, isolation = standing.found, self._isolation
        if isolation is None:
            raise PluginFault(found.id, "isolation", "is process", "run it in a gateway: nothing here starts processes")
        context = self._context(standing, Snapshot(config=self._config))
        hold = LateHold()
        # It has deadlines of its own, for each step.
        plugin = await self._guard.run(found.id, "process", lambda: isolation.build(found, context, share, hold), None)
        self.holds[found.id] = hold
        hosted = self._hosted(standing, context, plugin)
        hold.bind(hosted)
        return hosted

    def _note_model(self, found: Found, plugin_class: type[Any], model: Any) -> None:
        if model is None:
            return
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise fault_of(
                found.id, "settings", LoadFailed(f"{plugin_class.__name__}.settings is {model!r}; name a pydantic model, or None")
            )
        self.models[found.id] = model

    async def validate(self, found: Found, share: Share, model: type[BaseModel] | None) -> tuple[Snapshot, Sequence[str]]:
        """Return what a plugin with this settings model gets to see, and what is wrong with some of a provider's instances.

        Raises:
            PluginFault: the section is wrong, or no instance is right.
        """
        if share.isolated:
            # Its process has the model.
            return Snapshot(config=self._config), ()
        return await self._guard.run_sync(found.id, "settings", lambda: self._snapshot(found, share, model), self._deadline)

    def _snapshot(self, found: Found, share: Share, model: type[BaseModel] | None) -> tuple[Snapshot, Sequence[str]]:
        if model is None:
            if share.section.keys() - {"enabled"}:
                raise SettingsRejected(f"{found.section}: the plugin takes no settings; remove the section's keys")
            return Snapshot(config=self._config), ()
        if found.kind == "provider":
            validated = validate_instances(model, share.instances)
            if not validated.instances:
                raise SettingsRejected("; ".join(validated.faults))
            return Snapshot(config=self._config, instances=validated.instances), validated.faults
        try:
            return Snapshot(config=self._config, section=validate_section(model, found.section, share.section)), ()
        except ValueError as error:
            raise SettingsRejected(str(error)) from error

    async def _register(self, plugin_id: str, plugin: object) -> None:
        await self._guard.run_sync(plugin_id, "hooks", lambda: self._manager.register(plugin_id, plugin), self._deadline)

    async def _call_hooks(self, loaded: Mapping[str, Hosted]) -> dict[str, PluginFault]:
        manager = self._manager
        registrars: dict[str, PluginRegistrar] = {
            plugin_id: self._registry.registrar(plugin_id, hosted.calls) for plugin_id, hosted in loaded.items()
        }
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
        if isinstance(fault.error, SettingsRejected | ConfigRejected):
            self.unsettled.add(standing.found.id)
        standing.become(PluginState.FAILED, own_words(fault))


async def give_up(loaded: Iterable[Hosted]) -> None:
    """Let go of instances that never started."""
    for hosted in loaded:
        hosted.calls.withdraw()
        await hosted.context.tasks.close(1.0)


def own_words(fault: PluginFault) -> str:
    """Return what is wrong in the words of whoever found it, without the name of the plugin."""
    return str(fault.error) if isinstance(fault.error, _OWN_WORDS) else fault.reason
