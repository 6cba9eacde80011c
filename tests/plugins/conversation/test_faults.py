"""Faults of the store and of our own code: every accepted message ends once, and no lane stays behind."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from openclaw_kernel.api import AssistantMessage, Step, ToolCall, ToolResultMessage, Turn, TurnResult, TurnSink
from openclaw_kernel.store.errors import StoreFull
from tests.plugins.conversation.harness import Gate, Harness, TestClient, say, until

ENDS = ("final", "aborted", "error")


class FailingWrites:
    """Lets chosen writes of a harness fail, before or after their work was done (and undone)."""

    def __init__(self, harness: Harness, fails: Callable[[int], Exception | None]) -> None:
        self.count = 0
        self._write = harness.store.write
        self._fails = fails
        harness.store.write = self.write  # type: ignore[method-assign]

    async def write(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        self.count += 1
        error = self._fails(self.count)
        if error is None:
            return await self._write(work)

        def undone(connection: sqlite3.Connection) -> Any:
            work(connection)
            raise error

        return await self._write(undone)


async def watch_ends(harness: Harness) -> None:
    """Note every time that a message comes to an end, or leaves one."""

    def write(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE test_ends (message_id TEXT, before TEXT, after TEXT)")
        connection.execute(
            "CREATE TRIGGER test_watch AFTER UPDATE OF state ON conversation_inbound WHEN"
            " OLD.state NOT IN ('accepted', 'routed', 'queued', 'running') OR"
            " NEW.state NOT IN ('accepted', 'routed', 'queued', 'running')"
            " BEGIN INSERT INTO test_ends VALUES (NEW.message_id, OLD.state, NEW.state); END"
        )

    await harness.store.write(write)


def full(position: int) -> Exception:
    return StoreFull(f"write {position}: the disk is full")


def broken(position: int) -> Exception:
    return ValueError(f"write {position} cannot be encoded")


async def accepted(harness: Harness, text: str, message_id: str) -> bool:
    try:
        return await harness.receive(text, message_id)
    except (StoreFull, ValueError):
        return False


@pytest.mark.parametrize("kind", [full, broken])
@pytest.mark.parametrize("position", range(1, 13))
async def test_whichever_write_fails_each_message_ends_once_and_the_lane_goes_on(
    harness: Harness, kind: Callable[[int], Exception], position: int
) -> None:
    await watch_ends(harness)
    writes = FailingWrites(harness, lambda count: kind(count) if count == position else None)
    taken = {name for name, text in (("1", "one"), ("2", "two"), ("3", "/status"), ("4", "three")) if await accepted(harness, text, name)}
    await harness.settled()
    taken |= {"5"} if await accepted(harness, "four", "5") else set()
    # An answer may be on its way still, and with it the write that fails.
    count = len(await harness.settled())
    await until(lambda: len(harness.channels.sent) == count)
    while writes.count < position:
        await accepted(harness, "more", f"more {writes.count}")
        await harness.settled()
    assert await harness.receive("after", "9")
    await until(lambda: "you said: after" in harness.channels.texts())
    states = await harness.settled()
    assert taken <= {name for name, _, _ in states}
    ends = await harness.rows("SELECT message_id FROM test_ends")
    assert sorted(ends) == sorted((name,) for name, _, _ in states)
    texts = harness.channels.texts()
    assert len([text for text in texts if text.startswith("you said: after")]) == 1
    # Whoever was accepted got one answer, if only that it went wrong.
    assert len(texts) == len(states)
    assert harness.failures == []


@pytest.mark.parametrize("kind", [full, broken])
@pytest.mark.parametrize("position", range(1, 5))
async def test_whichever_write_fails_a_client_is_told_one_end(harness: Harness, kind: Callable[[int], Exception], position: int) -> None:
    FailingWrites(harness, lambda count: kind(count) if count == position else None)
    sent = []
    for number in range(2):
        try:
            await harness.send(f"text {number}", f"k{number}")
        except (StoreFull, ValueError):
            continue
        sent.append(f"k{number}")
    for key in sent:
        await harness.events.terminal(key)
    assert (await harness.ask("after", "k9"))["state"] == "final"
    assert len(await harness.settled()) == len(sent) + 1
    for key in sent:
        assert len([chat for chat in harness.events.of("chat", runId=key) if chat["state"] in ENDS]) == 1
        waited = await harness.call("agent.wait", TestClient(), runId=key, timeoutMs=0)
        assert waited["status"] in ("ok", "error")


async def test_a_disk_that_stays_full_delays_the_answer_and_loses_nothing(harness: Harness) -> None:
    await watch_ends(harness)
    gate = Gate()
    harness.runtime.script = gate
    await harness.receive("work", "1")
    await gate.running("work")
    full_now = True
    FailingWrites(harness, lambda count: full(count) if full_now else None)
    gate.let("work")
    # Whoever listens is told soon, and the session is free.
    run_id = harness.runtime.turns[0].run_id
    told = await harness.events.terminal(run_id)
    assert "could not be stored" in told["errorMessage"]
    full_now = False
    await until(lambda: harness.channels.texts() == ["done: work"])
    assert await harness.settled() == [("1", "answered", None)]
    assert await harness.rows("SELECT after FROM test_ends") == [("answered",)]
    assert ("assistant", "done: work") in await harness.texts("agent:main:telegram:direct:7")
    assert len([chat for chat in harness.events.of("chat", runId=run_id) if chat["state"] in ENDS]) == 1


HALF = "\ud83d"


async def test_halves_of_characters_from_a_platform_are_taken(harness: Harness) -> None:
    await harness.receive(f"odd {HALF}", f"1{HALF}", name=f"Ann{HALF}", extra={"title": HALF, "id": 1 << 70})
    assert [state for _, state, _ in await harness.settled()] == ["answered"]
    await until(lambda: harness.channels.sent)
    assert harness.channels.texts() == ["you said: odd \ufffd"]


async def test_halves_of_characters_and_wild_arguments_from_a_model_are_shown_and_stored(harness: Harness) -> None:
    async def odd(turn: Turn, sink: TurnSink) -> TurnResult:
        sink.text(f"a smile {HALF}")
        sink.text("\ude00 and a half \udc00")
        deep: Any = []
        for _ in range(400):
            deep = [deep]
        arguments = {"number": 1 << 80, "deep": deep, "text": HALF, "nan": float("nan")}
        sink.tool("start", call_id="c1", name="fetch", arguments=arguments)
        await sink.record(AssistantMessage(content=(ToolCall("c1", "fetch", arguments),)))
        sink.tool("result", call_id="c1", name="fetch", arguments={}, result=HALF)
        await sink.record(ToolResultMessage(call_id="c1", name="fetch", text=HALF))
        await sink.record_step(Step(kind="tool", name=f"fetch{HALF}", started_ms=1, ended_ms=2, error=HALF))
        return TurnResult(status="ok", text=f"a smile {HALF}\ude00 and a half \udc00")

    harness.runtime.script = odd
    final = await harness.ask("go", "k1")
    assert final["state"] == "final"
    assert final["message"]["content"][0]["text"] == "a smile \U0001f600 and a half \ufffd"
    assert "".join(chat["deltaText"] for chat in harness.events.of("chat", state="delta")) == "a smile \U0001f600 and a half \ufffd"
    assert [role for role, _ in await harness.texts()] == ["user", "assistant", "toolResult", "assistant"]
    # The next turn takes it as history.
    harness.runtime.script = say
    assert (await harness.ask("again", "k2"))["state"] == "final"


async def test_an_error_with_half_a_character_reaches_the_person(harness: Harness) -> None:
    async def fails(turn: Turn, sink: TurnSink) -> TurnResult:
        return TurnResult(status="error", text="", error=f"the model said {HALF}", error_kind="unknown")

    harness.runtime.script = fails
    await harness.receive("go", "1")
    await until(lambda: harness.channels.sent)
    assert harness.channels.texts() == ["⚠️ the model said \ufffd"]


async def test_a_row_that_cannot_be_read_does_not_keep_the_next_start_away(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.receive("first", "1")
    await gate.running("first")
    await harness.receive("waits", "2")
    await harness.receive("waits too", "3")
    await until(lambda: harness.runtime.turns)
    await harness.store.write(lambda connection: connection.execute("UPDATE conversation_inbound SET body = '{' WHERE message_id = '2'"))
    await harness.crash()
    harness.runtime.script = say
    await harness.start()
    states = {name: state for name, state, _ in await harness.settled()}
    assert states == {"1": "answered", "2": "dead_lettered", "3": "answered"}
