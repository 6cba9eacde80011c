"""Taking a configuration live: one at a time, diff, plan, apply, or everything as it was."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, Protocol

from openclaw_config.load import Loaded
from openclaw_config.models import Config
from openclaw_kernel.api.config import Applied, Change, ConfigPlan, NotApplied, ReloadOutcome, UnitPlan, UnitResult
from openclaw_kernel.api.errors import GatewayError, Unavailable
from openclaw_kernel.reload.apply import Failed, Step, all_or_nothing
from openclaw_kernel.reload.diff import changed_paths, hold, named
from openclaw_kernel.reload.plan import Decided, PluginPart, decide
from openclaw_kernel.tasks import TaskOwner

logger = logging.getLogger("openclaw.reload")

MOST_WAITING: Final = 16
"""So many changes wait for their turn; a further one is refused."""
_RETRY_MS: Final = 1_000
_CLOSE_SECONDS: Final = 5.0


class Prepared(Protocol):
    """What of the plugins is ready beside what runs, and not shown yet."""

    async def commit(self) -> Sequence[UnitResult]:
        """Put it in the place of what runs; raise, with everything as it was, where one of them fails."""
        ...


class Units(Protocol):
    """The plugins that run."""

    def parts(self, candidate: Config) -> Sequence[PluginPart]:
        """What a plan has to know of each: as it is now, and as the candidate would have it."""
        ...

    async def check(self, config: Config) -> None:
        """Raise `NotApplied` where plugins cannot run with this config, without touching any."""
        ...

    async def prepare(self, config: Config, plan: ConfigPlan) -> Prepared:
        """Import, validate and construct what the plan wants anew; raise, with nothing left behind, where it cannot be."""
        ...


class Leaves(Protocol):
    """The kernel's own part."""

    def refuse(self, config: Config) -> None:
        """Raise `InvalidRequest` for what may not be served, as a start would."""
        ...

    def adopt(self, config: Config) -> None:
        """Work by this from now on."""
        ...

    def take_back(self, config: Config) -> None:
        """Work by what was before again: what was adopted last was not accepted."""
        ...


Accept = Callable[[Loaded, Change, Sequence[str]], Awaitable[int]]
"""Make a candidate the newest generation, with its row in the audit log, in one write; return its number. The texts are changed keys."""


class Turn:
    """The right to change the configuration, until the block that took it ends."""

    def __init__(self, engine: ReloadEngine) -> None:
        self._engine = engine

    @property
    def accepted(self) -> Loaded:
        """What was accepted last."""
        return self._engine.accepted

    async def take(self, candidate: Loaded, change: Change) -> Applied:
        """See `ReloadEngine.take`."""
        return await self._engine._take(candidate, change)  # noqa: SLF001 - the one way past the queue


