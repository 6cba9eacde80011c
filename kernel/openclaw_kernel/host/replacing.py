"""Bring a staged config about, and take all of it back when one step of it fails."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol

from openclaw_kernel.api.config import ReloadOutcome, UnitResult
from openclaw_kernel.api.plugin import ConfigChange, Reloads
from openclaw_kernel.host.component import Component, ComponentState
from openclaw_kernel.host.context import Snapshot
from openclaw_kernel.host.guard import Guard, PluginFault
from openclaw_kernel.host.inforce import InForce, Swap
from openclaw_kernel.host.lifecycle import LEAST_SECONDS, Hosted, bring_up
from openclaw_kernel.host.loading import give_up, own_words
from openclaw_kernel.host.staging import Staged, refused, settled
from openclaw_kernel.host.timing import Timing
from openclaw_kernel.tasks import TaskOwner

logger: Final = logging.getLogger(__name__)

CLOSE_SECONDS: Final = 0.9
"""A channel that goes has closed its socket within 1 s: what it sends may take a half of this, its stop the rest."""


class Place(Protocol):
    """What the new takes the place in: the host."""

    @property
    def guard(self) -> Guard: ...
    @property
    def timing(self) -> Timing: ...
    @property
    def tasks(self) -> TaskOwner: ...
    def current(self) -> InForce:
        """Return what is in force now, as something that can be put back."""
        ...

    def put_in_force(self, inforce: InForce) -> None:
        """Go by this from now on, in one step that cannot fail."""
        ...

    def retire(self, hosted: Hosted) -> None:
        """Let an instance that is not in force any more end once nothing of it is under way."""
        ...


class Prepared:
    """A config that can be brought about: `commit` it, or `discard` it. Either once, and nothing of it is visible before."""

    def __init__(
        self,
        place: Place,
        staged: Staged,
        *,
        back: Callable[[InForce], Swap],
        dropped: Callable[[], None],
        over: Callable[[], None],
    ) -> None:
        self._place = place
        self._staged = staged
        self._back = back
        self._dropped = dropped
        self._over = over
        self._before: InForce | None = None
        self._undo_swap: Swap = lambda: None
        self._snapshots: dict[Hosted, Snapshot] = {}
        self._told: list[Hosted] = []
        self._stopped: list[Component] = []
        self._results = dict(staged.results)
        self._done = False

    @property
    def results(self) -> Sequence[UnitResult]:
        """What was done to each unit that was to change. `error` of one that waits and is tried again says why; it is no failure."""
        return tuple(self._results.values())

    async def commit(self) -> Sequence[UnitResult]:
        """Bring it about; return when every unit has its new snapshot or instance.

        Raises:
            NotApplied: a unit refused or failed; everything is as it was. Also after any other exception and a cancellation.
        """
        self._take_turn()
        try:
            await self._bring_about()
        finally:
            self._over()
        return self.results

    async def _bring_about(self) -> None:
        try:
            await settled(self._staged.going, self._place.timing.call)
            await self._show_snapshots()
            self._swap()
            await self._stop_what_goes()
            await self._start_what_comes()
        except BaseException:
            await self._uninterrupted(self._take_back())
            raise
        for hosted in self._staged.coming:
            hosted.calls.open()
        for hosted in self._staged.going:
            self._place.retire(hosted)

    async def discard(self) -> None:
        """Let go of what was made; nothing of it was ever visible."""
        self._take_turn()
        try:
            await give_up(self._staged.coming)
            self._dropped()
        finally:
            self._over()

    def _take_turn(self) -> None:
        if self._done:
            raise RuntimeError("this was committed or discarded already; prepare it anew")
        self._done = True

    async def _show_snapshots(self) -> None:
        hosted = self._place.current().hosted
        for plugin_id, snapshot in self._staged.snapshots.items():
            one = hosted[plugin_id]
            self._snapshots[one] = one.context.snapshot
            one.context.snapshot = snapshot
        for plugin_id, change in self._staged.hot.items():
            one = hosted[plugin_id]
            self._told.append(one)
            fault = await self._tell(one, change)
            if fault is not None:
                raise refused(plugin_id, ReloadOutcome.HOT, own_words(fault)) from fault
            # It goes by its settings again.
            one.standing.fault("reload", None)

    async def _tell(self, hosted: Hosted, change: ConfigChange) -> PluginFault | None:
        for what, item in _listeners(hosted):
            try:
                await self._place.guard.run(hosted.id, f"reload of {what}", lambda item=item: item.reload(change), self._place.timing.call)  # type: ignore[misc]
            except PluginFault as fault:
                return fault
        return None

    def _swap(self) -> None:
        self._before = self._place.current()
        if self._staged.swap is None:
            self._place.put_in_force(self._staged.after)
            return
        self._undo_swap = self._back(self._before)
        self._place.put_in_force(self._staged.after)
        self._staged.swap()

    async def _stop_what_goes(self) -> None:
        """Channels first, all at once; the rest of an instance only where nothing of it is under way: it ends when it is retired."""
        channels = [(one, component) for one in self._staged.going for component in one.components if component.kind == "channel"]
        async with asyncio.TaskGroup() as group:
            for one, component in channels:
                group.create_task(self._close_channel(one, component), name=f"{one.id}/stop {component.label}")
        for one in reversed(self._staged.going):
            if one.calls.count:
                continue
            for component in (*reversed(one.units), *(each for each in one.others if each.kind != "channel")):
                await self._stop(one, component, self._place.timing.call)

    async def _close_channel(self, hosted: Hosted, component: Component) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + CLOSE_SECONDS
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS / 2):
                await hosted.calls.idle()
        # The loop may have been held up meanwhile; one that gets no time at all is cancelled before its first step.
        await self._stop(hosted, component, max(LEAST_SECONDS, ends - loop.time()))

    async def _stop(self, hosted: Hosted, component: Component, seconds: float) -> None:
        if component.state not in {ComponentState.IDLE, ComponentState.STOPPED}:
            self._stopped.append(component)
        fault = await component.stop(seconds)
        if fault is not None:
            logger.error("%s", fault)
            self._note(hosted.id, fault.reason)

    async def _start_what_comes(self) -> None:
        for hosted in self._staged.coming:
            await bring_up(hosted, go_on=partial(self._judge_start, hosted))
            for component in hosted.components:
                self._judge_start(hosted, component)

    def _judge_start(self, hosted: Hosted, component: Component) -> None:
        if component.state is ComponentState.FAILED:
            raise refused(hosted.id, ReloadOutcome.UNIT, component.reason or f"{component.label} failed")
        if component.state is ComponentState.WAITING:
            self._note(hosted.id, f"{component.reason}; it is tried again")

    def _note(self, plugin_id: str, error: str) -> None:
        result = self._results.get(plugin_id, UnitResult(unit=plugin_id, outcome=ReloadOutcome.UNIT))
        self._results[plugin_id] = replace(result, error=error)

    async def _uninterrupted(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._place.tasks.spawn("take back", work)
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                if task.cancelled():
                    return
        task.result()

    async def _take_back(self) -> None:
        """Put everything back, the last first; what fails on the way is told and holds up nothing."""
        for hosted in reversed(self._staged.coming):
            for component in (*hosted.others, *reversed(hosted.units)):
                fault = await component.stop(self._place.timing.call)
                if fault is not None:
                    logger.error("%s", fault)
        self._put_back()
        # Who waited for a new instance finds the old one, and waits for that.
        await give_up(self._staged.coming)
        self._dropped()
        for hosted in reversed(self._told):
            fault = await self._tell(hosted, self._staged.hot[hosted.id])
            if fault is not None:
                hosted.standing.fault("reload", f"{fault.reason}; restart the gateway")
        await self._start_again()

    def _put_back(self) -> None:
        if self._before is not None:
            for hosted in self._staged.going:
                hosted.calls.hold()
            self._place.put_in_force(self._before)
            self._undo_swap()
        for hosted, snapshot in self._snapshots.items():
            hosted.context.snapshot = snapshot

    async def _start_again(self) -> None:
        for component in reversed(self._stopped):
            if component.state is not ComponentState.STOPPED:
                # Its stop was broken off.
                await component.stop(self._place.timing.call)
            await component.start()
        for hosted in self._staged.going:
            hosted.calls.open()


def _listeners(hosted: Hosted) -> Iterator[tuple[str, Reloads]]:
    for what, item in [("the plugin", hosted.plugin), *((each.label, each.item) for each in hosted.components)]:
        if isinstance(item, Reloads):
            yield what, item
