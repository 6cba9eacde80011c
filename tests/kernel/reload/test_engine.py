"""Candidates are brought about one at a time, or everything stays as it was."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from openclaw_config.load import Loaded, load
from openclaw_config.models import Config
from openclaw_kernel.api.audit import AuditOrigin
from openclaw_kernel.api.config import Change, ConfigPlan, NotApplied, ReloadOutcome, UnitResult
from openclaw_kernel.api.errors import InvalidRequest, Unavailable
from openclaw_kernel.reload.engine import MOST_WAITING, ReloadEngine
from openclaw_kernel.reload.matrix import Rules
from openclaw_kernel.reload.plan import PluginPart
from openclaw_kernel.tasks import TaskOwner

CHANGE = Change(origin=AuditOrigin(actor="test", surface="cli"))
IRC = {"channels.irc": "unit", "channels.irc.socket": "process"}


class Gateway:
    """What the engine joins, each part as plain as can be: a host with one channel, the kernel's part, the record, the restarts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log: list[str] = []
        self.fails: dict[str, BaseException] = {}
        self.held: dict[str, asyncio.Event] = {}
        self.reached: dict[str, asyncio.Event] = {}
        self.plugins = Config()
        self.kernel = Config()
        self.restart: str | None = None
        self.records: list[Loaded] = []
        self.engine = ReloadEngine(
            self.file(""), generation=1, units=self, leaves=self, accept=self.accept, taken=self.taken, restart=self.restarts
        )  # fmt: skip

    def file(self, text: str) -> Loaded:
        path = self.folder / "openclaw.yaml"
        path.write_text(text)
        return load(path)

    async def pass_by(self, place: str) -> None:
        self.reached.setdefault(place, asyncio.Event()).set()
        if place in self.held:
            await self.held[place].wait()
        if place in self.fails:
            raise self.fails[place]
        self.log.append(place)

    def parts(self, candidate: Config) -> Sequence[PluginPart]:
        sections = [("channels", "irc")]
        ran, runs = "irc" in self.plugins.channels, "irc" in candidate.channels
        return [PluginPart(id="irc", rules=Rules.of_manifest(IRC), sections=sections, ran=ran, runs=runs)]

    async def check(self, config: Config) -> None:
        await self.pass_by("check")

    async def prepare(self, config: Config, plan: ConfigPlan) -> Made:
        await self.pass_by("prepare")
        return Made(self, config, plan)

    def refuse(self, config: Config) -> None:
        if config.gateway.auth.mode == "none" and config.gateway.bind == "lan":
            raise InvalidRequest("that opens the door")

    def adopt(self, config: Config) -> None:
        if "adopt" in self.fails:
            raise self.fails["adopt"]
        self.kernel = config

    def take_back(self, config: Config) -> None:
        self.kernel = config

    async def accept(self, candidate: Loaded, change: Change, changed: Sequence[str]) -> int:
        await self.pass_by("accept")
        self.records.append(candidate)
        return 1 + len(self.records)

    def taken(self, accepted: Loaded, running: Config) -> None:
        self.log.append("taken")

    def restarts(self, reason: str | None) -> None:
        self.restart = reason


class Made:
    """What a host prepared."""

    def __init__(self, gateway: Gateway, config: Config, plan: ConfigPlan) -> None:
        self._gateway = gateway
        self._config = config
        self._plan = plan

    async def commit(self) -> Sequence[UnitResult]:
        await self._gateway.pass_by("commit")
        self._gateway.plugins = self._config
        return [UnitResult(unit=unit.unit, outcome=unit.outcome) for unit in self._plan.units if unit.outcome is ReloadOutcome.UNIT]


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path)


DEBUG, CHANNEL, PORT = "logging: {level: debug}\n", "channels: {irc: {nick: x}}\n", "gateway: {port: 1, reload: {mode: MODE}}\n"


async def test_a_candidate_is_in_force_everywhere_when_it_was_taken(gateway: Gateway) -> None:
    applied = await gateway.engine.take(gateway.file(DEBUG + CHANNEL), CHANGE)
    assert gateway.log == ["prepare", "commit", "accept", "taken"]
    assert gateway.plugins == gateway.kernel == gateway.engine.running == gateway.engine.accepted.config
    assert (applied.generation, gateway.engine.generation, applied.restart) == (2, 2, False)
    assert [(one.unit, one.outcome, one.error) for one in applied.results] == [
        ("irc", ReloadOutcome.UNIT, None),
        ("kernel", ReloadOutcome.HOT, None),
    ]


async def test_what_changes_nothing_leaves_no_generation(gateway: Gateway) -> None:
    applied = await gateway.engine.take(gateway.file(""), CHANGE)
    assert (applied.generation, applied.plan.changed, gateway.records) == (1, (), [])


