"""Plugins that come, go and change while the gateway runs: one change at a time, each of them whole or taken back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from openclaw_kernel.api.audit import AuditAction, AuditEntry, AuditLog
from openclaw_kernel.api.config import Change, Configuration, NotApplied, ReloadOutcome, UnitResult
from openclaw_kernel.api.errors import Forbidden, GatewayError, InvalidRequest, Unavailable
from openclaw_kernel.api.plugins import PluginEntry, PluginOutcome, RestartNeeded
from openclaw_kernel.api.services import Events
from openclaw_kernel.host import PluginHost
from openclaw_kernel.host.code import FreshCode, forget, top_of, why_restart
from openclaw_kernel.host.discovery import Discovery, Found, discover
from openclaw_kernel.host.explain import suggest
from openclaw_kernel.host.inforce import InForce
from openclaw_kernel.host.staging import Wanted
from openclaw_kernel.tasks import TaskOwner

logger: Final = logging.getLogger("openclaw.plugins")

MOST_WAITING: Final = 8
_CLOSE_SECONDS: Final = 5.0
_RESTART: Final = "run openclaw-kernel restart"

ValueT = TypeVar("ValueT")


class PluginDesk:
    """Implements the service `Plugins`. `bind` it to the host once there is one."""

    def __init__(self, *, home: Path, audit: AuditLog, events: Events) -> None:
        self._home = home
        self._audit = audit
        self._events = events
        self._host: PluginHost | None = None
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._tasks = TaskOwner("plugin desk", _failed)
        self._due: dict[str, str] = {}
        """Why a restart is needed, by distribution."""

    def bind(self, host: PluginHost) -> None:
        """Work on the plugins of this host."""
        self._host = host

    async def close(self) -> None:
        """Let what is under way be taken back."""
        await self._tasks.close(_CLOSE_SECONDS)

    def entries(self) -> Sequence[PluginEntry]:
        """See `Plugins`."""
        now = self._running.current()
        statuses = [(found, now.standings[found.id].status()) for found in now.discovery.plugins]
        return [
            PluginEntry(
                id=status.id,
                kind=status.kind,
                distribution=status.distribution,
                version=status.version,
                bundled=status.bundled,
                state=status.state.value,
                reason=status.reason,
                summary=found.manifest.summary if found.manifest is not None else "",
                restart=self._due.get(status.distribution),
            )
            for found, status in statuses
        ]

    async def set_enabled(self, plugin_id: str, change: Change, *, enabled: bool) -> PluginOutcome:
        """See `Plugins`."""
        _refuse_agents(change)
        self._found(plugin_id)
        try:
            configuration = self._running.registry.service(Configuration)
        except LookupError as error:
            raise Unavailable(f"plugins.entries.{plugin_id}.enabled: the config cannot be written here; edit openclaw.yaml") from error
        patch = {"plugins": {"entries": {plugin_id: {"enabled": enabled}}}}
        applied = await configuration.write(lambda text: _patched(text, patch), change, base_hash=None)
        waits = any(unit.outcome is ReloadOutcome.PROCESS for unit in applied.plan.units)
        reason = next((unit.reason for unit in applied.plan.units if unit.outcome is ReloadOutcome.PROCESS), None)
        return PluginOutcome(plugins=(plugin_id,), results=tuple(applied.results), restart=reason if waits else None)

    async def reload(self, plugin_id: str, change: Change) -> PluginOutcome:
        """See `Plugins`."""
        return await self._whole(f"reload {plugin_id}", change, lambda: self._reload(plugin_id, change))

    async def refresh(self, change: Change) -> PluginOutcome:
        """See `Plugins`."""
        return await self._whole("refresh", change, lambda: self._refresh(change))

    async def install(self, requirement: str, change: Change, *, index: bool) -> PluginOutcome:
        """See `Plugins`."""
        from openclaw_kernel.packages.changing import Changing

        return await self._whole("install", change, lambda: Changing(self, self._home).install(requirement, change, index=index))

    async def upgrade(self, plugin_id: str, requirement: str | None, change: Change, *, index: bool) -> PluginOutcome:
        """See `Plugins`."""
        from openclaw_kernel.packages.changing import Changing

        return await self._whole(
            f"upgrade {plugin_id}", change, lambda: Changing(self, self._home).upgrade(plugin_id, requirement, change, index=index)
        )

    async def remove(self, plugin_id: str, change: Change) -> PluginOutcome:
        """See `Plugins`."""
        from openclaw_kernel.packages.changing import Changing

        return await self._whole(f"remove {plugin_id}", change, lambda: Changing(self, self._home).remove(plugin_id, change))

    # What the changes are made of.

    @property
    def _running(self) -> PluginHost:
        if self._host is None:
            raise Unavailable("the plugins are not loaded yet; retry shortly", retry_after_ms=1000)
        return self._host

    def _found(self, plugin_id: str) -> Found:
        plugins = self._running.current().discovery.plugins
        found = next((one for one in plugins if one.id == plugin_id), None)
        if found is None:
            raise InvalidRequest(f"there is no plugin {plugin_id[:64]!r}; {suggest(plugin_id, [one.id for one in plugins])}")
        return found

    def removable(self, plugin_id: str) -> Found:
        """Return a plugin that came by pip; raise `InvalidRequest` for an unknown, a bundled one and a program."""
        found = self._found(plugin_id)
        if found.bundled:
            raise InvalidRequest(f"plugin {plugin_id!r} is part of openclaw-kernel; disable it, or upgrade openclaw-kernel itself")
        if found.program is not None:
            raise InvalidRequest(f"plugin {plugin_id!r} is a program in the state folder; change its folder, then refresh")
        return found

    def of_distribution(self, distribution: str) -> list[Found]:
        """The plugins of one distribution."""
        return [found for found in self._running.current().discovery.plugins if found.distribution == distribution]

    async def why_restart(self, plugins: Sequence[Found]) -> str | None:
        """Say what keeps the code of these plugins from being replaced, None where nothing does."""
        now = self._running.current()
        for found in plugins:
            if found.id not in now.hosted:
                continue
            if (reason := now.fixed(found.id)) is not None:
                return reason
            if not now.assignment.shares[found.id].isolated and (reason := await asyncio.to_thread(why_restart, found)) is not None:
                return reason
        return None

    def needs_restart(self, distribution: str, reason: str) -> None:
        """Show until the restart that files and running code differ."""
        self._due[distribution] = reason

    async def take(self, discovery: Discovery, *, fresh: Collection[str] = (), unconfigured: Collection[str] = ()) -> Sequence[UnitResult]:
        """Bring the plugins about as they are found there; the code of the `fresh` ones is imported anew. Raise `NotApplied`."""
        packages: dict[str, FreshCode] = {}

        def want(now: InForce) -> Wanted:
            isolated = {plugin_id for plugin_id in fresh if plugin_id in now.hosted and now.assignment.shares[plugin_id].isolated}
            anew = [found for found in discovery.plugins if found.id in fresh and found.id not in isolated and top_of(found)]
            packages.update({top_of(found): FreshCode(top_of(found)) for found in anew})
            return Wanted(
                config=now.config,
                discovery=discovery,
                outcomes=dict.fromkeys(isolated, ReloadOutcome.UNIT),
                code={found.id: packages[top_of(found)].load for found in anew},
                unconfigured=unconfigured,
            )

        def dropped() -> None:
            for package in packages.values():
                package.drop()

        results = await (await self._running.prepare_all(want, dropped=dropped)).commit()
        for package in packages.values():
            package.keep()
        return results

    async def discovered(self) -> Discovery:
        """Look what is installed."""
        return await asyncio.to_thread(discover, self._home)

    def record(self, action: AuditAction, change: Change, subject: str, details: Mapping[str, Any]) -> None:
        """Write down what was done."""
        self._audit.note(AuditEntry(action=action, origin=change.origin, subject=subject, reason=change.reason, details=dict(details)))

    def tell(self, operation: str, requirement: str, step: str, line: str = "") -> None:
        """Tell who listens how far it is."""
        payload = {"operation": operation, "requirement": requirement, "step": step, "line": line}
        self._events.broadcast("plugins.install.progress", payload, droppable=True)

    async def _reload(self, plugin_id: str, change: Change) -> PluginOutcome:
        found = self._found(plugin_id)
        now = self._running.current()
        share = now.assignment.shares[plugin_id]
        if share.disabled is not None:
            raise InvalidRequest(f"plugin {plugin_id!r} is disabled: {share.disabled}; enable it first")
        together = [one for one in now.discovery.plugins if one.program is None and top_of(one) == top_of(found)] or [found]
        running = [one for one in together if one.id in now.hosted]
        if (reason := await self.why_restart(running or [found])) is not None:
            raise RestartNeeded(f"plugin {plugin_id!r}: restart needed: {reason}; {_RESTART}", reason)
        fresh = {one.id for one in running} | {plugin_id}
        present = {one.id: one for one in (await self.discovered()).plugins}
        plugins = tuple(present.get(one.id, one) if one.id in fresh else one for one in now.discovery.plugins)
        results = await self.take(replace(now.discovery, plugins=plugins), fresh=fresh)
        version = self._found(plugin_id).version
        self.record(AuditAction.PLUGIN_RELOADED, change, f"plugin:{plugin_id}", {"version": version, "before": found.version})
        return PluginOutcome(plugins=tuple(sorted(fresh)), results=results, version=version)

    async def _refresh(self, change: Change) -> PluginOutcome:
        before = {found.id: found for found in self._running.current().discovery.plugins}
        discovery = await self.discovered()
        others = {found.id for found in discovery.plugins if found.id in before and _differs(before[found.id], found)}
        moved = [before[plugin_id] for plugin_id in sorted(others)]
        if (reason := await self.why_restart(moved)) is not None:
            raise RestartNeeded(f"restart needed: {reason}; {_RESTART}", reason)
        came = {found.id for found in discovery.plugins} - before.keys()
        results = await self.take(discovery, fresh=others, unconfigured=came)
        gone = before.keys() - {found.id for found in discovery.plugins}
        self.forget([before[plugin_id] for plugin_id in gone])
        changed = sorted({*came, *gone, *others})
        if changed:
            self.record(
                AuditAction.PLUGINS_CHANGED, change, "plugins", {"came": sorted(came), "gone": sorted(gone), "changed": sorted(others)}
            )
        return PluginOutcome(plugins=changed, results=results)

    def forget(self, gone: Sequence[Found]) -> None:
        """Let go of the modules of plugins that are not installed any more."""
        left = {top_of(found) for found in self._running.current().discovery.plugins}
        for package in {top_of(found) for found in gone} - left - {""}:
            forget(package)

    async def _whole(self, what: str, change: Change, work: Callable[[], Coroutine[Any, Any, ValueT]]) -> ValueT:
        _refuse_agents(change)
        if self._waiting >= MOST_WAITING:
            raise Unavailable(f"{MOST_WAITING} changes of plugins wait already; retry shortly", retry_after_ms=1000)

        async def in_turn() -> ValueT | GatewayError:
            try:
                async with self._lock:
                    return await work()
            except GatewayError as error:
                # Its caller may be gone; then nobody would ask for it.
                return error

        # A client that is gone meanwhile cancels its call; half an installation helps nobody.
        task: asyncio.Task[ValueT | GatewayError] = self._tasks.spawn(what, in_turn())
        # Counted before it begins: who asks in the same moment must not slip past the bound.
        self._waiting += 1
        task.add_done_callback(self._left)
        result = await asyncio.shield(task)
        if isinstance(result, GatewayError):
            if not isinstance(result, RestartNeeded | NotApplied):
                logger.info("%s: %s", what, result.message)
            raise result
        return result

    def _left(self, _task: asyncio.Task[Any]) -> None:
        self._waiting -= 1


def _refuse_agents(change: Change) -> None:
    if change.by_agent:
        raise Forbidden("plugins are code of the gateway's owner; no agent may change them", details={"code": "PLUGINS_NOT_FOR_AGENTS"})


def _patched(text: str, patch: Mapping[str, Any]) -> str:
    from openclaw_config.patching import CannotEdit, CannotMerge, patched

    try:
        return patched("openclaw.yaml", text, patch)
    except (CannotEdit, CannotMerge) as error:
        raise InvalidRequest(str(error)) from error


def _differs(before: Found, after: Found) -> bool:
    return (before.version, before.distribution, before.entry_point, before.program) != (
        after.version,
        after.distribution,
        after.entry_point,
        after.program,
    )


def _failed(name: str, error: BaseException) -> None:
    logger.error("%s failed", name, exc_info=error)
