"""Messages of one session get their turns in the order in which they were taken in, whenever the lane becomes free (P1)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

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
