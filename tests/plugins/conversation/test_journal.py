"""The journal of a turn: what is on disk when, and that nothing begins in a turn that is over."""

from __future__ import annotations

import asyncio
import time

import pytest

from openclaw_kernel.api import (
    AssistantMessage,
    RetryClass,
    Step,
    StepBegun,
    ToolCall,
    ToolResultMessage,
    Turn,
    TurnClosed,
    TurnResult,
    TurnSink,
    Usage,
)
from tests.plugins.conversation.harness import Gate, Harness, say, until

STEPS = "SELECT kind, name, state, call_id, retry_class FROM conversation_steps ORDER BY number"


def begun(name: str, retry_class: RetryClass, call_id: str | None = "c1") -> StepBegun:
    return StepBegun(kind="tool", name=name, started_ms=1, retry_class=retry_class, call_id=call_id, arguments={"a": 1})


def ended(name: str, retry_class: RetryClass, error: str | None = None) -> Step:
    return Step(kind="tool", name=name, started_ms=1, ended_ms=2, error=error, retry_class=retry_class.value, call_id="c1")


async def test_a_call_with_effects_is_on_disk_before_it_begins(harness: Harness) -> None:
    """P4: also the row of the model call before it."""
    seen: list[list[tuple[object, ...]]] = []

    async def script(turn: Turn, sink: TurnSink) -> TurnResult:
        asking = StepBegun(kind="model", name="echo/echo-1", started_ms=1, retry_class=RetryClass.PURE)
        number = await sink.begin_step(asking)
        await sink.end_step(number, Step(kind="model", name="echo/echo-1", started_ms=1, ended_ms=2, usage=Usage(output_tokens=3)))
        await sink.record(AssistantMessage(content=(ToolCall("c1", "shell", {"a": 1}),)))
        number = await sink.begin_step(begun("shell", RetryClass.SIDE_EFFECTING))
        seen.append(await harness.rows(STEPS))
        await sink.end_step(number, ended("shell", RetryClass.SIDE_EFFECTING))
        await sink.record(ToolResultMessage(call_id="c1", name="shell", text="done"))
        seen.append(await harness.rows(STEPS))
        return TurnResult(status="ok", text="done")

    harness.runtime.script = script
    await harness.ask("work", "k1")
    asked = ("model", "echo/echo-1", "done", None, "pure")
    assert seen == [
        [asked, ("tool", "shell", "running", "c1", "side-effecting")],
        [asked, ("tool", "shell", "done", "c1", "side-effecting")],
    ]


async def test_a_harmless_call_is_written_down_while_it_lasts_and_waits_for_no_disk(harness: Harness) -> None:
    gate = asyncio.Event()

    async def script(turn: Turn, sink: TurnSink) -> TurnResult:
        number = await sink.begin_step(begun("fetch", RetryClass.PURE))
        await gate.wait()
        await sink.end_step(number, ended("fetch", RetryClass.PURE, "no"))
        return TurnResult(status="ok", text="done")

    harness.runtime.script = script
    await harness.send("work", "k1")

    async def states() -> list[tuple[object, ...]]:
        return await harness.rows("SELECT state FROM conversation_steps")

    await until(states)
    assert await states() == [("running",)]
    gate.set()
    await harness.events.terminal("k1")
    assert await harness.rows("SELECT state, error, ended_ms FROM conversation_steps") == [("failed", "no", 2)]


async def test_a_tool_that_ignores_its_end_starts_no_further_call(harness: Harness) -> None:
    """P15: whatever it is that goes on."""
    refused: list[str] = []
    working, finished = asyncio.Event(), asyncio.Event()

    async def stubborn(turn: Turn, sink: TurnSink) -> TurnResult:
        await sink.begin_step(begun("shell", RetryClass.SIDE_EFFECTING))
        working.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            for retry_class in RetryClass:
                try:
                    await sink.begin_step(begun("shell", retry_class))
                except TurnClosed:
                    refused.append(retry_class)
            finished.set()
        return TurnResult(status="ok", text="done")

    harness.runtime.script = stubborn
    await harness.send("work", "k1")
    await working.wait()
    began = time.monotonic()
    assert (await harness.call("chat.abort", None, sessionKey="main"))["runIds"] == ["k1"]
    await finished.wait()
    assert time.monotonic() - began < 1.0
    assert refused == list(RetryClass)
    assert (await harness.events.terminal("k1"))["state"] == "aborted"
    assert await harness.rows("SELECT state FROM conversation_steps") == [("interrupted",)]


async def test_a_stop_that_is_only_on_disk_holds_too(harness: Harness) -> None:
    """P15: the row decides, not what a process remembers."""

    async def script(turn: Turn, sink: TurnSink) -> TurnResult:
        await harness.store.write(lambda connection: connection.execute("UPDATE conversation_inbound SET stop_ms = 1"))
        with pytest.raises(TurnClosed):
            await sink.begin_step(begun("shell", RetryClass.SIDE_EFFECTING))
        await sink.begin_step(begun("shell", RetryClass.SIDE_EFFECTING))
        raise AssertionError

    harness.runtime.script = script
    assert (await harness.ask("work", "k1"))["state"] == "aborted"
    assert [state for _, state, _ in await harness.settled()] == ["suppressed"]
    assert await harness.rows(STEPS) == []


@pytest.mark.parametrize("queued", [False, True])
async def test_a_stop_is_on_disk_when_it_is_acknowledged(harness: Harness, queued: bool) -> None:
    """P15: for what runs and for what waits."""
    gate = Gate(stubborn=True)
    harness.runtime.script = gate
    await harness.send("work", "k1")
    await gate.running("work")
    await harness.send("more", "k2")
    run = "k2" if queued else "k1"
    await harness.call("chat.abort", None, sessionKey="main", runId=run)
    stopped = await harness.rows("SELECT run_id FROM conversation_inbound WHERE stop_ms IS NOT NULL OR state = 'suppressed'")
    assert stopped == [(run,)]
    await harness.crash()
    gate.released.set()
    harness.runtime.script = say
    await harness.start()
    states = {name: (state, reason) for name, state, reason in await harness.settled()}
    assert states[f"token:{run}"] == ("suppressed", "stopped")
    assert set(states.values()) == {("suppressed", "stopped"), ("answered", None)}


async def test_cleaning_that_is_cut_off_leaves_no_steps_without_their_run(harness: Harness) -> None:
    """P4: the number of a run is given again, and what is left of another journal would hide that a call began."""
    from openclaw_plugins.conversation.runs import forget_old_runs

    async def script(turn: Turn, sink: TurnSink) -> TurnResult:
        for _ in range(5):
            await sink.record_step(ended("shell", RetryClass.SIDE_EFFECTING))
        return TurnResult(status="ok", text="done")

    harness.runtime.script = script
    for key in ("k1", "k2"):
        await harness.ask("work", key)
    more = True
    while more:
        more = await harness.store.write(lambda connection: forget_old_runs(connection, before_ms=harness.now_ms() + 1, limit=3))
        assert await harness.rows("SELECT count(*) FROM conversation_steps WHERE run NOT IN (SELECT id FROM conversation_runs)") == [(0,)]
    assert await harness.rows("SELECT count(*) FROM conversation_runs") == [(0,)]
