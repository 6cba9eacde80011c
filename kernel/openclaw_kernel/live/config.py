"""The running gateway's configuration: what joins the engine with the plugins, the kernel's own settings, the files and the restarts."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from openclaw_config.load import ConfigError, Loaded, load
from openclaw_config.models import Config
from openclaw_config.redaction import REFERENCE
from openclaw_kernel.api.audit import AuditAction, AuditEntry, AuditLog, AuditOrigin
from openclaw_kernel.api.config import Applied, Change, ConfigPlan, ReloadOutcome
from openclaw_kernel.api.errors import GatewayError, InvalidRequest, Unavailable
from openclaw_kernel.files.states import Seen, state_of
from openclaw_kernel.live.leaves import KernelLeaves, remember
from openclaw_kernel.live.parts import parts_of
from openclaw_kernel.protocol.frames import EventFrame, dumps
from openclaw_kernel.reload.engine import Prepared, ReloadEngine, Turn
from openclaw_kernel.reload.plan import KERNEL_UNIT, PluginPart
from openclaw_kernel.tasks import TaskOwner

if TYPE_CHECKING:
    from openclaw_kernel.bus import EventBus
    from openclaw_kernel.gateway import GatewayFacts
    from openclaw_kernel.generations import Generations
    from openclaw_kernel.host import PluginHost
    from openclaw_kernel.host.discovery import Found
    from openclaw_kernel.protocol.connections import OpenConnections
    from openclaw_kernel.reload.watch import ConfigWatch
    from openclaw_kernel.restart import RestartDesk

logger: Final = logging.getLogger("openclaw.config")

BY_FILE: Final = Change(origin=AuditOrigin(actor="owner", surface="file"), reason="the file was saved")
"""Whoever may write the file is the owner, as far as a file can tell."""
BY_SIGNAL: Final = Change(origin=AuditOrigin(actor="owner", surface="signal"), reason="SIGHUP")
RESTART_DELAY_SECONDS: Final = 0.3
"""Several saves that each want a restart share one."""
RETRY_SECONDS: Final = 1.0
_FIRST_PATIENCE: Final = 5.0
_LONGEST_PATIENCE: Final = 600.0
"""Between tries of what a unit refuses: each may take a plugin off the air for a moment."""
_CLOSE_SECONDS: Final = 5.0
_WEBCHAT: Final = "webchat"


class LiveUnits:
    """Implements the engine's `Units` over the plugin host."""

    def __init__(self, host: PluginHost, open_connections: OpenConnections) -> None:
        self._host = host
        self._open = open_connections

    def parts(self, candidate: Config) -> Sequence[PluginPart]:
        """What a plan has to know of each plugin."""
        now = self._host.current()
        return parts_of(now.discovery, now.config, candidate, fixed=self._host.fixed, connections=self._connections)

    async def check(self, config: Config) -> None:
        """Make all that this config wants, and let go of it."""
        fixed = {part.id: ReloadOutcome.PROCESS for part in self.parts(config) if part.fixed and part.ran != part.runs}
        await (await self._host.prepare(config, fixed)).discard()

    async def prepare(self, config: Config, plan: ConfigPlan) -> Prepared:
        """See `PluginHost.prepare`."""
        # What waits for a restart has in this config what it has now: there is nothing to do about it.
        wanted = {unit.unit: unit for unit in plan.units if unit.unit != KERNEL_UNIT and not unit.waits}
        outcomes = {name: unit.outcome for name, unit in wanted.items()}
        return await self._host.prepare(config, outcomes, paths={name: unit.paths for name, unit in wanted.items()})

    def _connections(self, found: Found) -> int:
        if found.kind != "channel":
            return 0
        if found.id == _WEBCHAT:
            return len(self._open)
        return sum(1 for account in self._host.channels.status(found.id) if account.connected)


