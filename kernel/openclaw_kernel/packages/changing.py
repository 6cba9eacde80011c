"""Installing, upgrading and removing the distribution of plugins in a gateway that runs; what fails is taken back, files and all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from openclaw_kernel.api.audit import AuditAction
from openclaw_kernel.api.config import Change, NotApplied, UnitResult
from openclaw_kernel.api.errors import GatewayError, InvalidRequest, Unavailable
from openclaw_kernel.api.plugins import PluginEntry, PluginOutcome, RestartNeeded
from openclaw_kernel.host.code import loaded_of, top_of
from openclaw_kernel.host.discovery import Discovery, Found
from openclaw_kernel.packages.files import settle, state_of
from openclaw_kernel.packages.journal import Unfinished, begin
from openclaw_kernel.packages.pip import Pip, checked, key_of, versions
from openclaw_kernel.packages.undoing import UNREADABLE, take_back

logger: Final = logging.getLogger("openclaw.plugins")


class Desk(Protocol):
    """What brings plugins about."""

    def entries(self) -> Sequence[PluginEntry]: ...
    def removable(self, plugin_id: str) -> Found: ...
    def of_distribution(self, distribution: str) -> list[Found]: ...
    async def why_restart(self, plugins: Sequence[Found]) -> str | None: ...
    def needs_restart(self, distribution: str, reason: str) -> None: ...
    async def take(
        self, discovery: Discovery, *, fresh: Collection[str] = (), unconfigured: Collection[str] = ()
    ) -> Sequence[UnitResult]: ...
    async def discovered(self) -> Discovery: ...
    def record(self, action: AuditAction, change: Change, subject: str, details: Mapping[str, Any]) -> None: ...
    def tell(self, operation: str, requirement: str, step: str, line: str = "") -> None: ...
    def forget(self, gone: Sequence[Found]) -> None:
        """Let go of the modules of plugins that are gone."""
        ...


@dataclass(frozen=True, slots=True)
class _Done:
    action: AuditAction
    operation: str
    requirement: str
    restart: str | None = None


class Changing:
    """One change of what is installed."""

    def __init__(self, desk: Desk, home: Path) -> None:
        self._desk = desk
        self._pip = Pip(home)
        self._home = home

    async def install(self, requirement: str, change: Change, *, index: bool) -> PluginOutcome:
        """See `Plugins.install`."""
        wanted = checked(requirement, index=index)
        before = await asyncio.to_thread(versions)
        begun = await asyncio.to_thread(begin, self._home, "install", wanted)
        try:
            await self._pip.install(wanted, self._say("install", requirement), index=index, report=begun.report)
            came = sorted((await asyncio.to_thread(versions)).keys() - before.keys())
            await asyncio.to_thread(_settle, came)
            if not came:
                raise InvalidRequest(f"{requirement} is installed already; to replace it: openclaw-kernel plugins upgrade")
            discovery = await self._desk.discovered()
            new = [found for found in discovery.plugins if key_of(found.distribution) in came]
            self._refuse_nothing(requirement, new, came, discovery)
            self._desk.tell("install", requirement, "load")
            # One that was here before may have left modules behind.
            left = [found.id for found in new if top_of(found) and loaded_of(top_of(found))]
            results = await self._desk.take(discovery, fresh=left, unconfigured=[found.id for found in new])
        except BaseException:
            if await self._taken_back("install", requirement, begun):
                await self._load_as_before()
            raise
        await self._over(begun)
        return self._done(_Done(AuditAction.PLUGIN_INSTALLED, "install", requirement), new, results, change, came=came)

    async def upgrade(self, plugin_id: str, requirement: str | None, change: Change, *, index: bool) -> PluginOutcome:
        """See `Plugins.upgrade`."""
        found = self._desk.removable(plugin_id)
        distribution = found.distribution
        old = self._desk.of_distribution(distribution)
        wanted = checked(requirement or distribution, index=index)
        reason = await self._desk.why_restart(old)
        begun = await asyncio.to_thread(begin, self._home, "upgrade", wanted, plugin=plugin_id, distribution=distribution)
        try:
            was = await asyncio.to_thread(state_of, distribution)
            await self._pip.install(wanted, self._say("upgrade", wanted), index=index, upgrades=distribution, report=begun.report)
            await asyncio.to_thread(_settle, [distribution])
            if await asyncio.to_thread(state_of, distribution) == was:
                raise InvalidRequest(f"{distribution} {found.version} is the newest that {wanted} gives; nothing was changed")
            discovery = await self._desk.discovered()
            new = [one for one in discovery.plugins if one.distribution == distribution]
            if plugin_id not in {one.id for one in new}:
                raise InvalidRequest(f"{wanted} has no plugin {plugin_id!r}; to install another one: openclaw-kernel plugins install")
            results: Sequence[UnitResult] = ()
            if reason is None:
                self._desk.tell("upgrade", wanted, "load")
                results = await self._desk.take(discovery, fresh=[one.id for one in new])
        except BaseException:
            await self._taken_back("upgrade", wanted, begun)
            raise
        await self._over(begun)
        if reason is not None:
            self._desk.needs_restart(distribution, reason)
        return self._done(_Done(AuditAction.PLUGIN_UPGRADED, "upgrade", wanted, reason), new, results, change, was=found.version)

    async def remove(self, plugin_id: str, change: Change) -> PluginOutcome:
        """See `Plugins.remove`."""
        found = self._desk.removable(plugin_id)
        gone = self._desk.of_distribution(found.distribution)
        reason = await self._desk.why_restart(gone)
        before = await self._desk.discovered()
        ids = {one.id for one in gone}
        left = Discovery(plugins=tuple(one for one in before.plugins if one.id not in ids), problems=before.problems)
        begun = await asyncio.to_thread(begin, self._home, "remove", found.distribution, plugin=plugin_id, distribution=found.distribution)
        try:
            # Its channels have closed their sockets before the first file is touched.
            results = await self._desk.take(left)
        except BaseException as error:
            # All is as it was, and pip has not begun.
            await self._over(begun)
            if isinstance(error, NotApplied):
                raise RestartNeeded(f"plugin {plugin_id!r}: {error.message}", error.message) from error
            raise
        try:
            await self._pip.uninstall([found.distribution], self._say("remove", found.distribution))
        except BaseException:
            await self._taken_back("remove", found.distribution, begun)
            await self._desk.take(before)
            raise
        await self._over(begun)
        if reason is None:
            self._desk.forget(gone)
        return self._done(_Done(AuditAction.PLUGIN_REMOVED, "remove", found.distribution), gone, results, change, was=found.version)

    def _done(self, done: _Done, plugins: Sequence[Found], results: Sequence[UnitResult], change: Change, **details: Any) -> PluginOutcome:
        ids = sorted(found.id for found in plugins)
        version = None if done.action is AuditAction.PLUGIN_REMOVED else plugins[0].version
        subject = f"distribution:{plugins[0].distribution}"
        self._desk.record(done.action, change, subject, {"plugins": ids, "version": version, **details})
        self._desk.tell(done.operation, done.requirement, "done")
        troubled = [entry for entry in self._desk.entries() if entry.id in ids and entry.reason]
        warnings = [f"plugin {entry.id!r} is {entry.state}: {entry.reason}" for entry in troubled]
        return PluginOutcome(plugins=ids, results=results, restart=done.restart, version=version, warnings=warnings)

    def _refuse_nothing(self, requirement: str, new: Sequence[Found], came: Sequence[str], discovery: Discovery) -> None:
        if not new:
            said = "; ".join(line for line in discovery.problems if any(name in key_of(line) for name in came))
            raise InvalidRequest(f"{requirement} brings no plugin{f': {said}' if said else ''}; it was taken off again")
        for found in new:
            if found.state == "failed":
                raise InvalidRequest(f"plugin {found.id!r}: {found.reason}; it was taken off again")

    def _say(self, operation: str, requirement: str) -> Callable[[str], None]:
        return lambda line: self._desk.tell(operation, requirement, "pip", line)

    async def _load_as_before(self) -> None:
        try:
            await self._desk.take(await self._desk.discovered())
        except GatewayError as error:
            logger.error("what runs could not be brought back: %s", error.message)  # noqa: TRY400 - the words say all

    async def _taken_back(self, operation: str, requirement: str, begun: Unfinished) -> bool:
        """Have the files as they were, or say why they are not; then the next start tries it again."""
        self._desk.tell(operation, requirement, "restore")
        try:
            await asyncio.to_thread(take_back, begun)
        except UNREADABLE as error:
            logger.error("could not be taken back (%s): %s", error, begun.told())  # noqa: TRY400 - the words say all
            return False
        finally:
            self._desk.tell(operation, requirement, "failed")
        return True

    async def _over(self, begun: Unfinished) -> None:
        try:
            await asyncio.to_thread(begun.over)
        except OSError as error:
            logger.error("%s: %s; delete it, else the next start takes the change back", begun.folder, error)  # noqa: TRY400


def _settle(distributions: Sequence[str]) -> None:
    """Have on disk what came, before what there was is forgotten."""
    try:
        settle(distributions)
    except OSError as error:
        raise Unavailable(f"what was installed cannot be kept ({error.strerror or error})") from error
