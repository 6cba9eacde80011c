"""Messages of one session get their turns in the order in which they were taken in, whenever the lane becomes free (P1)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

from openclaw_kernel.api import Ingress
from openclaw_kernel.store.errors import StoreFull
from tests.plugins.conversation.harness import Gate, Harness, said, until


class LateAnswers:
    """Lets writes come to disk at once, and while it is `held` lets nobody know."""

    def __init__(self, harness: Harness) -> None:
        self._write = harness.store.write
        self.held = False
        self.committed = 0
        self.released = asyncio.Event()
        harness.store.write = self.write  # type: ignore[method-assign]

    async def write(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        held = self.held
        answer = await self._write(work)
        if held:
            self.committed += 1
            await self.released.wait()
        return answer


async def test_a_message_does_not_overtake_one_that_is_being_written_while_the_lane_becomes_free(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("first", "k1")
    await gate.running("first")
    late = LateAnswers(harness)
    late.held = True
    second = asyncio.ensure_future(harness.send("second", "k2"))
    await until(lambda: late.committed == 1, "the write of the second")
    late.held = False
    for text in ("first", "second", "third"):
        gate.let(text)
    await harness.events.terminal("k1")
    late.held = True
    third = asyncio.ensure_future(harness.send("third", "k3"))
    await until(lambda: late.committed == 2, "the write of the third")
    late.held = False
    late.released.set()
    await asyncio.gather(second, third)
    for key in ("k2", "k3"):
        await harness.events.terminal(key)
    assert [said(turn) for turn in harness.runtime.turns] == ["first", "second", "third"]


async def test_a_turn_that_has_begun_does_not_go_back_to_the_queue(harness: Harness) -> None:
    """P5: that it waits is written late, for the store failed; after a crash the next process must not begin it a second time."""
    gate = Gate()
    harness.runtime.script = gate
    await harness.receive("first", "1")
    await gate.running("first")
    write = harness.store.write
    refused: list[str] = []

    async def fail_while_it_waits(work: Callable[[sqlite3.Connection], Any]) -> Any:
        if "_line_up" in work.__qualname__ and "second" not in gate.started:
            refused.append(work.__qualname__)
            gate.let("first")
            raise StoreFull("the disk is full")
        return await write(work)

    harness.store.write = fail_while_it_waits  # type: ignore[method-assign]
    await harness.receive("second", "2")
    await gate.running("second")
    assert refused
    await harness.services[Ingress].intake.drain()
    await harness.crash()
    gate.let("second")
    await harness.start()
    assert [state for _, state, _ in await harness.settled()] == ["answered", "answered"]
    assert await harness.rows("SELECT inbound_id, count(*) FROM conversation_runs GROUP BY inbound_id") == [(1, 1), (2, 1)]
    assert await harness.texts("agent:main:telegram:direct:7") == [
        ("user", "first"),
        ("assistant", "done: first"),
        ("user", "second"),
        ("assistant", "done: second"),
    ]
