"""The next process: what waited goes on, what ran goes on or is ended visibly, what was sent is not sent again."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from openclaw_kernel.api import (
    AssistantMessage,
    OutboundMessage,
    RetryClass,
    Sessions,
    Step,
    StepBegun,
    Text,
    ToolCall,
    ToolResultMessage,
    Turn,
    TurnResult,
    TurnSink,
)
from tests.plugins.conversation.harness import Gate, Harness, running, said, say, until


@pytest.mark.parametrize("how", ["stop", "crash"])
async def test_a_turn_that_ran_goes_on_and_what_waited_is_answered_after_it(harness: Harness, how: str) -> None:
    """P1, P4: one turn and one answer for each."""
    gate = Gate()
    harness.runtime.script = gate
    await harness.receive("running", "1")
    await gate.running("running")
    await harness.receive("waiting", "2")
    await until(lambda: _state(harness, "2", "queued"))
    harness.settings = harness.settings.model_copy(update={"drain_seconds": 0.0})
    harness.runtime.script = say
    await getattr(harness, how)()
    assert [state for _, state, _ in await _on_disk(harness)] == ["running", "queued"]
    await harness.start()
    await until(lambda: len(harness.channels.sent) == 2)
    assert harness.channels.texts() == ["you said: running", "you said: waiting"]
    assert [state for _, state, _ in await harness.settled()] == ["answered", "answered"]
    assert gate.started == ["running"]
    assert await harness.rows("SELECT state, resumes FROM conversation_runs ORDER BY id") == [("ok", 1), ("ok", 0)]
    first = harness.runtime.turns[0]
    again = harness.runtime.turns[1]
    assert (again.run_id, again.message, again.history, again.resumed) == (first.run_id, first.message, (), ())
    await harness.restart()
    assert len(harness.channels.sent) == 2


async def _on_disk(harness: Harness) -> list[tuple[str, str, str | None]]:
    with closing(sqlite3.connect(harness.home / "state.sqlite")) as connection:
        return connection.execute("SELECT message_id, state, reason FROM conversation_inbound ORDER BY id").fetchall()


async def _state(harness: Harness, message_id: str, state: str) -> bool:
    return any(found[:2] == (message_id, state) for found in await harness.states())


async def working(turn: Turn, sink: TurnSink, *, retry_class: RetryClass, tool: str = "shell") -> TurnResult:
    """Say something, call a tool, and hang in it."""
    call = ToolCall("c1", tool, {"of": said(turn)})
    await sink.record(AssistantMessage(content=(Text("I look."), call), stop_reason="tool_calls"))
    begun = StepBegun(kind="tool", name=tool, started_ms=1, retry_class=retry_class, call_id="c1", arguments=call.arguments)
    await sink.begin_step(begun)
    sink.tool("start", call_id="c1", name=tool, arguments=call.arguments)
    await asyncio.Event().wait()
    raise AssertionError


async def in_the_tool(harness: Harness, count: int = 1) -> None:
    await until(lambda: len(harness.events.of("session.tool")) == count)


async def test_a_call_that_may_have_had_an_effect_is_not_made_again_and_is_named(harness: Harness) -> None:
    """P4: the sender is told which call it was, and so is a client."""
    harness.runtime.script = partial(working, retry_class=RetryClass.SIDE_EFFECTING)
    await harness.receive("work", "1")
    await harness.send("work", "k1")
    await in_the_tool(harness, 2)
    await harness.crash()
    await harness.start()
    states = await harness.settled()
    assert [state for _, state, _ in states] == ["dead_lettered", "dead_lettered"]
    assert all("the tool shell was at work" in (reason or "") for _, _, reason in states)
    await until(lambda: harness.channels.sent)
    assert "may or may not have taken effect" in harness.channels.texts()[0]
    assert len(harness.runtime.turns) == 2
    waited = await harness.call("agent.wait", None, runId="k1", timeoutMs=0)
    assert waited["status"] == "error"
    history = (await harness.call("chat.history", None, sessionKey="main"))["messages"]
    assert [message["role"] for message in history] == ["user", "assistant", "toolResult", "assistant"]
    assert "the tool shell" in history[-1]["errorMessage"]
    assert (await harness.send("work", "k1"))["status"] == "started"
    assert len(harness.runtime.turns) == 2
    steps = await harness.rows("SELECT name, state, call_id, attempt, ended_ms > 0 FROM conversation_steps ORDER BY id")
    assert steps == [("shell", "interrupted", "c1", 1, 1)] * 2


@pytest.mark.parametrize("retry_class", [RetryClass.PURE, RetryClass.IDEMPOTENT])
async def test_a_call_that_may_be_made_again_is_made_again(harness: Harness, retry_class: RetryClass) -> None:
    """P4: what was recorded is kept, one answer comes, and a client sees one end of the same run."""
    harness.runtime.script = partial(working, retry_class=retry_class, tool="fetch")
    await harness.send("work", "k1")
    await in_the_tool(harness)
    await harness.crash()

    async def go_on(turn: Turn, sink: TurnSink) -> TurnResult:
        assert [message.role for message in turn.resumed] == ["assistant"]
        number = await sink.begin_step(StepBegun(kind="tool", name="fetch", started_ms=3, retry_class=retry_class, call_id="c1"))
        await sink.end_step(number, Step(kind="tool", name="fetch", started_ms=3, ended_ms=4, call_id="c1"))
        await sink.record(ToolResultMessage(call_id="c1", name="fetch", text="found"))
        sink.text("\n\nIt is found.")
        return TurnResult(status="ok", text="I look.\n\nIt is found.", stop_reason="stop")

    harness.runtime.script = go_on
    await harness.start()
    final = await harness.events.terminal("k1")
    assert final["message"]["content"][0]["text"] == "I look.\n\nIt is found."
    delta = harness.events.of("chat", runId="k1", state="delta")[-1]
    assert delta["message"]["content"][0]["text"] == "I look.\n\nIt is found."
    assert (await harness.call("agent.wait", None, runId="k1", timeoutMs=0))["status"] == "ok"
    history = (await harness.call("chat.history", None, sessionKey="main"))["messages"]
    assert [message["role"] for message in history] == ["user", "assistant", "toolResult", "assistant"]
    steps = await harness.rows("SELECT name, state, attempt FROM conversation_steps ORDER BY number")
    assert ("fetch", "done", 2) in steps
    assert {state for _, state, _ in steps} <= {"done", "interrupted"}


async def test_a_turn_that_ends_the_process_every_time_is_given_up_after_two_resumes(harness: Harness) -> None:
    """P4: a message that is what kills the gateway does not kill it for ever."""
    gate = Gate()
    harness.runtime.script = gate
    await harness.receive("poison", "1")
    for times in range(3):
        await until(lambda: len(gate.started) == times + 1)  # noqa: B023 - it is waited for in this round
        await harness.crash()
        await harness.start()
    states = await harness.settled()
    assert states[0][1] == "dead_lettered"
    assert "stopped 3 times" in (states[0][2] or "")
    assert gate.started == ["poison"] * 3
    await until(lambda: harness.channels.sent)
    assert "stopped 3 times" in harness.channels.texts()[0]


async def test_a_stop_in_order_is_no_attempt(harness: Harness) -> None:
    """P4: restarts of somebody who updates the gateway do not make a turn look like one that ends it."""
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("work", "k1")
    for count in range(1, 6):
        await until(lambda count=count: len(gate.started) == count)  # type: ignore[misc]
        await harness.restart()
    await until(lambda: len(gate.started) == 6)
    gate.let("work")
    assert (await harness.events.terminal("k1"))["state"] == "final"
    assert await harness.rows("SELECT state, resumes FROM conversation_runs") == [("ok", 5)]


async def test_a_turn_that_waits_to_go_on_can_be_stopped(harness: Harness) -> None:
    """P15: before its turn has gone on, and for good."""
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("work", "k1")
    await gate.running("work")
    await harness.crash()
    harness.gateway.ready = False
    await harness.start()
    assert (await harness.call("chat.abort", None, sessionKey="main"))["runIds"] == ["k1"]
    await harness.crash()
    harness.gateway.ready = True
    await harness.start()
    assert await harness.settled() == [("token:k1", "suppressed", "stopped")]
    assert gate.started == ["work"]


async def test_a_message_that_was_only_accepted_is_decided_about(harness: Harness) -> None:
    harness.gateway.ready = False
    await harness.restart()
    assert await harness.receive("hello", "1")
    assert await harness.states() == [("1", "accepted", None)]
    await harness.crash()
    harness.gateway.ready = True
    await harness.start()
    await until(lambda: harness.channels.sent)
    assert harness.channels.texts() == ["you said: hello"]


async def test_a_broken_tool_call_does_not_spoil_the_session(harness: Harness) -> None:
    reached = False

    async def tool(turn: Turn, sink: TurnSink) -> TurnResult:
        nonlocal reached
        await sink.record(AssistantMessage(content=(ToolCall("c1", "fetch", {}),)))
        reached = True
        await Gate()(turn, sink)
        raise AssertionError

    harness.runtime.script = tool
    await harness.send("work", "k1")
    await until(lambda: reached)
    await harness.crash()
    harness.runtime.script = say
    await harness.start()
    await harness.ask("again", "k2")
    history = harness.runtime.turns[-1].history
    assert [message.role for message in history] == ["user", "assistant", "toolResult", "assistant"]
    assert history[2].to_json()["toolCallId"] == "c1"


async def test_an_unsent_answer_goes_out_and_one_that_was_being_sent_does_not(harness: Harness) -> None:
    sending = False

    async def never(message: OutboundMessage) -> None:
        nonlocal sending
        sending = True
        await asyncio.Event().wait()

    harness.channels.script = never
    await harness.receive("one", "1")
    await until(lambda: sending)
    await harness.receive("two", "2")
    await harness.settled()
    await harness.crash()
    harness.channels.script = None
    await harness.start()
    await until(lambda: harness.channels.sent)
    # The one who was being answered is told, and gets no second copy that may be the same.
    await until(lambda: len(harness.channels.sent) == 2)
    assert "may not have reached you" in harness.channels.texts()[0]
    assert harness.channels.texts()[1] == "you said: two"

    async def states() -> bool:
        found = await harness.rows("SELECT state FROM conversation_outbox ORDER BY id")
        return found == [("unknown_after_send",), ("sent",), ("sent",)]

    await until(states)
    await harness.restart()
    assert len(harness.channels.sent) == 2


async def test_a_channel_that_drops_repeats_gets_the_message_again(harness: Harness) -> None:
    harness.channels.idempotent = {"telegram"}

    async def never(message: OutboundMessage) -> None:
        await asyncio.Event().wait()

    harness.channels.script = never
    await harness.receive("one", "1")
    await until(lambda: harness.channels.attempts)
    await harness.crash()
    harness.channels.script = None
    await harness.start()
    await until(lambda: harness.channels.sent)
    first, second = harness.channels.attempts
    assert first.outbox_id == second.outbox_id


async def test_nothing_is_answered_before_the_gateway_is_ready(tmp_path: Path) -> None:
    async with running(tmp_path) as harness:
        harness.gateway.ready = False
        await harness.restart()
        await harness.send("hello", "k1")
        assert harness.runtime.turns == []
        harness.gateway.ready = True
        assert (await harness.events.terminal("k1"))["state"] == "final"


async def test_a_turn_whose_messages_cannot_be_read_ends_with_its_own_row(harness: Harness) -> None:
    """P1, P10: no run stays open for ever beside the one that says how it ended."""
    harness.runtime.script = partial(working, retry_class=RetryClass.SIDE_EFFECTING)
    await harness.send("work", "k1")
    await in_the_tool(harness)

    def spoil(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE conversation_messages SET body = '{\"role\": \"nobody\"}' WHERE role = 'assistant'")

    await harness.store.write(spoil)
    await harness.restart()
    ((_, state, reason),) = await harness.settled()
    assert state == "dead_lettered"
    assert "the tool shell was at work" in (reason or "")
    assert await harness.rows("SELECT state FROM conversation_runs") == [("interrupted",)]
    assert await harness.rows("SELECT DISTINCT state FROM conversation_steps WHERE state = 'running'") == []
    harness.runtime.script = say
    assert (await harness.ask("go on", "k9"))["state"] == "final"


@pytest.mark.parametrize("found_by", ["the next start", "the sweeper"])
async def test_a_message_that_cannot_be_read_takes_its_open_turn_with_it(harness: Harness, found_by: str) -> None:
    """P1: nothing stays open in any table."""
    harness.runtime.script = partial(working, retry_class=RetryClass.SIDE_EFFECTING)
    await harness.send("work", "k1")
    await in_the_tool(harness)

    def spoil(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE conversation_inbound SET body = '{'")

    if found_by == "the next start":
        await harness.store.write(spoil)
        await harness.restart()
    else:
        await harness.crash()
        with closing(sqlite3.connect(harness.home / "state.sqlite")) as connection:
            connection.execute("UPDATE conversation_inbound SET state = 'answered'")
            connection.commit()
        await harness.start()
        await harness.store.write(spoil)
        await harness.store.write(
            lambda connection: connection.execute("UPDATE conversation_inbound SET state = 'running', updated_ms = 1")
        )
        await harness.services[Sessions].clean()
    assert [state for _, state, _ in await harness.settled()] == ["dead_lettered"]
    assert await harness.rows("SELECT state, ended_ms > 0 FROM conversation_runs") == [("interrupted", 1)]
    assert await harness.rows("SELECT state FROM conversation_steps WHERE kind = 'tool'") == [("interrupted",)]
