"""A config is brought about while the plugins run: as a whole, or not at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from openclaw_kernel.api import OutboundMessage, PluginState, SendFailed, Target, ToolContext
from openclaw_kernel.api.config import NotApplied, ReloadOutcome
from openclaw_kernel.host.inforce import InForce
from openclaw_kernel.host.replacing import CLOSE_SECONDS
from openclaw_kernel.host.retiring import MOST_KEPT
from openclaw_kernel.host.staging import Wanted
from tests.kernel.host.desks import DESK, section
from tests.kernel.host.distributions import Distributions
from tests.kernel.host.hosting import QUICK, Hosting

HOT, NONE, PROCESS, UNIT = ReloadOutcome.HOT, ReloadOutcome.NONE, ReloadOutcome.PROCESS, ReloadOutcome.UNIT
STARTED = ["one: start unit", "one: start channel"]
CALL = ToolContext(agent_id="main", session_key="s", run_id="r", call_id="c", workspace=Path())
MESSAGE = OutboundMessage(target=Target(channel="desk", account_id="a", peer_kind="direct", peer_id="p"), outbox_id="1", text="x")


class Journal(list[str]):
    """What a plugin tells, for who waits for a line of it."""

    def __init__(self) -> None:
        super().__init__()
        self._news = asyncio.Event()

    def append(self, line: str) -> None:
        """Take a line."""
        super().append(line)
        self._news.set()

    async def until(self, line: str) -> None:
        """Return when the line is there."""
        while line not in self:
            self._news.clear()
            await self._news.wait()


class Desk:
    """A running host with the plugin `desk`. `journal` is what the plugin told; its calls end once `may_end` is set."""

    def __init__(self, hosting: Hosting, journal: Journal, may_end: asyncio.Event) -> None:
        self.hosting = hosting
        self.host = hosting.host
        self.journal = journal
        self.may_end = may_end

    def told(self) -> list[str]:
        """What the plugin told since this was asked last."""
        told, self.journal[:] = list(self.journal), []
        return told

    async def answer(self) -> str:
        """Run its tool."""
        return (await self.host.tools.run("answer", CALL, {})).text

    async def until_told(self, line: str) -> None:
        """Return when the plugin has told this."""
        async with asyncio.timeout(5):
            await self.journal.until(line)


@pytest.fixture
async def desk(distributions: Distributions, hosting: Callable[..., Hosting]) -> AsyncIterator[Desk]:
    """It runs with the word `one`."""
    distributions.add("desk", DESK)
    journal = Journal()
    may_end = asyncio.Event()
    may_end.set()
    timing = replace(QUICK, send=5.0)
    running = hosting({**section(), "channels": {}}, services={list: journal, asyncio.Event: may_end}, timing=timing)
    await running.run()
    desk = Desk(running, journal, may_end)
    assert desk.told() == STARTED
    yield desk
    may_end.set()


async def test_with_none_a_plugin_sees_the_new_settings_and_is_not_told(desk: Desk) -> None:
    results = await desk.hosting.apply(section("two"), desk=NONE)

    assert desk.told() == []
    settings = desk.host.current().hosted["desk"].context.snapshot.section
    assert settings is not None
    assert settings.model_dump()["word"] == "two"
    assert [(result.unit, result.outcome, result.error) for result in results] == [("desk", NONE, None)]


async def test_with_hot_it_is_told_which_keys_changed_and_sees_the_new_settings_by_then(desk: Desk) -> None:
    await desk.hosting.apply(section("two"), desk=HOT)

    assert desk.told() == ["one: reload plugins.entries.desk.config to two"]
    assert await desk.answer() == "one"


async def test_with_unit_it_is_replaced_by_a_new_instance_the_channel_of_the_old_one_stopped_first(desk: Desk) -> None:
    await desk.hosting.apply(section("two"), desk=UNIT)

    assert desk.told() == ["one: stop channel", "one: stop unit", "two: start unit", "two: start channel"]
    assert await desk.answer() == "two"
    assert desk.hosting.state("desk") is PluginState.STARTED


async def test_with_process_it_keeps_what_it_has(desk: Desk) -> None:
    (result,) = await desk.hosting.apply(section("two"), desk=PROCESS)

    assert (result.outcome, result.waits) == (PROCESS, True)
    assert desk.told() == []
    settings = desk.host.current().hosted["desk"].context.snapshot.section
    assert settings is not None
    assert settings.model_dump()["word"] == "one"


async def test_a_plugin_that_is_disabled_is_stopped_and_nothing_of_it_is_left(desk: Desk) -> None:
    await desk.hosting.apply(section(enabled=False), desk=UNIT)

    assert desk.told() == ["one: stop channel", "one: stop unit"]
    assert desk.hosting.state("desk") is PluginState.DISABLED
    assert desk.hosting.changes[-1].state is PluginState.DISABLED
    assert list(desk.host.channels.ids()) == []
    assert "there is no tool 'answer'" in await desk.answer()
    with pytest.raises(SendFailed, match="there is no channel 'desk'"):
        await desk.host.channels.send(MESSAGE)


async def test_a_plugin_that_is_enabled_is_started(desk: Desk) -> None:
    await desk.hosting.apply(section(enabled=False))
    desk.told()

    await desk.hosting.apply(section("three"))

    assert desk.told() == ["three: start unit", "three: start channel"]
    assert await desk.answer() == "three"


async def test_nothing_is_visible_of_what_is_prepared_until_it_is_committed(desk: Desk) -> None:
    prepared = await desk.hosting.prepare(section("two"), desk=UNIT)

    assert desk.told() == []
    assert await desk.answer() == "one"
    await prepared.discard()
    assert desk.told() == ["one: tool"]
    assert await desk.answer() == "one"
    with pytest.raises(RuntimeError, match="prepare it anew"):
        await prepared.commit()


@pytest.mark.parametrize("where", ["constructor", "services hook", "tools hook"])
async def test_what_cannot_be_loaded_is_refused_before_anything_happens(desk: Desk, where: str) -> None:
    with pytest.raises(NotApplied, match=f"desk: .*{where} fails as it was told") as refused:
        await desk.hosting.prepare(section("two", fail=where), desk=UNIT)

    assert [result.unit for result in refused.value.results] == ["desk"]
    assert desk.told() == []
    assert await desk.answer() == "one"
    assert desk.hosting.state("desk") is PluginState.STARTED


@pytest.mark.parametrize("outcome", [NONE, HOT, UNIT])
async def test_settings_that_are_wrong_are_refused_before_anything_happens(desk: Desk, outcome: ReloadOutcome) -> None:
    with pytest.raises(NotApplied, match=r"desk: plugins\.entries\.desk\.config\.wrod: unknown key"):
        await desk.hosting.prepare(section("two", wrod="x"), desk=outcome)

    assert desk.told() == []


ROLLBACKS = {
    "start unit": [
        *["one: stop channel", "one: stop unit", "two: start unit", "two: stop unit"],
        *["one: start unit", "one: start channel"],
    ],
    "start channel": [
        *["one: stop channel", "one: stop unit", "two: start unit", "two: start channel", "two: stop channel"],
        *["two: stop unit", "one: start unit", "one: start channel"],
    ],
}


@pytest.mark.parametrize("how", ["fail", "hang"])
@pytest.mark.parametrize("where", ROLLBACKS)
async def test_a_new_instance_that_does_not_start_puts_the_old_one_back(desk: Desk, where: str, how: str) -> None:
    reason = "fails as it was told" if how == "fail" else r"did not end in 0\.5 s"
    with pytest.raises(NotApplied, match=f"desk: .*{reason}"):
        await desk.hosting.apply(section("two", fail=where if how == "fail" else "", hang=where if how == "hang" else ""), desk=UNIT)

    # What failed to start is stopped twice: by itself, and with the rest.
    assert list(dict.fromkeys(desk.told())) == ROLLBACKS[where]
    assert await desk.answer() == "one"
    assert (await desk.host.channels.send(MESSAGE)).message_ids == ("one",)
    assert desk.hosting.state("desk") is PluginState.STARTED
    await desk.hosting.apply(section("three"), desk=UNIT)
    assert await desk.answer() == "three"


async def test_a_refused_hot_change_puts_the_settings_back_and_tells_again(desk: Desk) -> None:
    with pytest.raises(NotApplied, match="desk: reload of the plugin raised ValueError: reload fails as it was told"):
        await desk.hosting.apply(section("two", fail="reload"), desk=HOT)

    path = "plugins.entries.desk.config"
    assert desk.told() == [f"one: reload {path} to two", f"one: reload {path} to one"]


async def test_one_that_took_neither_the_new_settings_nor_the_old_is_degraded_until_it_takes_some(
    distributions: Distributions, hosting: Callable[..., Hosting]
) -> None:
    distributions.add("desk", DESK.replace('self.fail_if("reload")', "self.context.service(asyncio.Event).is_set() or 1 / 0"))
    may_reload = asyncio.Event()
    running = hosting({**section(), "channels": {}}, services={list: [], asyncio.Event: may_reload})
    await running.run()
    with pytest.raises(NotApplied, match="ZeroDivisionError"):
        await running.apply(section("two"), desk=HOT)
    assert running.state("desk") is PluginState.DEGRADED
    assert running.reason("desk").endswith("restart the gateway")

    may_reload.set()
    await running.apply(section("three"), desk=HOT)

    assert (running.state("desk"), running.reason("desk")) == (PluginState.STARTED, "")


async def test_a_commit_that_is_cancelled_takes_everything_back(desk: Desk) -> None:
    prepared = await desk.hosting.prepare(section("two", hang="start channel"), desk=UNIT)
    commit = asyncio.ensure_future(prepared.commit())
    await desk.until_told("two: start channel")

    commit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await commit

    assert desk.told()[-2:] == ["one: start unit", "one: start channel"]
    assert await desk.answer() == "one"


async def test_a_call_that_is_under_way_ends_on_the_old_instance_and_the_next_is_the_new_ones(desk: Desk) -> None:
    desk.may_end.clear()
    first = asyncio.ensure_future(desk.answer())
    await desk.until_told("one: tool")

    await desk.hosting.apply(section("two"), desk=UNIT)

    # Only its channel had to go at once.
    assert desk.told() == ["one: tool", "one: stop channel", "two: start unit", "two: start channel"]
    second = asyncio.ensure_future(desk.answer())
    await desk.until_told("two: tool")
    desk.may_end.set()
    assert [await first, await second] == ["one", "two"]
    await desk.until_told("one: stop unit")


async def test_of_replaced_instances_on_which_calls_hang_the_newest_few_are_kept(desk: Desk) -> None:
    desk.may_end.clear()
    calls = []
    words = ["one", *(f"number-{number}" for number in range(MOST_KEPT + 2))]
    for word, following in pairwise(words):
        calls.append(asyncio.ensure_future(desk.answer()))
        await desk.until_told(f"{word}: tool")
        await desk.hosting.apply(section(following), desk=UNIT)

    await desk.until_told("number-0: stop unit")
    ended = [line for line in desk.told() if line.endswith(": stop unit")]
    assert ended == ["one: stop unit", "number-0: stop unit"]
    desk.may_end.set()
    assert (await asyncio.gather(*calls))[2:] == words[2:-1]


async def test_who_calls_while_an_instance_is_replaced_waits_for_the_new_one(desk: Desk) -> None:
    prepared = await desk.hosting.prepare(section("two", hang="start unit"), desk=UNIT)
    commit = asyncio.ensure_future(prepared.commit())
    await desk.until_told("two: start unit")

    waiting = asyncio.ensure_future(desk.answer())
    sending = asyncio.ensure_future(desk.host.channels.send(MESSAGE))
    with pytest.raises(NotApplied):
        await commit

    # It was taken back: the old one answers.
    assert await waiting == "one"
    assert (await sending).message_ids == ("one",)


async def test_a_channel_that_is_removed_is_stopped_within_a_second_though_it_still_sends(desk: Desk) -> None:
    desk.may_end.clear()
    sending = asyncio.ensure_future(desk.host.channels.send(MESSAGE))
    await desk.until_told("one: send")

    async with asyncio.timeout(1):
        await desk.hosting.apply(section(enabled=False), desk=UNIT)

    assert desk.told()[:2] == ["one: send", "one: stop channel"]
    desk.may_end.set()
    assert (await sending).message_ids == ("one",)


async def test_a_channel_is_asked_to_stop_also_where_the_loop_was_held_up_until_its_second_was_over(desk: Desk) -> None:
    desk.may_end.clear()
    sending = asyncio.ensure_future(desk.host.channels.send(MESSAGE))
    await desk.until_told("one: send")
    prepared = await desk.hosting.prepare(section(enabled=False), desk=UNIT)

    asyncio.get_running_loop().call_later(CLOSE_SECONDS / 4, time.sleep, CLOSE_SECONDS)
    await prepared.commit()

    assert desk.told()[:2] == ["one: send", "one: stop channel"]
    desk.may_end.set()
    await sending


async def test_a_plugin_whose_own_method_has_a_name_of_the_hosts_fails_and_keeps_nobody_waiting(
    distributions: Distributions, hosting: Callable[..., Hosting]
) -> None:
    revive = "    def revive(self, somebody): pass\n\n    async def step"
    distributions.add(
        "desk",
        DESK.replace("self.desk, self.name = desk, name", "self.desk, self.name, self.revive = desk, name, desk.revive").replace(
            "    async def step", revive
        ),
    )
    running = hosting({**section(), "channels": {}}, services={list: [], asyncio.Event: asyncio.Event()})
    await running.run()

    assert running.state("desk") is PluginState.FAILED
    assert "start of unit Part raised TypeError" in running.reason("desk")


async def test_one_that_is_not_ready_is_brought_about_and_said(distributions: Distributions, hosting: Callable[..., Hosting]) -> None:
    distributions.add("desk", DESK.replace("self.fail_if(what)", "if self.word == 'two' and 'unit' in what: raise NotReady('no line')"))
    running = hosting({**section(), "channels": {}}, services={list: [], asyncio.Event: asyncio.Event()})
    await running.run()

    (result,) = await running.apply(section("two"), desk=UNIT)

    assert result.error == "unit Part is not ready: no line; it is tried again"


async def test_what_provides_services_is_never_replaced(distributions: Distributions, hosting: Callable[..., Hosting]) -> None:
    source = DESK.replace("registrar.add_unit(", "registrar.provide(dict, {}); registrar.add_unit(")
    distributions.add("desk", source)
    running = hosting({**section(), "channels": {}}, services={list: [], asyncio.Event: asyncio.Event()})
    await running.run()

    assert running.host.fixed("desk") == "it provides dict, which others hold"
    with pytest.raises(NotApplied, match="desk: it provides dict, which others hold; restart the gateway"):
        await running.prepare(section("two"), desk=UNIT)
    with pytest.raises(NotApplied, match="restart the gateway"):
        await running.prepare(section(enabled=False))
    await running.apply(section("two"), desk=HOT)


async def test_a_plugin_that_starts_while_the_gateway_runs_gets_its_tables(
    distributions: Distributions, hosting: Callable[..., Hosting]
) -> None:
    make = "lambda database: database.execute('CREATE TABLE desk_x (y)')"
    steps = f"registrar.add_migrations([Migration(number=1, name='make', apply={make})])"
    distributions.add("desk", DESK.replace("registrar.add_unit(", f"{steps}; registrar.add_unit("))
    running = hosting({**section(enabled=False), "channels": {}}, services={list: [], asyncio.Event: asyncio.Event()})
    await running.run()

    await running.apply(section())
    await running.apply(section("two"), desk=UNIT)

    assert await running.store.read(lambda connection: connection.execute("SELECT count(*) FROM desk_x").fetchone()) == (0,)


async def test_a_change_that_waits_for_its_turn_goes_by_what_is_in_force_then(desk: Desk) -> None:
    first = await desk.hosting.prepare(section("two"), desk=UNIT)
    seen: list[str] = []

    def want(now: InForce) -> Wanted:
        seen.append(str(now.config.plugins.entries["desk"].config["word"]))
        return Wanted(config=now.config, discovery=now.discovery)

    second = asyncio.ensure_future(desk.host.prepare_all(want))
    await first.commit()
    await (await second).commit()

    assert seen == ["two"]
    assert await desk.answer() == "two"
