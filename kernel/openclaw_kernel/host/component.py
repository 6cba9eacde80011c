"""One started thing of a plugin (unit, provider or channel): start, back-off, stop."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from enum import StrEnum
from typing import Final, Literal, Protocol, runtime_checkable

from openclaw_kernel.api.errors import ConfigRejected, NotReady
from openclaw_kernel.api.plugin import LONGEST_DRAIN_SECONDS, Drains
from openclaw_kernel.host.guard import Guard, PluginFault, PluginHung
from openclaw_kernel.host.isolation import ChildFailed, GivenUp
from openclaw_kernel.host.timing import Timing
from openclaw_kernel.tasks import TaskOwner

logger: Final = logging.getLogger(__name__)


class ComponentState(StrEnum):
    IDLE = "idle"
    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    """It said `NotReady` and is tried again."""
    FAILED = "failed"
    STOPPED = "stopped"


class Startable(Protocol):
    async def start(self) -> None: ...
    async def stop(self) -> None: ...


@runtime_checkable
class Revives(Protocol):
    """What may have been given up, and is told when somebody wants it nevertheless."""

    def revive(self) -> None: ...


ComponentKind = Literal["unit", "provider", "channel"]


class Component:
    """Drives one thing. Start and stop never overlap; `changed` is called after each change of `state`."""

    def __init__(
        self,
        *,
        plugin_id: str,
        kind: ComponentKind,
        name: str,
        item: Startable,
        guard: Guard,
        tasks: TaskOwner,
        timing: Timing,
        changed: Callable[[], None],
    ) -> None:
        self.plugin_id = plugin_id
        self.kind = kind
        self.name = name
        self.item = item
        self.state = ComponentState.IDLE
        self.reason: str | None = None
        self._guard = guard
        self._tasks = tasks
        self._timing = timing
        self._changed = changed
        self._lock = asyncio.Lock()
        self._retry: asyncio.Task[None] | None = None
        self._final = False
        self._lost = False

    @property
    def label(self) -> str:
        """`channel telegram`."""
        return f"{self.kind} {self.name}"

    async def start(self, *, anew: bool = True) -> None:
        """Make the first attempt; further ones follow by themselves. `anew`: somebody wants it, whatever was given up before."""
        async with self._lock:
            if self.state is ComponentState.RUNNING:
                return
            self._forget_retry()
            if not await self._attempt(anew=anew) and self._may_retry(failures=1):
                self._retry = self._tasks.spawn(f"retry {self.label}", self._keep_trying())

    async def drain(self) -> None:
        """Let it finish what is under way, where it runs and can, within the time it asks for."""
        if self.state is not ComponentState.RUNNING:
            return
        what = f"drain of {self.label}"
        try:
            drains, seconds = self._guard.call(self.plugin_id, what, lambda: _draining(self.item))
            if drains is not None and seconds > 0:
                await self._guard.run(self.plugin_id, what, drains.drain, min(seconds, LONGEST_DRAIN_SECONDS))
        except PluginHung:
            logger.warning("plugin %r: what was under way has not ended in time and is broken off", self.plugin_id)
        except PluginFault as fault:
            logger.warning("%s", fault, exc_info=fault.error)

    async def stop(self, deadline: float) -> PluginFault | None:
        """Stop it, also where it never started well; return the fault, where it raised or hung."""
        self._forget_retry()
        try:
            async with asyncio.timeout(deadline):
                await self._lock.acquire()
        except TimeoutError:
            return PluginFault(self.plugin_id, f"stop of {self.label}", "has to wait for its start", "update the plugin or disable it")
        try:
            self._lost = False
            if self.state in {ComponentState.IDLE, ComponentState.STOPPED}:
                self._become(ComponentState.STOPPED)
                return None
            fault = await self._stop_item(deadline)
            self._become(ComponentState.STOPPED, fault.reason if fault is not None else None)
            return fault
        finally:
            self._lock.release()

    def lose(self, reason: str, *, final: bool) -> None:
        """Say that what ran does not any more, without having been stopped; `final`: nothing but a start from outside brings it back."""
        if self.state is ComponentState.RUNNING or self._lost:
            self._lost = True
            self._become(ComponentState.FAILED if final else ComponentState.WAITING, reason)

    async def regain(self) -> None:
        """Start it again where it was lost."""
        if self._lost:
            await self.start(anew=False)

    async def _attempt(self, *, anew: bool = False) -> bool:
        self._lost = False
        if self.state in {ComponentState.IDLE, ComponentState.STOPPED}:
            # A repeated attempt shows what is wrong until it goes well.
            self._become(ComponentState.STARTING)
        what = f"start of {self.label}"
        try:
            if anew and isinstance(self.item, Revives):
                # A stranger's may have something of that name.
                self._guard.call(self.plugin_id, what, self.item.revive)
            await self._guard.run(self.plugin_id, what, self.item.start, self._timing.call)
        except PluginFault as fault:
            await self._after_failure(fault)
            return False
        except asyncio.CancelledError:
            self._become(ComponentState.FAILED, f"{what} was broken off; the gateway is stopping")
            raise
        self._become(ComponentState.RUNNING)
        return True

    async def _after_failure(self, fault: PluginFault) -> None:
        if not _is_answer(fault):
            # An answer is the plugin's state and is told with it; here is the traceback of what was not meant.
            logger.warning("%s", fault, exc_info=fault.error)
        stopped = await self._stop_item(self._timing.call)
        if stopped is not None:
            logger.warning("%s", stopped)
        if isinstance(fault.error, NotReady):
            self._become(ComponentState.WAITING, f"{self.label} is not ready: {fault.error}")
        elif isinstance(fault.error, ConfigRejected | ChildFailed):
            self._become(ComponentState.FAILED, str(fault.error))
        else:
            self._become(ComponentState.FAILED, fault.reason)
        self._final = isinstance(fault.error, ConfigRejected | GivenUp)
        # What brings the process back brings this back.
        self._lost = isinstance(fault.error, GivenUp)

    def _may_retry(self, failures: int) -> bool:
        return self.state is ComponentState.WAITING or (not self._final and failures <= self._timing.attempts)

    async def _keep_trying(self) -> None:
        delay = self._timing.backoff_first
        failures = 1
        while self._may_retry(failures):
            # Half to the whole of the delay, so that what failed together does not come back together.
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311  # no secret is made of it
            delay = min(delay * 2, self._timing.backoff_ceiling)
            async with self._lock:
                if await self._attempt():
                    return
            failures += self.state is ComponentState.FAILED

    async def _stop_item(self, deadline: float) -> PluginFault | None:
        try:
            await self._guard.run(self.plugin_id, f"stop of {self.label}", self.item.stop, deadline)
        except PluginFault as fault:
            return fault
        return None

    def _forget_retry(self) -> None:
        if self._retry is not None and self._retry is not asyncio.current_task():
            self._retry.cancel()
        self._retry = None

    def _become(self, state: ComponentState, reason: str | None = None) -> None:
        self.state, self.reason = state, reason
        self._changed()


def _draining(item: Startable) -> tuple[Drains | None, float]:
    return (item, float(item.drain_seconds)) if isinstance(item, Drains) else (None, 0.0)


def _is_answer(fault: PluginFault) -> bool:
    return isinstance(fault.error, NotReady | ConfigRejected | ChildFailed)