async def test_another_comment_is_a_generation_that_touches_no_unit(gateway: Gateway) -> None:
    applied = await gateway.engine.take(gateway.file("# hello\n"), CHANGE)
    assert (applied.generation, applied.plan.units, len(gateway.records)) == (2, (), 1)
    assert gateway.engine.accepted.text == "# hello\n"


STEPS = ["prepare", "commit", "adopt", "accept"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyError("x"), InvalidRequest("no"), NotApplied("irc refused", ())], ids=repr)
@pytest.mark.parametrize("step", STEPS)
async def test_a_failure_at_any_step_leaves_everything_as_it_was(gateway: Gateway, step: str, error: Exception) -> None:
    await gateway.engine.take(gateway.file(DEBUG), CHANGE)
    before = gateway.engine.accepted
    gateway.fails[step] = error
    with pytest.raises(NotApplied):
        await gateway.engine.take(gateway.file(CHANNEL), CHANGE)
    assert gateway.plugins == gateway.kernel == gateway.engine.running == before.config
    assert (gateway.engine.accepted, gateway.engine.generation, gateway.records) == (before, 2, [before])
    gateway.fails.clear()
    assert (await gateway.engine.take(gateway.file(CHANNEL), CHANGE)).generation == 3


@pytest.mark.parametrize("step", ["prepare", "commit"])
async def test_a_cancellation_before_the_last_step_leaves_everything_as_it_was(gateway: Gateway, step: str) -> None:
    owner = TaskOwner("test", lambda _name, _error: None)
    gateway.held[step] = asyncio.Event()
    task = owner.spawn("take", gateway.engine.take(gateway.file(CHANNEL), CHANGE))
    await gateway.reached.setdefault(step, asyncio.Event()).wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gateway.plugins == gateway.kernel == gateway.engine.running == Config()
    assert gateway.records == []
    gateway.held.clear()
    assert (await gateway.engine.take(gateway.file(CHANNEL), CHANGE)).generation == 2


async def test_a_cancellation_while_it_is_recorded_comes_too_late(gateway: Gateway) -> None:
    owner = TaskOwner("test", lambda _name, _error: None)
    held = gateway.held["accept"] = asyncio.Event()
    task = owner.spawn("take", gateway.engine.take(gateway.file(CHANNEL), CHANGE))
    await gateway.reached.setdefault("accept", asyncio.Event()).wait()
    task.cancel()
    held.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gateway.plugins == gateway.engine.running == gateway.engine.accepted.config
    assert ("irc" in gateway.plugins.channels, gateway.engine.generation) == (True, 2)


async def test_what_may_not_be_served_touches_nobody(gateway: Gateway) -> None:
    with pytest.raises(InvalidRequest, match="door"):
        await gateway.engine.take(gateway.file("gateway: {bind: lan, auth: {mode: none}}"), CHANGE)
    assert gateway.log == []


async def test_a_restart_takes_nothing_live_and_says_why(gateway: Gateway) -> None:
    applied = await gateway.engine.take(gateway.file(DEBUG + CHANNEL + PORT.replace("MODE", "hybrid")), CHANGE)
    assert (applied.restart, gateway.restart) == (True, "gateway.port changed")
    assert gateway.log == ["check", "accept", "taken"]
    assert gateway.plugins == gateway.engine.running == Config()
    assert {one.outcome for one in applied.results} == {ReloadOutcome.PROCESS}


async def test_no_restart_where_a_plugin_could_not_run_after_it(gateway: Gateway) -> None:
    gateway.fails["check"] = NotApplied("irc: no", ())
    with pytest.raises(NotApplied, match="irc: no"):
        await gateway.engine.take(gateway.file(PORT.replace("MODE", "hybrid")), CHANGE)
    assert (gateway.restart, gateway.records) == (None, [])


@pytest.mark.parametrize("error", [OSError("disk full"), KeyError("x"), Unavailable("no room")], ids=repr)
@pytest.mark.parametrize("step", ["check", "accept"])
async def test_a_restart_that_cannot_be_prepared_is_refused_as_anything_else(gateway: Gateway, step: str, error: Exception) -> None:
    gateway.fails[step] = error
    with pytest.raises(NotApplied, match="everything is as it was"):
        await gateway.engine.take(gateway.file(PORT.replace("MODE", "hybrid")), CHANGE)
    assert (gateway.restart, gateway.records, gateway.engine.generation) == (None, [], 1)


async def test_a_restart_whose_record_is_being_written_is_not_forgotten(gateway: Gateway) -> None:
    owner = TaskOwner("test", lambda _name, _error: None)
    held = gateway.held["accept"] = asyncio.Event()
    task = owner.spawn("take", gateway.engine.take(gateway.file(PORT.replace("MODE", "hybrid")), CHANGE))
    await gateway.reached.setdefault("accept", asyncio.Event()).wait()
    task.cancel()
    held.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (gateway.restart, gateway.engine.accepted, gateway.engine.generation) == ("gateway.port changed", gateway.records[-1], 2)


