"""Plugins start in order, come back by themselves, and stop in reverse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from openclaw_kernel.api import InvalidRequest, OutboundMessage, PluginState, SendFailed
from openclaw_kernel.host.discovery import discover
from openclaw_kernel.host.order import start_order
from tests.kernel.host.distributions import Distributions
from tests.kernel.host.hosting import QUICK, TARGET, Hosting

MakeHosting = Callable[..., Hosting]

JOURNAL = """
class ThePlugin:
    settings = None

    def __init__(self, context):
        self.context = context

    @hookimpl
    def openclaw_register_services(self, registrar):
        registrar.add_unit(self)

    async def start(self):
        self.context.service(list).append(f"+{self.context.plugin_id}")

    async def stop(self):
        self.context.service(list).append(f"-{self.context.plugin_id}")
"""

CHANNEL = """
class TheChannel:
    id = "bells"
    label = "Bells"
    capabilities = ChannelCapabilities()
    attempts = 0

    def __init__(self, context):
        self.context = context
        self.stops = 0

    async def start(self):
        self.attempts += 1
        {start}

    async def stop(self):
        self.stops += 1

    async def send(self, message):
        return Receipt(message_ids=("1",))

    async def show_progress(self, progress): pass
    def status(self):
        return [AccountStatus(account_id="default", running=True)]

class ThePlugin:
    settings = None

    def __init__(self, context):
        self.context = context

    @hookimpl
    def openclaw_register_channels(self, registrar):
        registrar.add_channel(TheChannel(self.context))
