"""The events of a run come in one order, whatever the runtime does and whenever it is stopped."""

from __future__ import annotations

import asyncio
import random

import pytest

from openclaw_kernel.api import AssistantMessage, Text, ToolCall, ToolResultMessage, Turn, TurnResult, TurnSink
from tests.plugins.conversation.harness import Gate, Harness, TestClient, until

ENDS = ("final", "aborted", "error")


def check_order(harness: Harness, run_id: str) -> list[str]:
    """Check all that was told of one run; return the states of its `chat` events."""
    told = [sent for sent in harness.events.sent if sent.event in ("chat", "agent", "session.tool") and sent.payload.get("runId") == run_id]
    states = [sent.payload["state"] for sent in told if sent.event == "chat"]
    assert [state for state in states if state in ENDS] == states[-1:], states
    assert told[-1].event == "chat", "something came after the end"
    seqs = [sent.payload["seq"] for sent in told if sent.event == "chat"]
    assert seqs == sorted(seqs)
    # A tool event goes to the owner and, as another event with the same number, to the subscribers.
    numbers = [sent.payload["seq"] for sent in told if sent.event == "agent" and sent.options["connections"] is None]
    assert numbers == sorted(set(numbers))
    phases = [sent.payload["data"].get("phase") for sent in told if sent.event == "agent" and sent.payload["stream"] == "lifecycle"]
    assert phases in (["start", "end"], ["start", "error"], ["error"], ["end"]), phases
    assert (phases[-1] == "error") == (states[-1] == "error")
    text = ""
    for sent in told:
        if sent.event == "chat" and sent.payload["state"] == "delta":
            text += sent.payload["deltaText"]
            assert sent.payload["message"]["content"][0]["text"] == text
    return states


@pytest.mark.parametrize("seed", range(6))
async def test_the_order_holds_under_random_stops(harness: Harness, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311

    async def wild(turn: Turn, sink: TurnSink) -> TurnResult:
        try:
            for number in range(dice.randrange(1, 6)):
                sink.text(f"word {number} ")
                sink.thinking("hm")
                await asyncio.sleep(dice.choice([0, 0, 0.001, 0.08]))
                if dice.random() < 0.5:
                    call = f"c{number}"
                    await sink.record(AssistantMessage(content=(Text("so"), ToolCall(call, "fetch", {}))))
                    sink.tool("start", call_id=call, name="fetch", arguments={})
                    await asyncio.sleep(0)
                    sink.tool("result", call_id=call, name="fetch", arguments={}, result="r")
                    await sink.record(ToolResultMessage(call_id=call, name="fetch", text="r"))
            if dice.random() < 0.2:
                raise ZeroDivisionError
            return TurnResult(status=dice.choice(["ok", "error"]), text="words", error="no")
        finally:
            # Whoever does not stop talking is not heard.
            sink.text("too late")
            sink.tool("start", call_id="late", name="fetch", arguments={})

    harness.runtime.script = wild
    client = TestClient(caps=frozenset({"tool-events"}))

    async def one(number: int) -> None:
        session = f"s{number % 4}"
        await harness.call("chat.send", client, sessionKey=session, message="go", idempotencyKey=f"k{number}")
        if dice.random() < 0.5:
            await asyncio.sleep(dice.choice([0, 0.001, 0.01, 0.1]))
            await harness.call("chat.abort", None, sessionKey=session, runId=f"k{number}")

    await asyncio.gather(*(one(number) for number in range(24)))
    for number in range(24):
        await harness.events.terminal(f"k{number}")
    # A timer that was left behind would speak within its 75 ms.
    await asyncio.sleep(0.1)
    for number in range(24):
        check_order(harness, f"k{number}")
    assert len(await harness.settled()) == 24
    for session in range(4):
        roles = [role for role, _ in await harness.texts(f"s{session}")]
        assert roles.count("user") <= 6
    assert await harness.rows("SELECT count(*) FROM conversation_runs WHERE ended_ms IS NULL") == [(0,)]


async def test_a_run_that_fails_before_it_starts_has_one_end(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("first", "k1", "agent:other:main")
    await gate.running("first")
    await harness.send("second", "k2", "agent:other:main")
    # The config changes while the message waits.
    harness.runtime.known = ["main"]
    gate.let("first")
    failed = await harness.events.terminal("k2")
    assert "other is not configured" in failed["errorMessage"]
    assert check_order(harness, "k2") == ["error"]
    assert [state for _, state, _ in await harness.settled()] == ["answered", "dead_lettered"]


async def test_nothing_of_a_run_stays_in_memory(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    for number in range(10):
        await harness.send(f"t{number}", f"k{number}", f"s{number}")
        await harness.receive(f"t{number}", f"m{number}", peer=str(number))
    await harness.receive("/help", "h")
    await asyncio.gather(
        *(harness.call("agent.wait", None, runId=run_id, timeoutMs=5) for run_id in ("nobody", "k1")),
    )
    for number in range(10):
        gate.let(f"t{number}")
    await harness.settled()
    await until(lambda: len(harness.channels.sent) == 11)
    from openclaw_kernel.api import Sessions

    conversation = harness.services[Sessions]
    world = conversation.world
    await until(lambda: not vars(conversation.lanes)["_lanes"])
    await until(lambda: not vars(world.outbox)["_queues"])
    left = {
        name: table
        for part in (world.board, world.outbox, world.desk)
        for name, table in vars(part).items()
        if isinstance(table, dict | set) and table
    }
    assert left == {}
