"""Start all plugins in order and stop them in reverse; one that hangs or fails holds up only those that named it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from openclaw_kernel.api.services import PluginState
from openclaw_kernel.host.calls import Calls
from openclaw_kernel.host.component import Component, ComponentState
from openclaw_kernel.host.context import HostedContext
from openclaw_kernel.host.guard import CANCEL_GRACE_SECONDS
from openclaw_kernel.host.order import RANK, waits_for
from openclaw_kernel.host.state import Standing
from openclaw_kernel.host.timing import Timing
from openclaw_kernel.tasks import TaskOwner

logger: Final = logging.getLogger(__name__)

_STOP_LAYERS: Final = 3
"""Channels, providers and plugins stop one layer after the other; each gets its part of the time."""

LEAST_SECONDS: Final = 0.1
"""What each thing has to stop at least, however little time is left."""


@dataclass(slots=True, eq=False)
class Hosted:
    """A loaded plugin."""

    standing: Standing
    context: HostedContext
    plugin: object
    calls: Calls = field(default_factory=Calls)
    components: list[Component] = field(default_factory=list)
    attempted: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> str:
        """The plugin's id."""
        return self.standing.found.id

    @property
    def units(self) -> list[Component]:
        """What starts one after the other, in the order in which it was registered."""
        return [component for component in self.components if component.kind == "unit"]

    @property
    def others(self) -> list[Component]:
        """Channels and instances of a provider, which do not depend on each other."""
        return [component for component in self.components if component.kind != "unit"]

    def lose(self, reason: str, *, final: bool) -> None:
        """Say that the process ended in which all of it ran; implements `Hold`."""
        for component in self.components:
            component.lose(reason, final=final)

    async def regain(self) -> None:
        """Start again what was lost; units first, as in `Lifecycle`."""
        for unit in self.units:
            await unit.regain()
        async with asyncio.TaskGroup() as group:
            for component in self.others:
                group.create_task(component.regain(), name=f"{self.id}/regain {component.label}")

    def update(self) -> None:
        """Derive the plugin's state from its components."""
        if self.standing.state in {PluginState.UNAVAILABLE, PluginState.DISABLED}:
            return
        states = [component.state for component in self.components]
        failed = [component for component in self.components if component.state is ComponentState.FAILED]
        troubled = {ComponentState.WAITING, ComponentState.FAILED, ComponentState.STARTING}
        # Units of one class have one label.
        faults = {
            f"{number} {component.label}": component.reason if component.state in troubled else None
            for number, component in enumerate(self.components)
        }
        state: PluginState | None = None
        if failed and len(failed) == len(self.components):
            state = PluginState.FAILED
        elif states and all(state is ComponentState.STOPPED for state in states):
            state = PluginState.STOPPED
        elif self.attempted.is_set() or any(state is not ComponentState.IDLE for state in states):
            state = PluginState.STARTED
        self.standing.derive(state, faults)


async def bring_up(plugin: Hosted, go_on: Callable[[Component], None] = lambda _unit: None) -> None:
    """Make the first attempt to start each thing of a plugin: its units one after the other, then the others side by side.

    `go_on` is called after each unit, and may raise to leave the rest unstarted.
    """
    try:
        for unit in plugin.units:
            await unit.start()
            go_on(unit)
        async with asyncio.TaskGroup() as group:
            for component in plugin.others:
                group.create_task(component.start(), name=f"{plugin.id}/start {component.label}")
    finally:
        plugin.attempted.set()
    plugin.update()


