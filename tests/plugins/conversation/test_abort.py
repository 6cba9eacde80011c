"""Stopping: within a second, also a runtime that does not listen; the transcript stays whole."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from openclaw_kernel.api import (
    Admission,
    AssistantMessage,
    InvalidRequest,
    Sessions,
    ToolCall,
    Turn,
    TurnResult,
    TurnSink,
    Unavailable,
    Verdict,
)
from tests.plugins.conversation.harness import Gate, Harness, say, until


async def test_an_aborted_turn_keeps_what_was_said(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("work", "k1")
    await gate.running("work")
    answer = await harness.call("chat.abort", None, sessionKey="main")
    assert answer == {"ok": True, "aborted": True, "runIds": ["k1"]}
    aborted = await harness.events.terminal("k1")
    assert aborted["state"] == "aborted"
    assert aborted["message"]["content"][0]["text"] == "thinking about work"
    history = (await harness.call("chat.history", None, sessionKey="main"))["messages"]
    assert history[-1]["stopReason"] == "aborted"
    assert history[-1]["content"][0]["text"] == "thinking about work"
    assert gate.cancelled == ["work"]
    again = await harness.call("chat.abort", None, sessionKey="main")
    assert again == {"ok": True, "aborted": False, "runIds": []}
    row = (await harness.call("sessions.list"))["sessions"][0]
    assert row["status"] == "killed"


async def test_a_runtime_that_ignores_its_cancellation_holds_up_nobody(harness: Harness) -> None:
    gate = Gate(stubborn=True)
    harness.runtime.script = gate
    await harness.send("work", "k1")
    await gate.running("work")
    await harness.send("next", "k2")
    harness.runtime.script = say
    began = time.monotonic()
    # Only the run that is named; the other goes on waiting.
    await harness.call("chat.abort", None, sessionKey="main", runId="k1")
    await harness.events.terminal("k1")
    assert time.monotonic() - began < 0.5
    assert (await harness.events.terminal("k2"))["state"] == "final"
    assert time.monotonic() - began < 1.0
    gate.released.set()
    assert [state for _, state, _ in await harness.settled()] == ["suppressed", "answered"]


async def test_what_comes_after_the_end_changes_nothing(harness: Harness) -> None:
    late = asyncio.Event()
    wrote = asyncio.Event()

    async def stubborn(turn: Turn, sink: TurnSink) -> TurnResult:
        sink.text("partial")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await late.wait()
        sink.text(" and late")
        await sink.record(AssistantMessage(content=()))
        wrote.set()
        return TurnResult(status="ok", text="late")

    harness.runtime.script = stubborn
    await harness.send("work", "k1")
    await harness.events.first("chat", state="delta")
    await harness.call("chat.abort", None, sessionKey="main")
    await harness.events.terminal("k1")
    late.set()
    await wrote.wait()
    assert await harness.texts() == [("user", "work"), ("assistant", "partial")]
    assert len([chat for chat in harness.events.of("chat", runId="k1") if chat["state"] != "delta"]) == 1


async def test_open_tool_calls_are_closed_as_interrupted(harness: Harness) -> None:
    recorded = asyncio.Event()

    async def tool(turn: Turn, sink: TurnSink) -> TurnResult:
        await sink.record(AssistantMessage(content=(ToolCall("c1", "fetch", {}), ToolCall("c2", "fetch", {}))))
        recorded.set()
        await asyncio.Event().wait()
        raise AssertionError

    harness.runtime.script = tool
    await harness.send("work", "k1")
    await recorded.wait()
    await harness.call("chat.abort", None, sessionKey="main")
    await harness.events.terminal("k1")
    history = (await harness.call("chat.history", None, sessionKey="main"))["messages"]
    assert [message["role"] for message in history] == ["user", "assistant", "toolResult", "toolResult"]
    assert [message["toolCallId"] for message in history[2:]] == ["c1", "c2"]
    assert all(message["isError"] for message in history[2:])


async def test_a_waiting_run_can_be_dropped_alone(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    for number in range(3):
        await harness.send(str(number), f"k{number}")
    await gate.running("0")
    answer = await harness.call("chat.abort", None, sessionKey="main", runId="k1")
    assert answer["runIds"] == ["k1"]
    assert (await harness.events.terminal("k1"))["state"] == "aborted"
    gate.let("0")
    gate.let("2")
    assert (await harness.events.terminal("k2"))["state"] == "final"
    assert gate.started == ["0", "2"]


async def test_a_stop_word_is_answered_at_once_and_is_no_message(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    for number in range(3):
        await harness.send(str(number), f"k{number}")
    await gate.running("0")
    answer = await harness.send("stop please", "k9")
    assert answer == {"ok": True, "aborted": True, "runIds": ["k0", "k1", "k2"]}
    for number in range(3):
        assert (await harness.events.terminal(f"k{number}"))["state"] == "aborted"
    assert len(await harness.settled()) == 3


async def test_an_interrupting_message_goes_first(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("old", "k1")
    await gate.running("old")
    await harness.send("waiting", "k2")
    answer = await harness.send("urgent", "k3", queueMode="interrupt")
    assert answer["interruptedActiveRun"] is True
    assert (await harness.events.terminal("k1"))["state"] == "aborted"
    await gate.running("urgent")
    gate.let("urgent")
    gate.let("waiting")
    await harness.events.terminal("k2")
    assert gate.started == ["old", "urgent", "waiting"]
    # A repeat is answered as before, and interrupts nobody.
    await harness.send("later", "k4")
    await gate.running("later")
    assert await harness.send("urgent", "k3", queueMode="interrupt") == answer
    gate.let("later")
    assert (await harness.events.terminal("k4"))["state"] == "final"


async def test_a_run_of_another_session_is_not_stopped(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("work", "k1")
    await gate.running("work")
    with pytest.raises(InvalidRequest, match="does not belong"):
        await harness.call("chat.abort", None, sessionKey="another", runId="k1")
    gate.let("work")
    await harness.events.terminal("k1")


async def test_the_service_stops_a_session(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("0", "k0")
    await harness.send("1", "k1")
    await gate.running("0")
    assert await harness.services[Sessions].stop("main") == ["k0", "k1"]
    assert (await harness.events.terminal("k1"))["state"] == "aborted"


async def test_the_lane_survives_random_stops(harness: Harness) -> None:
    async def brief(turn: Turn, sink: TurnSink) -> TurnResult:
        sink.text("x")
        await asyncio.sleep(0.001)
        return TurnResult(status="ok", text="x")

    harness.runtime.script = brief

    async def writer(number: int) -> None:
        await harness.send(f"t{number}", f"k{number}")
        if number % 4 == 0:
            await harness.call("chat.abort", None, sessionKey="main", runId=f"k{number}")

    await asyncio.gather(*(writer(number) for number in range(64)))
    for number in range(64):
        await harness.events.terminal(f"k{number}")
    states = await harness.settled()
    assert len(states) == 64
    await until(lambda: not harness.events.of("chat", state="error"))


async def test_sessions_abort_stops_what_runs_and_drops_what_waits_only_if_asked(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    for number in range(4):
        await harness.send(str(number), f"k{number}")
    await gate.running("0")
    answer = await harness.call("sessions.abort", None, key="main")
    assert answer == {"ok": True, "status": "aborted", "abortedRunId": "k0", "runIds": ["k0"]}
    assert (await harness.events.terminal("k0"))["state"] == "aborted"
    await gate.running("1")
    answer = await harness.call("sessions.abort", None, runId="k1", clearQueued=True)
    assert answer == {"ok": True, "status": "aborted", "abortedRunId": "k1", "runIds": ["k1", "k2", "k3"]}
    assert [state for _, state, _ in await harness.settled()] == ["suppressed"] * 4
    assert gate.started == ["0", "1"]


async def test_sessions_abort_of_nothing_says_so(harness: Harness) -> None:
    nothing = {"ok": True, "status": "no-active-run", "abortedRunId": None, "runIds": []}
    assert await harness.call("sessions.abort", None, key="main") == nothing
    assert await harness.call("sessions.abort", None, key="main", clearQueued=True) == nothing
    assert await harness.call("sessions.abort", None, runId="k1") == nothing
    await harness.ask("work", "k1")
    assert await harness.call("sessions.abort", None, key="main", runId="k1") == nothing
    with pytest.raises(InvalidRequest, match="key"):
        await harness.call("sessions.abort")


async def test_sessions_abort_does_not_reach_into_another_session(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("work", "k1", session="agent:main:one")
    await gate.running("work")
    with pytest.raises(InvalidRequest, match="does not belong"):
        await harness.call("sessions.abort", None, key="agent:main:other", runId="k1", clearQueued=True)
    gate.let("work")
    assert (await harness.events.terminal("k1"))["state"] == "final"


@pytest.mark.parametrize("word", [None, "stop"])
async def test_a_stop_is_answered_while_the_store_hangs(harness: Harness, word: str | None) -> None:
    """P15: nothing goes on, and the answer says what is not certain; it is written once the store is well."""
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("work", "k1")
    await gate.running("work")
    async with hung_store(harness):
        began = time.monotonic()
        with pytest.raises(Unavailable, match="stopped, but"):
            await (harness.send(word, "k2") if word else harness.call("chat.abort", None, sessionKey="main"))
        assert time.monotonic() - began < 2.2
        await until(lambda: gate.cancelled == ["work"])
        assert time.monotonic() - began < 2.5
    assert [state for _, state, _ in await harness.settled()] == ["suppressed"]
    assert await harness.rows("SELECT count(*) FROM conversation_inbound WHERE stop_ms IS NOT NULL") == [(1,)]


@pytest.mark.parametrize("word", ["/stop", "please stop"])
async def test_a_stop_of_a_chat_is_carried_out_while_the_store_hangs(harness: Harness, word: str) -> None:
    """P15: it is acknowledged and answered once it is written."""
    gate = Gate()
    harness.runtime.script = gate
    await harness.receive("work", "1")
    await gate.running("work")
    async with hung_store(harness):
        began = time.monotonic()
        stopping = asyncio.ensure_future(harness.receive(word, "2"))
        await until(lambda: gate.cancelled == ["work"])
        assert time.monotonic() - began < 1.0
        assert not stopping.done()
    assert await stopping
    assert [(state, reason) for _, state, reason in await harness.settled()] == [("suppressed", "stopped"), ("answered", "command /stop")]
    await until(lambda: harness.channels.texts() == ["Stopped."])
    assert await harness.rows("SELECT count(*) FROM conversation_inbound WHERE stop_ms IS NOT NULL") == [(1,)]


async def test_a_stop_of_a_stranger_or_a_repeated_one_is_not_carried_out_while_the_store_hangs(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.receive("/stop", "1")
    await harness.settled()
    await harness.receive("work", "2")
    await gate.running("work")
    admitted = harness.policies.admission
    async with hung_store(harness):
        repeated = asyncio.ensure_future(harness.receive("/stop", "1"))
        harness.policies.admission = lambda _: Admission(verdict=Verdict.DROP, reason="a stranger")
        strange = asyncio.ensure_future(harness.receive("/stop", "3"))
        assert not (await asyncio.wait({repeated, strange}, timeout=1.0))[0]
    assert (await repeated, await strange) == (False, True)
    harness.policies.admission = admitted
    assert gate.cancelled == []
    gate.let("work")
    assert [state for _, state, _ in await harness.settled()] == ["answered", "answered", "suppressed"]


@asynccontextmanager
async def hung_store(harness: Harness) -> AsyncIterator[None]:
    """A store whose writer does nothing until the end of the block."""
    held, released = threading.Event(), threading.Event()

    def hang(connection: sqlite3.Connection) -> None:
        held.set()
        released.wait(30)

    hanging = asyncio.ensure_future(harness.store.write(hang))
    await until(held.is_set)
    try:
        yield
    finally:
        released.set()
    await hanging