class LiveConfig:
    """Follows the files, and is the one way to change what is in force.

    `changed` is called when there is something else to say of the gateway's health. `seen` is what the files were like when `loaded` was
    read.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        units: LiveUnits,
        leaves: KernelLeaves,
        generations: Generations,
        restarts: RestartDesk,
        audit: AuditLog,
        facts: GatewayFacts,
        bus: EventBus,
        changed: Callable[[], None],
        seen: Seen | None = None,
    ) -> None:
        self._leaves = leaves
        self._generations = generations
        self._restarts = restarts
        self._audit = audit
        self._facts = facts
        self._bus = bus
        self._changed = changed
        self._tasks = TaskOwner("config", self._task_failed)
        self._watch: ConfigWatch | None = None
        self._watching: asyncio.Task[None] | None = None
        self._seen = seen
        self._serves = False
        self._closing = False
        self._fault: str | None = None
        self._wrong: frozenset[Path] = frozenset()
        """The files of what was not taken: one of them is the one that has to be mended."""
        self._refused: str | None = None
        """The hash of what a unit refused; it is tried again from `_again_at` on, by the clock of the loop."""
        self._patience = _FIRST_PATIENCE
        self._again_at = 0.0
        self._restart_reason: str | None = None
        self._restarting: asyncio.Task[None] | None = None
        current = generations.current
        self.engine = ReloadEngine(
            loaded,
            generation=0 if current is None else current.number,
            units=units,
            leaves=leaves,
            accept=self._accept,
            taken=self._taken,
            restart=self._restart_wanted,
        )
        facts.further_problems.append(self.problems)

    def problems(self) -> list[str]:
        """What is wrong with the files, or waits for a restart, a line each."""
        return [*([] if self._fault is None else [self._fault]), *self.engine.problems()]

    def watch(self) -> None:
        """Follow the files for as long as `gateway.reload.mode` says so; called when the gateway serves."""
        self._serves = True
        if not self._wants_watch and self._watch is not None:
            self._watch.end()
        elif self._wants_watch and (self._watching is None or self._watching.done()):
            self._watching = self._tasks.spawn("watch", self._follow())

    async def reload(self, change: Change) -> Applied:
        """Take the files as they are on disk; raise as `ReloadEngine.take`, and `InvalidRequest` with `issues` where they are wrong."""
        async with self.engine.turn() as turn:
            return await self._take_files(turn, change)

    def reload_soon(self) -> None:
        """Do so because of a signal; during the start the files are read anyway."""
        if self._serves and not self._closing:
            self._tasks.spawn("reload", self._reload_by_signal())

    async def close(self) -> None:
        """Follow nothing more, and let what is under way end."""
        self._closing = True
        if self._watch is not None:
            self._watch.end()
        await self.engine.close()
        await self._tasks.close(_CLOSE_SECONDS)

    async def _follow(self) -> None:
        # Most of the library is imported here, when the gateway serves already.
        watching = await asyncio.to_thread(_import_watch)
        # Whoever switches it off and on again finds it still ending.
        while self._wants_watch:
            self._watch = watching(
                files=lambda: files_of(self.engine.accepted) | self._wrong,
                debounce_ms=lambda: self.engine.running.gateway.reload.debounce_ms,
                edited=self._edited,
                unsettled=self._is_unsettled,
            )
            await self._watch.follow(self._seen)

    async def _follow_again(self) -> None:
        await asyncio.sleep(RETRY_SECONDS)
        await self._follow()

    def _task_failed(self, name: str, error: BaseException) -> None:
        logger.error("task %s failed", name, exc_info=error)
        if name == "config/watch" and self._wants_watch:
            # Whatever it was, as a thread that could not be started: an edit that nobody sees is worse.
            self._watching = self._tasks.spawn("watch", self._follow_again())

    @property
    def _wants_watch(self) -> bool:
        return not self._closing and self.engine.running.gateway.reload.mode != "off"

    def _is_unsettled(self) -> bool:
        return self._fault is not None and (self._refused is None or asyncio.get_running_loop().time() >= self._again_at)

    async def _edited(self, *, at_rest: bool) -> None:
        while not self._closing:
            try:
                async with self.engine.turn() as turn:
                    if turn.accepted.config.gateway.reload.mode != "off":
                        await self._take_files(turn, BY_FILE, at_rest=at_rest)
            except Unavailable as error:
                logger.debug("the edit is not taken yet: %s", error.message)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            except GatewayError as error:
                # It was told, and stays told until it is mended.
                logger.debug("the edit is not taken: %s", error.message)
            return

    async def _reload_by_signal(self) -> None:
        try:
            applied = await self.reload(BY_SIGNAL)
        except GatewayError as error:
            logger.warning("not reloaded: %s", error.message)
        else:
            logger.info("reloaded: %s", ", ".join(applied.plan.changed) or "nothing changed")

    async def _take_files(self, turn: Turn, change: Change, *, at_rest: bool = True) -> Applied:
        self._seen = await asyncio.to_thread(seen_of, turn.accepted)
        try:
            candidate = await asyncio.to_thread(load, turn.accepted.path)
        except ConfigError as error:
            self._wrong, self._refused = frozenset(error.files), None
            if at_rest:
                self._reject(str(error), change, keys=[issue.key for issue in error.issues])
            raise InvalidRequest(str(error), details={"issues": [_wire(issue) for issue in error.issues]}) from error
        remember(candidate)
        try:
            applied = await turn.take(candidate, change)
        except Unavailable:
            raise
        except GatewayError as error:
            # What it was made of may be other files than what runs, and a change of theirs is worth a try at once.
            self._wrong = files_of(candidate)
            self._put_off(candidate.hash)
            self._reject(candidate.placed(error.message), change, keys=())
            raise
        return applied

    def _put_off(self, digest: str) -> None:
        self._patience = min(2 * self._patience, _LONGEST_PATIENCE) if digest == self._refused else _FIRST_PATIENCE
        self._refused = digest
        self._again_at = asyncio.get_running_loop().time() + self._patience

    def _reject(self, words: str, change: Change, *, keys: Sequence[str]) -> None:
        first, *more = words.splitlines()
        fault = f"{first}; not taken, what was before still runs" + (f" (and {len(more)} more)" if more else "")
        if fault == self._fault:
            return
        self._fault = fault
        logger.warning("the edited configuration is not taken, what was before still runs:\n%s", words)
        digest = hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()
        details = {"keys": [key for key in keys if key][:10], "faults": digest}
        entry = AuditEntry(action=AuditAction.CONFIG_REJECTED, origin=change.origin, outcome="refused", subject="config", details=details)
        self._audit.note(entry)
        self._changed()

    def _mend(self) -> None:
        self._wrong, self._refused = frozenset(), None
        if self._fault is not None:
            self._fault = None
            logger.info("the configuration is in order again")
            self._changed()

    async def _accept(self, candidate: Loaded, change: Change, changed: Sequence[str]) -> int:
        return (await self._generations.take(candidate, change, changed)).number

    def _taken(self, accepted: Loaded, running: Config) -> None:
        engine = self.engine
        # It was taken, so it is what the file says, whoever wrote it.
        self._mend()
        if accepted.hash == engine.accepted.hash and running == engine.running:
            return
        self._tell(engine.accepted)
        self._leaves.end_connections(running.gateway, engine.running.gateway)
        if running.gateway.reload.mode != engine.running.gateway.reload.mode:
            self.watch()
        if self._restart_reason is None:
            self._tasks.spawn("good", self._generations.mark_good())
        self._changed()

    def _tell(self, loaded: Loaded) -> None:
        self._facts.adopt(loaded)
        told = {"path": str(loaded.path), "hash": loaded.hash, "ts": time.time_ns() // 1_000_000}
        self._bus.publish(EventFrame("config.changed", dumps(told)))

    # --- restarts -----------------------------------------------------------------------------------------------------

    def _restart_wanted(self, reason: str | None) -> None:
        self._restart_reason = reason
        self._restarts.forget_objection()
        if reason is None:
            if self._restarting is not None:
                self._restarting.cancel()
        elif self._restarting is None or self._restarting.done():
            self._restarting = self._tasks.spawn("restart", self._restart_soon())

    async def _restart_soon(self) -> None:
        await asyncio.sleep(RESTART_DELAY_SECONDS)
        if self._restart_reason is not None:
            # It is tried first whether the next process could start.
            self._restarts.begin(self._restart_reason, 0)


def files_of(loaded: Loaded) -> frozenset[Path]:
    """All that a configuration was read from: its files, and those that hold its secrets."""
    folder = loaded.path.parent
    return frozenset({*loaded.files, *(folder / Path(target).expanduser() for target in _file_references(loaded.document))})


def _file_references(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for value in node.values():
            yield from _file_references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _file_references(value)
    elif isinstance(node, str) and (match := REFERENCE.match(node)) is not None and match[1] == "file":
        yield match[2]


def _import_watch() -> type[ConfigWatch]:
    from openclaw_kernel.reload.watch import ConfigWatch

    return ConfigWatch


def seen_of(loaded: Loaded) -> Seen:
    """What the files of a configuration are like now."""
    return tuple(state_of(path) for path in sorted(files_of(loaded)))


def _wire(issue: Any) -> Mapping[str, Any]:
    return {"path": issue.key, "message": f"{issue.found}; {issue.cure}"}