"""

BELLS: dict[str, Any] = {"channels": {"good": {}, "bells": {}}}


def bells_of(running: Hosting) -> Any:
    return running.host.registry.channels["bells"].item


async def test_plugins_start_by_after_then_by_kind_and_stop_in_reverse(distributions: Distributions, hosting: MakeHosting) -> None:
    provider = JOURNAL.replace("class The", "class Settings(BaseModel): pass\n\nclass The").replace("= None", "= Settings")
    distributions.add("d-channel", JOURNAL, kind="channel")
    distributions.add("c-provider", provider, kind="provider")
    distributions.add("b-plugin", JOURNAL, manifest='after = ["a-channel"]')
    distributions.add("a-channel", JOURNAL, kind="channel", manifest='after = ["not-installed"]')
    distributions.add("e-plugin", JOURNAL)
    journal: list[str] = []
    config = {"channels": {"a-channel": {}, "d-channel": {}}, "models": {"providers": {"c-provider": {}}}}
    running = hosting(config, services={list: journal})
    await running.run()
    assert journal[:2] == ["+e-plugin", "+c-provider"]
    assert sorted(journal[2:]) == ["+a-channel", "+b-plugin", "+d-channel"]
    assert journal.index("+a-channel") < journal.index("+b-plugin")
    await running.stop()
    stops = journal[5:]
    assert stops.index("-b-plugin") < stops.index("-a-channel")
    assert stops.index("-d-channel") < stops.index("-c-provider") < stops.index("-e-plugin")
    assert {running.state(name) for name in ("a-channel", "b-plugin", "c-provider")} == {PluginState.STOPPED}


def test_plugins_of_one_kind_keep_the_order_in_which_they_were_found() -> None:
    found = [plugin for plugin in discover().plugins if plugin.kind == "provider"]
    ordered, circular = start_order(found)
    assert (ordered, circular) == (found, {})


async def test_plugins_that_wait_for_each_other_fail_by_name(good: Distributions, hosting: MakeHosting) -> None:
    good.add("left", JOURNAL, manifest='after = ["right"]')
    good.add("right", JOURNAL, manifest='after = ["left"]')
    running = hosting(services={list: []})
    await running.run()
    for name in ("left", "right"):
        assert running.state(name) is PluginState.FAILED
        assert "its 'after' goes in a circle among left, right" in running.reason(name)
    await running.check_good()


async def test_a_channel_that_is_not_ready_is_degraded_until_it_is(good: Distributions, hosting: MakeHosting) -> None:
    start = 'if self.attempts < 4: raise NotReady("no network yet")'
    good.add("bells", CHANNEL.format(start=start), kind="channel")
    running = hosting(BELLS)
    await running.run()
    await running.wait_until(lambda: running.state("bells") is PluginState.STARTED)
    assert bells_of(running).attempts == 4
    assert bells_of(running).stops == 3
    told = [(status.state, status.reason) for status in running.changes if status.id == "bells"]
    assert (PluginState.DEGRADED, "channel bells is not ready: no network yet") in told
    assert told[-1] == (PluginState.STARTED, None)
    await running.check_good()


async def test_a_channel_that_raises_is_tried_again_a_few_times_only(good: Distributions, hosting: MakeHosting) -> None:
    good.add("bells", CHANNEL.format(start='raise ValueError("boom")'), kind="channel")
    running = hosting(BELLS)
    await running.run()
    component = running.host.current().hosted["bells"].components[0]
    retry = component._retry
    assert retry is not None
    await retry
    assert bells_of(running).attempts == 1 + QUICK.attempts
    assert running.state("bells") is PluginState.FAILED
    await running.check_good()


async def test_a_rejected_config_is_not_tried_again(good: Distributions, hosting: MakeHosting) -> None:
    start = 'raise ConfigRejected("channels.bells.token", "it is wrong", "ask for a new one")'
    good.add("bells", CHANNEL.format(start=start), kind="channel")
    running = hosting(BELLS)
    await running.run()
    assert running.reason("bells") == "channels.bells.token: it is wrong; ask for a new one"
    assert running.host.current().hosted["bells"].components[0]._retry is None


async def test_the_back_off_doubles_to_its_ceiling(good: Distributions, hosting: MakeHosting, monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float] = []

    def whole(_low: float, high: float) -> float:
        assert high == 1.0
        return high

    monkeypatch.setattr("openclaw_kernel.host.component.random.uniform", whole)
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        delays.append(seconds)
        await sleep(0)

    monkeypatch.setattr("openclaw_kernel.host.component.asyncio.sleep", note)
    good.add("bells", CHANNEL.format(start='if self.attempts < 6: raise NotReady("no")'), kind="channel")
    running = hosting(BELLS, timing=replace(QUICK, backoff_first=1.0, backoff_ceiling=5.0))
    await running.run()
    await running.wait_until(lambda: running.state("bells") is PluginState.STARTED)
    assert delays == [1.0, 2.0, 4.0, 5.0, 5.0]


async def test_a_slow_channel_does_not_hold_up_the_start(good: Distributions, hosting: MakeHosting) -> None:
    good.add("bells", CHANNEL.format(start="await asyncio.sleep(30)"), kind="channel")
    running = hosting({**BELLS, "plugins": {"callTimeoutSeconds": 60}}, timing=replace(QUICK, ready_wait=0.2))
    began = time.monotonic()
    await running.run()
    assert time.monotonic() - began < 5
    await running.check_good()
    with pytest.raises(SendFailed, match="channel 'bells' is not running") as refused:
        await running.host.channels.send(OutboundMessage(target=replace(TARGET, channel="bells"), outbox_id="1"))
    assert not refused.value.permanent
    began = time.monotonic()
    await running.stop()
    assert time.monotonic() - began < 5


async def test_a_hanging_unit_holds_up_only_those_that_named_it(good: Distributions, hosting: MakeHosting) -> None:
    good.add("stuck", JOURNAL.replace("self.context.service(list).append", "await asyncio.Event().wait() or str"))
    good.add("later", JOURNAL, manifest='after = ["stuck"]')
    good.add("free", JOURNAL)
    journal: list[str] = []
    running = hosting({"plugins": {"callTimeoutSeconds": 60}}, services={list: journal}, timing=replace(QUICK, ready_wait=1.0))
    await running.run()
    assert journal == ["+free"]
    await running.check_good()


async def test_a_channel_is_stopped_and_started_by_hand(good: Distributions, hosting: MakeHosting) -> None:
    good.add("bells", CHANNEL.format(start="pass"), kind="channel")
    running = hosting(BELLS)
    await running.run()
    channels = running.host.channels
    assert await channels.stop("bells")
    assert not await channels.stop("bells")
    assert running.state("bells") is PluginState.STOPPED
    assert channels.capabilities("bells") is None
    (account,) = channels.status("bells")
    assert (account.running, account.last_error) == (False, "stopped")
    assert await channels.start("bells")
    assert not await channels.start("bells")
    assert running.state("bells") is PluginState.STARTED
    assert channels.status("bells")[0].running
    with pytest.raises(InvalidRequest, match="there is no channel 'bels'; did you mean 'bells'"):
        await channels.stop("bels")
    await running.check_good()


async def test_a_channel_stopped_by_hand_is_not_tried_again(good: Distributions, hosting: MakeHosting) -> None:
    good.add("bells", CHANNEL.format(start='raise NotReady("no")'), kind="channel")
    running = hosting(BELLS, timing=replace(QUICK, backoff_first=30.0))
    await running.run()
    component = running.host.current().hosted["bells"].components[0]
    retry = component._retry
    assert retry is not None
    assert await running.host.channels.stop("bells")
    await asyncio.wait({retry})
    assert retry.cancelled()
    assert running.state("bells") is PluginState.STOPPED


async def test_stop_without_start_leaves_nothing(good: Distributions, hosting: MakeHosting) -> None:
    running = hosting()
    await running.load()
    assert await running.stop() == []


async def test_a_plugin_whose_migration_is_refused_does_not_start(good: Distributions, hosting: MakeHosting) -> None:
    good.add(
        "bad",
        JOURNAL.replace(
            "registrar.add_unit(self)",
            "registrar.add_unit(self); registrar.add_migrations([Migration(number=1, name='x', apply=lambda database: 1 / 0)])",
        ),
    )
    journal: list[str] = []
    running = hosting(services={list: journal})
    await running.run()
    assert running.state("bad") is PluginState.FAILED
    assert "bad: migration 1 (x) failed: division by zero" in running.reason("bad")
    assert journal == []
    await running.check_good()


async def test_what_a_plugin_reports_itself_is_shown_until_it_is_over(good: Distributions, hosting: MakeHosting) -> None:
    running = hosting()
    await running.run()
    context = running.host.current().hosted["good"].context
    context.degrade("the token expires tomorrow; renew it")
    assert (running.state("good"), running.reason("good")) == (
        PluginState.DEGRADED,
        "the token expires tomorrow; renew it",
    )
    context.degrade(None)
    assert running.state("good") is PluginState.STARTED


async def test_a_context_offers_what_its_protocol_says(good: Distributions, hosting: MakeHosting) -> None:
    running = hosting()
    await running.run()
    context = running.host.current().hosted["good"].context
    assert context.state_dir.is_dir()
    assert context.state_dir.stat().st_mode & 0o777 == 0o700
    assert context.home in context.state_dir.parents
    await context.storage.put("key", "value")
    assert await context.storage.get("key") == "value"
    assert abs(context.now_ms() - time.time() * 1000) < 60_000
    assert context.logger.name == "openclaw.plugin.good"
    task = context.spawn("work", asyncio.sleep(0, "done"))
    assert task.get_name() == "good/work"
    assert await task == "done"


DRAINS = """
    drain_seconds = {seconds}

    async def drain(self):
        self.context.service(list).append("drains")
        {body}
"""


@pytest.mark.parametrize(
    ("seconds", "body", "told"),
    [("5", "pass", True), ("0.05", "await asyncio.Event().wait()", True), ("5", "1 / 0", True), ("0", "pass", False)],
)
async def test_what_is_under_way_may_end_before_anything_stops(
    good: Distributions, hosting: MakeHosting, seconds: str, body: str, told: bool
) -> None:
    """P4: each plugin in its own time, and the fault of one is its own."""
    good.add("draining", JOURNAL + DRAINS.replace("{seconds}", seconds).replace("{body}", body))
    journal: list[str] = []
    running = hosting(services={list: journal})
    await running.run()
    async with asyncio.timeout(4):
        await running.host.drain()
    assert journal == ["+draining", *(["drains"] if told else [])]
    await running.check_good()
