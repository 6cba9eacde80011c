"""What a config needs, made beside what runs: everything that can fail without effect is done here, and nothing of it is visible."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from openclaw_config.models import Config
from openclaw_kernel.api.config import NotApplied, ReloadOutcome, UnitResult
from openclaw_kernel.api.errors import GatewayError
from openclaw_kernel.api.pairing import DevicePairing
from openclaw_kernel.api.plugin import ConfigChange
from openclaw_kernel.api.services import PluginState
from openclaw_kernel.api.store import Migration, Store
from openclaw_kernel.host.context import Snapshot
from openclaw_kernel.host.discovery import Discovery, Found
from openclaw_kernel.host.guard import Guard, PluginFault
from openclaw_kernel.host.inforce import InForce, Surface, Swap, order_of
from openclaw_kernel.host.isolation import Isolation
from openclaw_kernel.host.lifecycle import Hosted
from openclaw_kernel.host.loader import load_class
from openclaw_kernel.host.loading import Beside, Loader, give_up, own_words
from openclaw_kernel.host.manager import PluginManager
from openclaw_kernel.host.order import start_order
from openclaw_kernel.host.registry import Registry, Unclassified
from openclaw_kernel.host.sections import Share, assign
from openclaw_kernel.host.state import Standing

FROZEN_SERVICES: Final = (DevicePairing,)
"""What the kernel looks up once, when it begins to listen."""


class MigratingStore(Store, Protocol):
    """A store that makes the tables of a plugin that comes later."""

    async def migrate(self, owner: str, steps: Sequence[Migration]) -> None:
        """Apply what is pending of one owner: all of it, or nothing; raise `GatewayError`."""
        ...


def refused(unit: str, outcome: ReloadOutcome, reason: str) -> NotApplied:
    """The error for a unit that cannot be brought about."""
    return NotApplied(f"{unit}: {reason}", [UnitResult(unit=unit, outcome=outcome, error=reason)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked for. `outcomes` and `paths` are the plan's, by plugin id; whoever is not named needs nothing.

    `code` imports those plugins whose code is new; they are replaced, whatever the plan says.
    """

    config: Config
    discovery: Discovery
    outcomes: Mapping[str, ReloadOutcome] = field(default_factory=dict)
    paths: Mapping[str, Sequence[str]] = field(default_factory=dict)
    code: Mapping[str, Callable[[Found], type[Any]]] = field(default_factory=dict)
    unconfigured: Collection[str] = ()
    """Plugins that may still lack their settings: one whose section is wrong is failed then, as it would be at a start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """What is to be in force. `swap` makes the outside follow it, None where there is nothing to follow."""

    after: InForce
    swap: Swap | None
    snapshots: Mapping[str, Snapshot]
    """Of the plugins that stay and get to see the change."""
    hot: Mapping[str, ConfigChange]
    going: Sequence[Hosted]
    """The instances that end, in the order in which they started."""
    coming: Sequence[Hosted]
    """The instances that begin, in the order in which they start."""
    results: Mapping[str, UnitResult]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sorted:
    """Whose instance goes, comes, stays with a new snapshot, and stays as it is."""

    going: Sequence[str]
    coming: Sequence[Found]
    staying: Sequence[Found]


class Stager:
    """Stages configs on top of what is in force. `blank` makes the standing of a plugin whose changes nobody hears yet."""

    def __init__(
        self,
        *,
        guard: Guard,
        home: Path,
        store: MigratingStore,
        now_ms: Callable[[], int],
        live: Registry,
        report: Callable[[PluginFault], None],
        blank: Callable[[Found], Standing],
        isolation: Isolation | None,
    ) -> None:
        self._guard = guard
        self._home = home
        self._store = store
        self._now_ms = now_ms
        self._live = live
        self._report = report
        self._blank = blank
        self._isolation = isolation
        self.frozen: dict[str, str] = {}
        """Why plugins that were tried can begin with a start of the gateway only, by id."""

    async def stage(self, now: InForce, wanted: Wanted, surface: Surface, adopt: Callable[[Hosted, Registry], None]) -> Staged:
        """Import, validate, construct and register what comes; raise `NotApplied` with the unit named.

        `adopt` gives a loaded plugin its components.
        """
        assignment = assign(wanted.config, wanted.discovery)
        sorted_ = _sort(now, wanted, assignment.shares)
        gone = {*sorted_.going, *(found.id for found in sorted_.coming)}
        registry = now.registry.without(gone)
        manager = PluginManager(self._guard, self._report)
        loader = Loader(
            registry=registry,
            manager=manager,
            guard=self._guard,
            config=wanted.config,
            home=self._home,
            store=self._store,
            now_ms=self._now_ms,
            isolation=self._isolation,
            beside=Beside(services=self._live, importing=lambda found: wanted.code.get(found.id, load_class)(found)),
        )
        loader.models.update(now.models)
        loaded: dict[str, Hosted] = {}
        try:
            snapshots = await self._snapshots(now, sorted_.staying, assignment.shares, loader, wanted)
            loaded, failed = await self._load(loader, sorted_.coming, assignment.shares, wanted.unconfigured)
            self._refuse_frozen(now, registry, loaded)
            order = order_of(wanted.discovery, {*now.hosted, *loaded})
            registry.arrange(order)
            hosted = _in_start_order({**{name: one for name, one in now.hosted.items() if name not in gone}, **loaded})
            for one in loaded.values():
                adopt(one, registry)
            swap = _built(surface, registry) if gone else None
            await self._migrate(registry, loaded)
        except BaseException:
            await give_up(loaded.values())
            raise
        after = InForce(
            config=wanted.config,
            discovery=wanted.discovery,
            assignment=assignment,
            standings={**self._standings(now, wanted, assignment.shares, loaded, sorted_), **failed},
            hosted=hosted,
            models=loader.models,
            registry=registry,
            manager=now.manager.joined(manager, without=gone, order=order),
        )
        return Staged(
            after=after,
            swap=swap,
            snapshots=snapshots,
            hot={
                found.id: ConfigChange(paths=tuple(wanted.paths.get(found.id, ())))
                for found in sorted_.staying
                if wanted.outcomes.get(found.id) is ReloadOutcome.HOT
            },
            going=[one for name, one in now.hosted.items() if name in sorted_.going],
            coming=[one for name, one in hosted.items() if name in loaded],
            results=_results(wanted, sorted_, after),
        )

    def _refuse_frozen(self, now: InForce, registry: Registry, loaded: Mapping[str, Hosted]) -> None:
        for kind in FROZEN_SERVICES:
            owned = registry.services.get(kind)
            if owned is not None and owned.plugin_id in loaded and kind not in now.registry.services:
                reason = f"it provides {kind.__name__}, asked for at a start only"
                self.frozen[owned.plugin_id] = reason
                raise refused(owned.plugin_id, ReloadOutcome.PROCESS, f"{reason}; restart the gateway")

    async def _snapshots(
        self, now: InForce, staying: Sequence[Found], shares: Mapping[str, Share], loader: Loader, wanted: Wanted
    ) -> dict[str, Snapshot]:
        snapshots: dict[str, Snapshot] = {}
        for found in staying:
            share, before = shares[found.id], now.assignment.shares.get(found.id)
            snapshot = now.hosted[found.id].context.snapshot
            if before is not None and (share.section, share.instances) == (before.section, before.instances):
                snapshots[found.id] = Snapshot(config=wanted.config, section=snapshot.section, instances=snapshot.instances)
                continue
            try:
                snapshots[found.id], faults = await loader.validate(found, share, now.models.get(found.id))
            except PluginFault as fault:
                raise refused(found.id, wanted.outcomes.get(found.id, ReloadOutcome.NONE), own_words(fault)) from fault
            if faults:
                raise refused(found.id, wanted.outcomes.get(found.id, ReloadOutcome.NONE), "; ".join(faults))
        return snapshots

    async def _load(
        self, loader: Loader, coming: Sequence[Found], shares: Mapping[str, Share], unconfigured: Collection[str]
    ) -> tuple[dict[str, Hosted], dict[str, Standing]]:
        wanted = [(self._blank(found), shares[found.id]) for found in coming]
        try:
            loaded = await loader.load(wanted)
        except Unclassified as error:
            raise NotApplied(str(error), ()) from error
        failed: dict[str, Standing] = {}
        for standing, _ in wanted:
            plugin_id = standing.found.id
            if plugin_id not in loaded and plugin_id in unconfigured and plugin_id in loader.unsettled:
                failed[plugin_id] = standing
            # An instance of a provider that is wrong degrades it at a start; a change that makes one wrong is refused.
            elif plugin_id not in loaded or standing.reason is not None:
                await give_up(loaded.values())
                raise refused(plugin_id, ReloadOutcome.UNIT, standing.reason or "it cannot be loaded")
        return loaded, failed

    async def _migrate(self, registry: Registry, loaded: Mapping[str, Hosted]) -> None:
        for plugin_id, steps in registry.migrations().items():
            if plugin_id not in loaded or not steps:
                continue
            try:
                await self._store.migrate(plugin_id, steps)
            except GatewayError as error:
                raise refused(plugin_id, ReloadOutcome.UNIT, error.message) from error

    def _standings(
        self, now: InForce, wanted: Wanted, shares: Mapping[str, Share], loaded: Mapping[str, Hosted], sorted_: _Sorted
    ) -> dict[str, Standing]:
        standings: dict[str, Standing] = {}
        for found in wanted.discovery.plugins:
            before = now.standings.get(found.id)
            if found.id in loaded:
                standings[found.id] = loaded[found.id].standing
            elif before is not None and found.id in now.hosted and found.id not in sorted_.going:
                standings[found.id] = before
            else:
                standings[found.id] = self._idle(found, shares[found.id].disabled, before)
        return standings

    def _idle(self, found: Found, disabled: str | None, before: Standing | None) -> Standing:
        fresh = self._blank(found)
        if fresh.state is PluginState.DISCOVERED and disabled is not None:
            fresh.become(PluginState.DISABLED, disabled)
        elif fresh.state is PluginState.DISCOVERED and before is not None:
            # It failed and nothing that concerns it has changed.
            return before
        unchanged = before is not None and (before.state, before.reason) == (fresh.state, fresh.reason) and before.found == found
        return before if unchanged and before is not None else fresh


def _sort(now: InForce, wanted: Wanted, shares: Mapping[str, Share]) -> _Sorted:
    present = {found.id for found in wanted.discovery.plugins}
    going = [plugin_id for plugin_id in now.hosted if plugin_id not in present]
    coming: list[Found] = []
    staying: list[Found] = []
    for found in wanted.discovery.plugins:
        outcome = wanted.outcomes.get(found.id, ReloadOutcome.NONE)
        runs = found.state == "discovered" and shares[found.id].disabled is None
        ran = found.id in now.hosted
        if outcome is ReloadOutcome.PROCESS and found.id not in wanted.code:
            # Until the restart it is what it was, as a whole.
            continue
        if not ran:
            if runs and _may_have_changed(now, found, shares[found.id], outcome, is_new=found.id in wanted.code):
                coming.append(found)
        elif not runs:
            going.append(found.id)
        elif outcome is ReloadOutcome.UNIT or found.id in wanted.code:
            going.append(found.id)
            coming.append(found)
        else:
            staying.append(found)
    for plugin_id in going:
        if (reason := now.fixed(plugin_id)) is not None:
            raise refused(plugin_id, ReloadOutcome.PROCESS, f"{reason}; restart the gateway")
    return _Sorted(going=going, coming=coming, staying=staying)


def _may_have_changed(now: InForce, found: Found, share: Share, outcome: ReloadOutcome, *, is_new: bool) -> bool:
    """Tell whether a plugin that does not run, but should, is worth a try: one that failed is left alone until something changes."""
    before, standing = now.assignment.shares.get(found.id), now.standings.get(found.id)
    if is_new or outcome is ReloadOutcome.UNIT or before is None or standing is None or standing.state is not PluginState.FAILED:
        return True
    return (share.section, share.instances) != (before.section, before.instances)


def _in_start_order(hosted: Mapping[str, Hosted]) -> dict[str, Hosted]:
    ordered, circular = start_order([one.standing.found for one in hosted.values()])
    for plugin_id, reason in circular.items():
        raise refused(plugin_id, ReloadOutcome.UNIT, reason)
    return {found.id: hosted[found.id] for found in ordered}


def _built(surface: Surface, registry: Registry) -> Swap:
    try:
        return surface(registry)
    except ValueError as error:
        raise NotApplied(str(error), ()) from error


def _results(wanted: Wanted, sorted_: _Sorted, after: InForce) -> dict[str, UnitResult]:
    results: dict[str, UnitResult] = {}
    for plugin_id, outcome in wanted.outcomes.items():
        error = None
        standing = after.standings.get(plugin_id)
        if outcome is ReloadOutcome.UNIT and standing is not None and standing.state is PluginState.UNAVAILABLE:
            error = f"it does not run: {standing.reason}"
        results[plugin_id] = UnitResult(unit=plugin_id, outcome=outcome, error=error, waits=outcome is ReloadOutcome.PROCESS)
    for plugin_id in (*sorted_.going, *(found.id for found in sorted_.coming)):
        results.setdefault(plugin_id, UnitResult(unit=plugin_id, outcome=ReloadOutcome.UNIT))
    return results


async def settled(hosted: Sequence[Hosted], seconds: float) -> None:
    """Wait until each has had its first attempt to start; raise `NotApplied` where one has not in time."""
    for one in hosted:
        try:
            async with asyncio.timeout(seconds):
                await one.attempted.wait()
        except TimeoutError as error:
            raise refused(one.id, ReloadOutcome.UNIT, "it is still starting; try again when it has") from error
