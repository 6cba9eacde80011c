"""The next process: what waited goes on, what ran is ended visibly, what was sent is not sent again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from openclaw_kernel.api import AssistantMessage, OutboundMessage, ToolCall, Turn, TurnResult, TurnSink
from tests.plugins.conversation.harness import Gate, Harness, running, say, until


@pytest.mark.parametrize("how", ["stop", "crash"])
async def test_a_turn_that_ran_is_ended_and_what_waited_is_answered(harness: Harness, how: str) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.receive("running", "1")
    await gate.running("running")
    await harness.receive("waiting", "2")
    await until(lambda: _state(harness, "2", "queued"))
    harness.runtime.script = say
    await getattr(harness, how)()
    await harness.start()
    await until(lambda: len(harness.channels.sent) == 2)
    assert "interrupted" in harness.channels.texts()[0]
    assert harness.channels.texts()[1] == "you said: waiting"
    states = await harness.settled()
    assert [state for _, state, _ in states] == ["dead_lettered", "answered"]
    assert gate.started == ["running"]
    runs = await harness.rows("SELECT state, count(*) FROM conversation_runs GROUP BY state ORDER BY state")
    assert runs == [("interrupted", 1), ("ok", 1)]
    await harness.restart()
    assert len(harness.channels.sent) == 2


async def _state(harness: Harness, message_id: str, state: str) -> bool:
    return any(found[:2] == (message_id, state) for found in await harness.states())


async def test_a_client_finds_its_interrupted_turn_in_the_history(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("work", "k1")
    await gate.running("work")
    await harness.crash()
    await harness.start()
    history = (await harness.call("chat.history", None, sessionKey="main"))["messages"]
    assert "interrupted" in history[-1]["errorMessage"]
    waited = await harness.call("agent.wait", None, runId="k1", timeoutMs=0)
    assert waited["status"] == "error"
    assert (await harness.send("work", "k1"))["status"] == "started"
    assert gate.started == ["work"]
    row = (await harness.call("sessions.list"))["sessions"][0]
    assert row["status"] == "failed"


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
    assert [message.role for message in history] == ["user", "assistant", "toolResult"]
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