class ReloadEngine:
    """Knows what runs, and brings candidates about.

    `taken` is called on the loop when a candidate was accepted and is in force, with what was `accepted` and `running` before. `restart`
    is told why the gateway has to restart by itself, None where it need not any more.
    """

    def __init__(
        self,
        accepted: Loaded,
        *,
        generation: int,
        units: Units,
        leaves: Leaves,
        accept: Accept,
        taken: Callable[[Loaded, Config], None],
        restart: Callable[[str | None], None],
    ) -> None:
        self.accepted = accepted
        """The newest configuration that was accepted."""
        self.running = accepted.config
        """What is in force: as accepted, but for what waits for a restart, which is as it was."""
        self.generation = generation
        self._units = units
        self._leaves = leaves
        self._accept = accept
        self._taken = taken
        self._restart = restart
        self._lock = asyncio.Lock()
        self._asking = 0
        self._closed = False
        self._waiting: Sequence[UnitPlan] = ()
        self._tasks = TaskOwner("reload", _ended_badly)

    @property
    def waiting(self) -> Sequence[UnitPlan]:
        """What was accepted and waits for a restart."""
        return self._waiting

    def problems(self) -> list[str]:
        """What somebody has to do, a line each."""
        return [
            f"{', '.join(unit.paths)}: changed, and waits for a restart ({unit.reason}); run openclaw-kernel restart, or take it back"
            for unit in self._waiting
        ]

    def parts(self) -> Sequence[PluginPart]:
        """The plugins as they run."""
        return self._units.parts(self.running)

    def plan(self, candidate: Config) -> ConfigPlan:
        """Say what taking the candidate would do."""
        return self._decide(candidate).plan

    async def take(self, candidate: Loaded, change: Change) -> Applied:
        """Bring the candidate about when it is its turn; return when every unit has its new snapshot or instance.

        Raises:
            NotApplied: a unit refused; everything is as it was.
            InvalidRequest: it may not be served.
            Unavailable: too many wait, or the gateway stops.
        """
        async with self.turn() as turn:
            return await turn.take(candidate, change)

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn]:
        """Keep everybody else from changing the configuration: for who reads the file, changes it, and wants it taken; raise as `take`."""
        if self._asking >= MOST_WAITING:
            raise Unavailable(f"{MOST_WAITING} changes of the configuration wait already; retry shortly", retry_after_ms=_RETRY_MS)
        self._asking += 1
        try:
            async with self._lock:
                if self._closed:
                    raise Unavailable("the gateway stops; change the configuration when it is back", retry_after_ms=_RETRY_MS)
                yield Turn(self)
        finally:
            self._asking -= 1

    async def close(self) -> None:
        """Take nothing more, and let what is under way end."""
        self._closed = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS), self._lock:
                pass
        await self._tasks.close(_CLOSE_SECONDS)

    def _decide(self, candidate: Config) -> Decided:
        settings = candidate.gateway.reload
        return decide(self.running, candidate, self._units.parts(candidate), mode=settings.mode, units=settings.units)

    async def _take(self, candidate: Loaded, change: Change) -> Applied:
        self._leaves.refuse(candidate.config)
        decided = self._decide(candidate.config)
        plan = decided.plan
        changed = named(changed_paths(self.accepted.config, candidate.config))
        if not plan.changed and candidate.hash == self.accepted.hash:
            self._settle(candidate, self.running, plan)
            return Applied(generation=self.generation, plan=plan, results=())
        if any(unit.outcome is ReloadOutcome.PROCESS and not unit.waits for unit in plan.units):
            # The next process brings all of it about: what were done now would be done by halves until then.
            check = Step(what="the plugins", do=lambda: self._units.check(candidate.config), undo=_nothing_to_undo)
            await self._all_or_nothing([check, self._record(candidate, change, changed, running=self.running, plan=plan)], plan)
            results = tuple(UnitResult(unit=unit.unit, outcome=ReloadOutcome.PROCESS, waits=unit.waits) for unit in plan.units)
            return Applied(generation=self.generation, plan=plan, results=results, restart=True)
        effective = hold(candidate.config, self.running, decided.waiting)
        if decided.waiting:
            self._leaves.refuse(effective)
        try:
            return await self._apply(candidate, change, changed, effective=effective, plan=plan)
        except NotApplied as error:
            # Some find out only when they are made that they begin with the next process.
            needed = {result.unit for result in error.results if result.outcome is ReloadOutcome.PROCESS}
            known = {unit.unit for unit in plan.units if unit.outcome is ReloadOutcome.PROCESS}
            now = {unit.unit for unit in self._decide(candidate.config).plan.units if unit.outcome is ReloadOutcome.PROCESS}
            if not (needed & now) - known:
                raise
        return await self._take(candidate, change)

    async def _apply(self, candidate: Loaded, change: Change, changed: Sequence[str], *, effective: Config, plan: ConfigPlan) -> Applied:
        before, results = self.running, list[UnitResult]()

        async def replace_units() -> None:
            results.extend(await (await self._units.prepare(effective, plan)).commit())

        async def put_units_back() -> None:
            # The plugins are as `effective` has them now.
            back = decide(effective, before, self._units.parts(before), mode="hybrid")
            await (await self._units.prepare(before, back.plan)).commit()

        async def adopt() -> None:
            self._leaves.adopt(effective)

        async def take_back() -> None:
            self._leaves.take_back(before)

        steps = [
            Step(what="the plugins", do=replace_units, undo=put_units_back),
            Step(what="the gateway's own settings", do=adopt, undo=take_back),
            self._record(candidate, change, changed, running=effective, plan=plan),
        ]
        await self._all_or_nothing(steps, plan)
        told = {result.unit for result in results}
        rest = [
            UnitResult(unit=unit.unit, outcome=unit.outcome, waits=unit.waits) for unit in plan.units if unit.waits or unit.unit not in told
        ]
        return Applied(generation=self.generation, plan=plan, results=(*results, *rest))

    async def _all_or_nothing(self, steps: Sequence[Step], plan: ConfigPlan) -> None:
        try:
            await all_or_nothing(steps, self._tasks)
        except Failed as failure:
            raise _not_applied(failure, plan) from failure.__cause__

    def _record(self, candidate: Loaded, change: Change, changed: Sequence[str], *, running: Config, plan: ConfigPlan) -> Step:
        return Step(
            what="the record of it",
            do=lambda: self._write(candidate, change, changed, running=running, plan=plan),
            undo=_nothing_to_undo,
            whole=True,
        )

    async def _write(self, candidate: Loaded, change: Change, changed: Sequence[str], *, running: Config, plan: ConfigPlan) -> None:
        self.generation = await self._accept(candidate, change, changed)
        self._settle(candidate, running, plan)

    def _settle(self, candidate: Loaded, running: Config, plan: ConfigPlan) -> None:
        before = self.accepted, self.running
        self.accepted, self.running = candidate, running
        self._waiting = tuple(unit for unit in plan.units if unit.waits)
        due = [unit for unit in plan.units if unit.outcome is ReloadOutcome.PROCESS and not unit.waits]
        self._restart(_why(due) if due else None)
        for line in self.problems():
            logger.warning("%s", line)
        self._taken(*before)


def _why(units: Sequence[UnitPlan]) -> str:
    keys = sorted({path for unit in units for path in unit.paths})
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""  # noqa: PLR2004 - as many as one reads
    return f"{', '.join(keys[:5])}{more} changed"


async def _nothing_to_undo() -> None:
    """It is the last step, or one that leaves nothing behind."""


def _not_applied(failure: Failed, plan: ConfigPlan) -> GatewayError:
    error = failure.__cause__
    if isinstance(error, NotApplied) and not failure.left:
        return error
    words = error.message if isinstance(error, GatewayError) else str(error) or type(error).__name__
    state = "everything is as it was" if not failure.left else f"{' and '.join(failure.left)} could not be taken back: restart the gateway"
    results = error.results if isinstance(error, NotApplied) else _failed(plan, words)
    return NotApplied(f"{failure.step}: {words}; {state}", results)


def _failed(plan: ConfigPlan, words: str) -> Sequence[UnitResult]:
    return tuple(UnitResult(unit=unit.unit, outcome=unit.outcome, error=words, waits=unit.waits) for unit in plan.units)


def _ended_badly(name: str, error: BaseException) -> None:
    # Whoever waits for it is told by the exception itself.
    logger.debug("%s failed", name, exc_info=error)