async def test_a_restart_that_is_not_needed_any_more_is_called_off(gateway: Gateway) -> None:
    await gateway.engine.take(gateway.file(PORT.replace("MODE", "hybrid")), CHANGE)
    applied = await gateway.engine.take(gateway.file(""), CHANGE)
    assert (gateway.restart, applied.restart) == (None, False)


async def test_in_mode_hot_what_needs_a_restart_waits_and_the_rest_is_done(gateway: Gateway) -> None:
    applied = await gateway.engine.take(gateway.file(DEBUG + PORT.replace("MODE", "hot")), CHANGE)
    assert (applied.restart, gateway.restart) == (False, None)
    assert [(one.unit, one.outcome, one.waits) for one in applied.results] == [
        ("kernel", ReloadOutcome.HOT, False),
        ("kernel", ReloadOutcome.PROCESS, True),
    ]
    running = gateway.engine.running
    assert (running.logging.level, running.gateway.port, gateway.kernel) == ("debug", 18789, running)
    assert [unit.paths for unit in gateway.engine.waiting] == [("gateway.port",)]
    assert "gateway.port: changed, and waits for a restart" in gateway.engine.problems()[0]


async def test_what_waits_goes_on_waiting_until_it_is_taken_back(gateway: Gateway) -> None:
    hot = PORT.replace("MODE", "hot")
    await gateway.engine.take(gateway.file(hot), CHANGE)
    applied = await gateway.engine.take(gateway.file(hot + DEBUG), CHANGE)
    assert applied.plan.changed == ("gateway.port", "logging.level")
    assert len(gateway.engine.waiting) == 1
    await gateway.engine.take(gateway.file("gateway: {reload: {mode: hot}}"), CHANGE)
    assert (gateway.engine.waiting, gateway.engine.problems()) == ((), [])


async def test_what_waited_is_brought_about_by_the_restart_of_mode_hybrid(gateway: Gateway) -> None:
    await gateway.engine.take(gateway.file(PORT.replace("MODE", "hot")), CHANGE)
    assert (await gateway.engine.take(gateway.file(PORT.replace("MODE", "hybrid")), CHANGE)).restart
    assert gateway.restart == "gateway.port changed"


async def test_what_waits_cannot_open_the_door_meanwhile(gateway: Gateway) -> None:
    lan = gateway.file("gateway: {bind: lan, reload: {mode: hot}}")
    gateway.engine.accepted, gateway.engine.running = lan, lan.config
    with pytest.raises(InvalidRequest, match="door"):
        await gateway.engine.take(gateway.file("gateway: {bind: loopback, auth: {mode: none}, reload: {mode: hot}}"), CHANGE)


async def test_one_is_taken_at_a_time_and_few_wait(gateway: Gateway) -> None:
    owner = TaskOwner("test", lambda _name, _error: None)
    held = gateway.held["prepare"] = asyncio.Event()
    texts = [f"session: {{mainKey: k{number}}}\n" for number in range(MOST_WAITING)]
    tasks = [owner.spawn("take", gateway.engine.take(gateway.file(text), CHANGE)) for text in texts]
    await gateway.reached.setdefault("prepare", asyncio.Event()).wait()
    with pytest.raises(Unavailable, match="wait already"):
        await gateway.engine.take(gateway.file(DEBUG), CHANGE)
    assert gateway.log == []
    held.set()
    applied = [await task for task in tasks]
    assert [one.generation for one in applied] == list(range(2, MOST_WAITING + 2))
    assert gateway.engine.accepted.text == texts[-1]


async def test_who_holds_the_turn_takes_without_waiting_and_others_wait(gateway: Gateway) -> None:
    owner = TaskOwner("test", lambda _name, _error: None)
    async with gateway.engine.turn() as turn:
        other = owner.spawn("other", gateway.engine.take(gateway.file(CHANNEL), CHANGE))
        await asyncio.sleep(0)
        await turn.take(gateway.file(DEBUG), CHANGE)
        assert turn.accepted.text == DEBUG
        assert not other.done()
    assert (await other).generation == 3


async def test_after_the_end_nothing_is_taken(gateway: Gateway) -> None:
    await gateway.engine.close()
    with pytest.raises(Unavailable, match="stops"):
        await gateway.engine.take(gateway.file(DEBUG), CHANGE)


def plans_of(gateway: Gateway, text: str) -> Any:
    return [(unit.unit, unit.outcome) for unit in gateway.engine.plan(gateway.file(text).config).units]


async def test_a_plan_does_nothing(gateway: Gateway) -> None:
    assert plans_of(gateway, CHANNEL + DEBUG) == [("kernel", ReloadOutcome.HOT), ("irc", ReloadOutcome.UNIT)]
    assert (gateway.log, gateway.engine.running) == ([], Config())