async def bring_down(plugin: Hosted, seconds: float) -> list[str]:
    """Stop each thing of a plugin within about `seconds`, the last started first, and end its tasks; return what was abandoned."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    abandoned: list[str] = []
    async with asyncio.TaskGroup() as group:
        for component in plugin.others:
            group.create_task(_stop_one(component, seconds, abandoned), name=f"{plugin.id}/stop {component.label}")
    for unit in reversed(plugin.units):
        await _stop_one(unit, max(LEAST_SECONDS, ends - loop.time()), abandoned)
    abandoned.extend(await plugin.context.tasks.close(max(LEAST_SECONDS, ends - loop.time())))
    if plugin.standing.alive:
        plugin.standing.become(PluginState.STOPPED)
    return abandoned


async def _stop_one(component: Component, deadline: float, abandoned: list[str]) -> None:
    fault = await component.stop(deadline)
    if fault is not None:
        logger.error("%s", fault)
        abandoned.append(str(fault))


class Lifecycle:
    """Starts and stops `plugins`, which are in start order."""

    def __init__(self, plugins: Sequence[Hosted], timing: Timing) -> None:
        self._plugins = plugins
        self._by_id = {plugin.id: plugin for plugin in plugins}
        self._timing = timing
        self._tasks = TaskOwner("host", self._failed)

    def arrange(self, plugins: Sequence[Hosted]) -> None:
        """Answer for these from now on, which are in start order; nothing is started or stopped."""
        self._plugins = plugins
        self._by_id = {plugin.id: plugin for plugin in plugins}

    async def start(self) -> None:
        """Start everything; return when each has had its first attempt, or after `Timing.ready_wait`."""
        starting = [self._tasks.spawn(f"start {plugin.id}", self._bring_up(plugin)) for plugin in self._plugins]
        if starting:
            await asyncio.wait(starting, timeout=self._timing.ready_wait)

    async def drain(self) -> None:
        """Let all units that can finish what is under way, side by side; each has its own time."""
        async with asyncio.TaskGroup() as group:
            for plugin in self._plugins:
                for unit in plugin.units:
                    group.create_task(unit.drain(), name=f"{plugin.id}/drain {unit.label}")

    async def stop(self, timeout: float) -> list[str]:
        """Stop everything within `timeout` seconds; return what was abandoned, a line each."""
        await self._tasks.close(min(1.0, timeout))
        owner = TaskOwner("host", self._failed)
        # What does not end when cancelled is waited for a little longer.
        share = max(LEAST_SECONDS, min(self._timing.call, timeout / _STOP_LAYERS - CANCEL_GRACE_SECONDS))
        abandoned: list[str] = []
        stopping = [owner.spawn(f"stop {plugin.id}", self._bring_down(plugin, share, abandoned)) for plugin in self._plugins]
        if stopping:
            await asyncio.wait(stopping, timeout=timeout)
        abandoned.extend(await owner.close(0.1))
        return abandoned

    async def _bring_up(self, plugin: Hosted) -> None:
        for other in waits_for(plugin.standing.found, self._by_id):
            await self._by_id[other].attempted.wait()
        await self._wait_for_lower_kinds(plugin)
        await bring_up(plugin)

    async def _wait_for_lower_kinds(self, plugin: Hosted) -> None:
        earlier = self._plugins[: self._plugins.index(plugin)]
        rank = RANK[plugin.standing.found.kind]
        waits = [other.attempted for other in earlier if RANK[other.standing.found.kind] < rank]
        try:
            async with asyncio.timeout(self._timing.order_wait):
                for event in waits:
                    await event.wait()
        except TimeoutError:
            logger.info("plugin %r does not wait longer for the plugins that start before it", plugin.id)

    async def _bring_down(self, plugin: Hosted, share: float, abandoned: list[str]) -> None:
        try:
            for other in self._dependents(plugin):
                await other.ended.wait()
            abandoned.extend(await bring_down(plugin, share))
        finally:
            plugin.ended.set()

    def _dependents(self, plugin: Hosted) -> list[Hosted]:
        """Return the plugins that stop before this one: those of a higher kind and those that name it."""
        later = self._plugins[self._plugins.index(plugin) + 1 :]
        rank = RANK[plugin.standing.found.kind]
        return [
            other for other in later if RANK[other.standing.found.kind] > rank or plugin.id in waits_for(other.standing.found, self._by_id)
        ]

    def _failed(self, name: str, error: BaseException) -> None:
        logger.error("%s failed", name, exc_info=error)
