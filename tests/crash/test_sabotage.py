"""The harness finds what it is there to find: a gateway with a fault put in does not pass."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.crash.block import Block, Kill
from tests.crash.load import FRIENDS, Said
from tests.crash.model import Order
from tests.crash.soak import Grounds, grounds
from tests.support.gateway import GatewayFailed

CHAT = FRIENDS[0]
NOW = Kill(after=0.0)


@pytest.fixture
async def shared(tmp_path: Path) -> AsyncIterator[Grounds]:
    async with grounds(tmp_path, 1) as made:
        yield made


def order(number: int, **options: object) -> Said:
    wanted = Order(f"t0001{number:03}", **options)  # type: ignore[arg-type]
    return Said("order", CHAT, wanted.text(), wanted)


async def told_then_killed(block: Block) -> None:
    """Killed once Telegram was told that we have the message."""
    await block.start()
    said = order(1)
    await block.say([said])
    await block.telegram.wait(confirmed=said.update_id)
    await block.gateway.kill()


async def seen_then_killed(block: Block) -> None:
    """Killed while the answer is seen and we have not heard so."""
    await block.start()
    await block.telegram.fault("sendMessage", "hang", after_accept=True, times=1, chat_id=CHAT)
    await block.say([order(1)])
    await block.telegram.wait(chat_id=CHAT, contains="end of t0001001")
    await block.gateway.kill()


async def running_then_killed(block: Block) -> None:
    """Killed while the model speaks, with another message behind it."""
    await block.start()
    await block.say([order(1, words=40, pace=50), order(2)])
    await block.model.requests(count=1)
    await block.gateway.kill()


async def at_work_then_killed(block: Block) -> None:
    """Killed while a tool is at work that has left its effect."""
    await block.start()
    await block.say([order(1, tools=("append",), hold=1500)])
    async with asyncio.timeout(20):
        while not block.effects.exists():  # noqa: ASYNC110 - a file has no event to wait for
            await asyncio.sleep(0.02)
    await block.gateway.kill()


async def stopped_then_killed(block: Block) -> None:
    """Killed once the person was told that it is stopped, and long enough that going on is no delay of the stop."""
    await block.start()
    await block.say([order(1, words=40, pace=100)])
    await block.telegram.wait(chat_id=CHAT, contains="answer to")
    await block.say([Said("stop", CHAT, "/stop")])
    await block.telegram.wait(chat_id=CHAT, contains="Stopped.")
    await block.gateway.kill()


async def test_a_message_that_is_acknowledged_before_it_is_kept_is_missed(shared: Grounds) -> None:
    for sabotage, found in ((None, False), ("acknowledge early", True)):
        async with shared.block(1 + found, sabotage=sabotage) as block:
            await told_then_killed(block)
            lines = await block.kept()
        assert any("the ledger has it 0 times" in line for line in lines) == found, lines


async def test_a_start_that_hangs_is_no_death_at_a_point(shared: Grounds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.crash.block.START_SECONDS", 0.01)
    async with shared.block(1) as block:
        with pytest.raises(GatewayFailed, match="not ready"):
            await block.start(Kill(at="nowhere"))
    assert block.outcome.died_at == []


async def test_an_answer_that_is_sent_again_is_seen_twice(shared: Grounds) -> None:
    async with shared.block(1, sabotage="send again", streaming="off") as block:
        await seen_then_killed(block)
        await block.settle()
    assert any("the answer to t0001001 is seen 2 times" in line for line in block.outcome.violations), block.outcome


async def test_an_answer_in_doubt_is_seen_once_and_its_reader_is_told(shared: Grounds) -> None:
    async with shared.block(1, streaming="off") as block:
        await seen_then_killed(block)
        await block.settle()
    assert block.outcome.violations == []
    assert block.outcome.deliveries == {"sent": 1, "unknown_after_send": 1}


async def test_what_is_not_taken_up_after_a_crash_does_not_end(shared: Grounds) -> None:
    async with shared.block(1, sabotage="forget recovery", quiet_seconds=3) as block:
        await running_then_killed(block)
        await block.settle()
    assert any("does not come to rest" in line for line in block.outcome.violations), block.outcome
    assert any("has not ended" in line for line in block.outcome.violations), block.outcome


async def test_a_turn_that_is_given_up_for_nothing_is_noticed(shared: Grounds) -> None:
    async with shared.block(1, sabotage="give up") as block:
        await running_then_killed(block)
        await block.settle()
    assert any("was begun 1 times and given up" in line for line in block.outcome.violations), block.outcome


async def test_what_is_taken_up_after_a_crash_ends(shared: Grounds) -> None:
    async with shared.block(1) as block:
        await running_then_killed(block)
        await block.settle()
    assert block.outcome.violations == []


async def test_an_effect_that_is_repeated_is_counted(shared: Grounds) -> None:
    async with shared.block(1, sabotage="repeat effects") as block:
        await at_work_then_killed(block)
        await block.settle()
    assert any("the side-effecting call 0 of t0001001 ran 2 times" in line for line in block.outcome.violations), block.outcome


async def test_an_effect_that_may_have_been_is_not_repeated(shared: Grounds) -> None:
    async with shared.block(1) as block:
        await at_work_then_killed(block)
        await block.settle()
    assert block.outcome.violations == []
    assert block.outcome.ends == {"dead_lettered": 1}


async def test_a_stop_that_is_forgotten_is_noticed(shared: Grounds) -> None:
    async with shared.block(1, sabotage="forget stops") as block:
        await stopped_then_killed(block)
        await block.settle()
    assert any("after its stop was acknowledged" in line for line in block.outcome.violations), block.outcome


async def test_a_stop_that_is_kept_holds_over_the_crash(shared: Grounds) -> None:
    async with shared.block(1) as block:
        await stopped_then_killed(block)
        await block.settle()
    assert block.outcome.violations == []
    assert block.outcome.ends == {"answered": 1, "suppressed": 1}
