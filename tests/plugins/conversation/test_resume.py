"""A process that dies while it takes up what another one left: around each of its writes, then once more, and all the same."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from openclaw_kernel.api import (
    AssistantMessage,
    Attachment,
    RetryClass,
    Step,
    StepBegun,
    Text,
    ToolCall,
    ToolResultMessage,
    Turn,
    TurnResult,
    TurnSink,
)
from tests.plugins.conversation.harness import Harness, said, until

PICTURE = Attachment(kind="image", mime_type="image/png", file_name="p.png", content=b"\x89PNG\r\n\x1a\n")


class Worker:
    """A turn of two rounds: a call with effects, then a harmless one, then the answer. It goes on from what is recorded."""

    def __init__(self) -> None:
        self.effects: list[str] = []
        self.hangs = True
        self.turns: list[Turn] = []

    async def __call__(self, turn: Turn, sink: TurnSink) -> TurnResult:
        self.turns.append(turn)
        recorded = {message.call_id for message in turn.resumed if isinstance(message, ToolResultMessage)}
        called = {call.id for message in turn.resumed if isinstance(message, AssistantMessage) for call in message.tool_calls}
        for call_id, name, retry_class in (("c1", "pay", RetryClass.SIDE_EFFECTING), ("c2", "look", RetryClass.PURE)):
            call = ToolCall(call_id, name, {})
            if call_id not in called:
                await sink.record(AssistantMessage(content=(Text(f"I {name}."), call), stop_reason="tool_calls"))
            if call_id not in recorded:
                await self._call(turn, sink, call, retry_class)
        return TurnResult(status="ok", text=f"done: {said(turn)}", stop_reason="stop")

    async def _call(self, turn: Turn, sink: TurnSink, call: ToolCall, retry_class: RetryClass) -> None:
        begun = StepBegun(kind="tool", name=call.name, started_ms=1, retry_class=retry_class, call_id=call.id, arguments={})
        number = await sink.begin_step(begun)
        if retry_class is RetryClass.SIDE_EFFECTING:
            self.effects.append(said(turn))
        elif self.hangs:
            await asyncio.Event().wait()
        step = Step(kind="tool", name=call.name, started_ms=1, ended_ms=2, retry_class=retry_class.value, call_id=call.id)
        await sink.end_step(number, step)
        await sink.record(ToolResultMessage(call_id=call.id, name=call.name, text="ok"))


class Death:
    """Lets one write be the last thing that a process does, or does not do any more."""

    def __init__(self, harness: Harness, position: int, *, done: bool) -> None:
        self.count = 0
        self.came = asyncio.Event()
        self._position = position
        self._done = done
        self._write = harness.store.write
        harness.store.write = self.write  # type: ignore[method-assign]

    async def write(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        self.count += 1
        if self.count < self._position:
            return await self._write(work)
        if self.count == self._position and self._done:
            await self._write(work)
        self.came.set()
        return await asyncio.Event().wait()


async def _ended(harness: Harness) -> bool:
    rows = await harness.rows("SELECT count(*) FROM conversation_outbox WHERE state IN ('prepared', 'sending')")
    return rows == [(0,)]


@pytest.mark.parametrize("done", [False, True], ids=["before it", "after it"])
@pytest.mark.parametrize("position", range(1, 15))
async def test_a_resume_that_is_cut_off_around_any_of_its_writes_goes_on(harness: Harness, position: int, done: bool) -> None:
    """P1, P4, P5: what has effects ran once, the files are there, one answer comes, and what waited follows it."""
    worker = Worker()
    harness.runtime.script = worker
    await harness.receive("work", "1", attachments=(PICTURE,))
    await until(lambda: worker.effects)
    await until(lambda: harness.rows("SELECT 1 FROM conversation_messages WHERE role = 'toolResult'"))
    await harness.receive("next", "2")
    await until(lambda: harness.rows("SELECT 1 FROM conversation_inbound WHERE state = 'queued'"))
    await harness.crash()
    worker.hangs = False
    harness.gateway.ready = False
    await harness.start()
    death = Death(harness, position, done=done)
    harness.gateway.ready = True
    async with asyncio.timeout(10):
        await death.came.wait()
    await harness.crash()
    await harness.start()
    (_, first, _), (_, second, reason) = await harness.settled()
    assert first == "answered"
    # Died with a call of the second turn under way, which is not made again.
    assert second == "answered" or "the tool pay was at work" in (reason or "")
    await until(lambda: _ended(harness))
    assert worker.effects in (["work", "next"], ["work"])
    assert worker.effects == ["work", "next"] or second == "dead_lettered"
    assert all(turn.message == worker.turns[0].message for turn in worker.turns if said(turn) == "work")
    texts = harness.channels.texts()
    # What was being sent when the process died may have arrived: it is not sent again, and the person is told.
    told = [text for text in texts if text.startswith("⚠️")]
    answers = [text for text in texts if text.startswith("done")]
    assert answers == [text for text in ("done: work", "done: next") if text in answers]
    assert len(answers) + len(told) >= 2
    assert await harness.rows("SELECT run_id FROM conversation_messages WHERE role = 'user' GROUP BY run_id HAVING count(*) > 1") == []
    assert await harness.rows("SELECT count(*) FROM conversation_runs WHERE ended_ms IS NULL") == [(0,)]
    assert await harness.rows("SELECT count(*) FROM conversation_steps WHERE state = 'running'") == [(0,)]
