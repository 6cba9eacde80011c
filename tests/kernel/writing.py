"""A configuration desk over the real engine, store, audit log and generations; of plugins there is one channel, which may fail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from openclaw_config.describe import schema_of
from openclaw_config.load import Loaded, load
from openclaw_config.models import Config
from openclaw_kernel.api.audit import AuditFilter, AuditOrigin
from openclaw_kernel.api.config import Applied, Change, ConfigPlan, ReloadOutcome, UnitResult
from openclaw_kernel.audit.trail import AuditTrail
from openclaw_kernel.configuration.desk import ConfigurationDesk
from openclaw_kernel.configuration.view import ConfigView
from openclaw_kernel.generations import Generations
from openclaw_kernel.reload.engine import ReloadEngine
from openclaw_kernel.reload.matrix import Rules
from openclaw_kernel.reload.plan import PluginPart
from openclaw_kernel.store.sqlite import SqliteStore
from openclaw_kernel.testing import FakeClock

CHANGE = Change(origin=AuditOrigin(actor="device:d1", surface="ws"))
IRC = Rules.of_manifest({"channels.irc": "unit"})


class Desk:
    """The desk, and all that it stands on."""

    def __init__(self, home: Path, text: str) -> None:
        self.home = home
        self.path = home / "openclaw.yaml"
        self.path.write_bytes(text.encode())
        self.clock = FakeClock()
        self.store = SqliteStore(home / "state.sqlite3")
        self.audit = AuditTrail(self.store, home=home, now_ms=self.clock.now_ms)
        self.generations = Generations(home, self.store, self.audit, now_ms=self.clock.now_ms)
        self.running = load(self.path).config
        self.restart: str | None = None
        self.fails: Callable[[Config], None] = lambda _config: None
        self.engine = ReloadEngine(
            load(self.path),
            generation=1,
            units=self,
            leaves=self,
            accept=self._accept,
            taken=lambda _before, _candidate: None,
            restart=self._restart,
        )
        view = ConfigView(
            self.path, schema_source=lambda: {"schema": schema_of(Config)}, outcome_of=lambda _path: ReloadOutcome.HOT
        )  # fmt: skip
        self.configuration = ConfigurationDesk(
            path=self.path,
            engine=self.engine,
            reread=self.reread,
            generations=self.generations,
            audit=self.audit,
            view=view,
            now_ms=self.clock.now_ms,
        )

    @property
    def text(self) -> str:
        """What the file says, byte for byte."""
        return self.path.read_bytes().decode()

    async def hash(self) -> str:
        """The hash that a client has to send."""
        return str((await self.configuration.snapshot())["hash"])

    async def rows(self, action: str) -> list[dict[str, Any]]:
        """The audit log's rows of this action."""
        await self.audit.settled()
        page = await self.audit.page(AuditFilter(action=action), behind=None, limit=500, oldest_first=True)
        return [dict(row) for row in page.rows]

    async def reread(self, change: Change) -> Applied:
        """Take the file as it is on disk."""
        async with self.engine.turn() as turn:
            return await turn.take(load(self.path), change)

    def parts(self, candidate: Config) -> Sequence[PluginPart]:
        """See the engine's `Units`."""
        ran, runs = "irc" in self.running.channels, "irc" in candidate.channels
        return [PluginPart(id="irc", rules=IRC, sections=[("channels", "irc")], ran=ran, runs=runs)]

    async def check(self, config: Config) -> None:
        """See the engine's `Units`."""
        self.fails(config)

    async def prepare(self, config: Config, plan: ConfigPlan) -> Prepared:
        """See the engine's `Units`."""
        self.fails(config)
        return Prepared(self, config, plan)

    def refuse(self, config: Config) -> None:
        """See the engine's `Leaves`."""

    def adopt(self, config: Config) -> None:
        """See the engine's `Leaves`."""

    def take_back(self, config: Config) -> None:
        """See the engine's `Leaves`."""

    async def _accept(self, candidate: Loaded, change: Change, changed: Sequence[str]) -> int:
        return (await self.generations.take(candidate, change, changed)).number

    def _restart(self, reason: str | None) -> None:
        self.restart = reason


class Prepared:
    """What the channel would be."""

    def __init__(self, desk: Desk, config: Config, plan: ConfigPlan) -> None:
        self._desk = desk
        self._config = config
        self._plan = plan

    async def commit(self) -> Sequence[UnitResult]:
        """See the engine's `Prepared`."""
        self._desk.running = self._config
        return [UnitResult(unit=unit.unit, outcome=unit.outcome) for unit in self._plan.units if unit.outcome is ReloadOutcome.UNIT]


@asynccontextmanager
async def desk_at(home: Path, text: str) -> AsyncIterator[Desk]:
    """A desk whose file says this."""
    desk = Desk(home, text)
    await desk.store.open({})
    await desk.audit.open()
    await desk.generations.take_start(desk.engine.accepted)
    try:
        yield desk
    finally:
        await desk.configuration.close()
        await desk.engine.close()
        await desk.audit.close()
        await desk.store.close()
