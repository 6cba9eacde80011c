"""The ledger keeps what is open for ever and what is done for a while."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from openclaw_kernel.api import (
    Admission,
    Command,
    CommandCall,
    Commands,
    OutboundMessage,
    SendFailed,
    Sessions,
    Step,
    Turn,
    TurnResult,
    TurnSink,
    Usage,
    Verdict,
)
from openclaw_plugins.conversation import engine, intake, ledger
from openclaw_plugins.conversation.settings import ConversationSettings
from tests.plugins.conversation.harness import Gate, Harness, said, until

DAY_MS = 86_400_000


async def test_what_is_done_goes_in_time_and_what_is_open_stays(harness: Harness) -> None:
    await harness.receive("old", "1")
    await harness.receive("old too", "2")
    await harness.settled()
    gate = Gate()
    harness.runtime.script = gate
    await harness.receive("open", "3")
    await gate.running("open")
    later = harness.now_ms() + 1

    async def clean(before_ms: int, limit: int) -> bool:
        return await harness.store.write(lambda connection: ledger.forget_old(connection, before_ms, limit))

    assert not await clean(0, 10)
    assert len(await harness.states()) == 3
    assert await clean(later, 1)
    assert [row[0] for row in await harness.states()] == ["2", "3"]
    assert not await clean(later, 10)
    assert await harness.states() == [("3", "running", None)]
    gate.let("open")
    await harness.settled()


async def test_all_that_a_message_left_goes_with_it_and_the_transcript_stays(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "CLEANING_ROWS", 2)

    async def stepping(turn: Turn, sink: TurnSink) -> TurnResult:
        for number in range(2):
            await sink.record_step(Step(kind="tool", name=f"t{number}", started_ms=harness.now_ms(), ended_ms=harness.now_ms()))
        return TurnResult(status="ok", text="done")

    harness.runtime.script = stepping
    for number in range(5):
        await harness.receive("old", str(number))
    await harness.settled()
    await until(lambda: _delivered(harness, 5))
    harness.offset_ms = 20 * DAY_MS
    await harness.receive("newer", "newer")
    await harness.settled()
    await until(lambda: _delivered(harness, 6))
    harness.offset_ms = 31 * DAY_MS
    await harness.services[Sessions].clean()
    counts = {
        table: (await harness.rows(f"SELECT count(*) FROM conversation_{table}"))[0][0]  # noqa: S608
        for table in ("inbound", "outbox", "runs", "steps", "messages")
    }
    assert counts == {"inbound": 1, "outbox": 1, "runs": 1, "steps": 2, "messages": 12}


async def _delivered(harness: Harness, count: int) -> bool:
    return await harness.rows("SELECT count(*) FROM conversation_outbox WHERE state = 'sent'") == [(count,)]


async def test_a_flood_of_strangers_gets_a_bounded_number_of_hints(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "HINTS_AN_HOUR", 5)
    harness.policies.admission = lambda _: Admission(verdict=Verdict.HINT, reason="unknown", hint="ask the owner")
    for number in range(40):
        await harness.receive("buy now", str(number), sender=f"s{number}", peer=f"s{number}")
    assert {state for _, state, _ in await harness.settled()} == {"suppressed"}
    await until(lambda: len(harness.channels.sent) == 5)
    assert await harness.rows("SELECT count(*) FROM conversation_hints") == [(5,)]
    # Somebody who came during the flood is told when it is over.
    harness.offset_ms = 2 * 3_600_000
    await harness.receive("hello?", "later", sender="s39", peer="s39")
    await until(lambda: len(harness.channels.sent) == 6)


async def test_a_message_that_was_left_behind_is_ended_and_its_sender_told(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.receive("works long", "1")
    await gate.running("works long")
    await harness.receive("waits", "2")

    def orphan(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO conversation_inbound (channel, account_id, message_id, received_ms, updated_ms, state, body)"
            " SELECT channel, account_id, 'orphan', received_ms, updated_ms, 'routed', body FROM conversation_inbound LIMIT 1"
        )

    await harness.store.write(orphan)
    await harness.services[Sessions].clean()
    assert ("orphan", "routed", None) in await harness.states()
    harness.offset_ms = 700_000
    await harness.services[Sessions].clean()
    await until(lambda: harness.channels.texts() == [intake.BROKEN])
    assert ("orphan", "dead_lettered", "left behind") in await harness.states()
    # What is worked on, or waits, is not left behind however long it takes.
    gate.let("works long")
    gate.let("waits")
    states = {name: state for name, state, _ in await harness.settled()}
    assert (states["1"], states["2"]) == ("answered", "answered")


async def test_a_message_that_nothing_can_end_is_an_orphan_until_the_sweeper_ends_it(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    """P1: a fault of the database makes a real orphan, whose sender is told once the fault is over."""
    harness.settings = ConversationSettings.model_validate({"orphanSeconds": 5})
    await harness.restart()

    def refuse(connection: sqlite3.Connection) -> None:
        connection.execute(
            "CREATE TRIGGER test_fault BEFORE UPDATE ON conversation_inbound WHEN OLD.message_id = 'orphan'"
            " BEGIN SELECT RAISE(ABORT, 'this row cannot be changed'); END"
        )

    await harness.store.write(refuse)
    await harness.receive("hello", "orphan", peer="8")
    await until(lambda: "could not even be ended" in caplog.text or "failure could not be written" in caplog.text)
    await harness.receive("hello", "fine")
    await until(lambda: harness.channels.texts() == ["you said: hello"])
    await harness.store.write(lambda connection: connection.execute("DROP TRIGGER test_fault"))
    await harness.services[Sessions].clean()
    assert ("orphan", "accepted", None) in await harness.states()
    harness.offset_ms = 6_000
    await harness.services[Sessions].clean()
    assert ("orphan", "dead_lettered", "left behind") in await harness.states()
    await until(lambda: harness.channels.texts()[1:] == [intake.BROKEN])
    why = await harness.call("messages.why", None, id="orphan")
    assert [(delivery["kind"], delivery["text"]) for delivery in why["deliveries"]] == [("notice", intake.BROKEN)]


async def test_a_client_whose_request_was_left_behind_is_told(harness: Harness) -> None:
    """P1: the same for a WebSocket client, who waits for the end of its run."""

    def refuse(connection: sqlite3.Connection) -> None:
        connection.execute(
            "CREATE TRIGGER test_fault BEFORE UPDATE OF reason ON conversation_inbound"
            " BEGIN SELECT RAISE(ABORT, 'this row cannot be changed'); END"
        )

    await harness.store.write(refuse)
    await harness.send("hello", "request-1")
    # The one who waits is let go with an error although nothing can be written.
    assert (await harness.call("agent.wait", None, runId="request-1", timeoutMs=5000))["status"] == "error"
    await harness.store.write(lambda connection: connection.execute("DROP TRIGGER test_fault"))
    harness.offset_ms = 700_000
    await harness.services[Sessions].clean()
    assert (await harness.events.terminal("request-1"))["state"] == "error"
    assert await harness.rows("SELECT state, reason FROM conversation_inbound") == [("dead_lettered", "left behind")]
    assert await harness.rows("SELECT count(*) FROM conversation_runs WHERE ended_ms IS NULL") == [(0,)]


async def test_the_sweeper_leaves_alone_whatever_runs_waits_or_is_being_decided(harness: Harness) -> None:
    """P1: a long turn, a queue behind it, a slow command and a message that came back after a restart are no orphans."""
    harness.settings = ConversationSettings.model_validate({"orphanSeconds": 5})
    harness.gateway.ready = False
    await harness.restart()
    await harness.receive("waits for the start", "early", peer="9")
    await harness.restart()
    gate = Gate()
    harness.runtime.script = gate
    harness.offset_ms = 60_000
    await harness.services[Sessions].clean()
    assert await harness.states() == [("early", "accepted", None)]
    harness.gateway.ready = True
    await gate.running("waits for the start")
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(call: CommandCall) -> str:
        asked.set()
        await answer.wait()
        return "at last"

    harness.services[Commands].add(Command(name="slow", description="takes long", run=slow))
    await harness.receive("works long", "1")
    await gate.running("works long")
    await harness.receive("waits", "2")
    await harness.receive("/slow", "3", peer="8")
    await asked.wait()
    for _ in range(3):
        harness.offset_ms += 60_000
        await harness.services[Sessions].clean()
    answer.set()
    for text in ("waits for the start", "works long", "waits"):
        gate.let(text)
    assert {state for _, state, _ in await harness.settled()} == {"answered"}


async def test_a_turn_that_is_stopped_still_shows_what_it_took(harness: Harness) -> None:
    gate = Gate()

    async def spends(turn: Turn, sink: TurnSink) -> TurnResult:
        usage = Usage(input_tokens=10, output_tokens=5, cache_read_tokens=3)
        now = harness.now_ms()
        await sink.record_step(Step(kind="model", name="echo/echo-1", started_ms=now, ended_ms=now, usage=usage, cost_usd=0.5))
        return await gate(turn, sink)

    harness.runtime.script = spends
    await harness.send("work", "k1")
    await gate.running("work")
    await harness.call("chat.abort", None, sessionKey="main")
    await harness.events.terminal("k1")
    assert await harness.rows("SELECT input_tokens, output_tokens, cache_read_tokens, cost_usd FROM conversation_runs") == [(10, 5, 3, 0.5)]
    (row,) = (await harness.call("sessions.list"))["sessions"]
    assert (row["totalTokens"], row["estimatedCostUsd"]) == (18, 0.5)
    (step,) = await harness.services[Sessions].usage_rows(0, harness.now_ms() + 1)
    assert (step["input"], step["costUsd"]) == (10, 0.5)
    assert said(harness.runtime.turns[0]) == "work"


async def test_what_outlives_its_message_is_not_taken_for_that_of_a_later_one(harness: Harness) -> None:
    """The number of a deleted message may be given again."""

    async def refuse(message: OutboundMessage) -> None:
        raise SendFailed("blocked", permanent=True)

    harness.channels.script = refuse
    await harness.receive("old", "1")
    await harness.settled()
    await until(lambda: harness.rows("SELECT 1 FROM conversation_outbox WHERE state = 'failed'"))
    later = harness.now_ms() + 1
    await harness.store.write(lambda connection: connection.execute("UPDATE conversation_outbox SET updated_ms = ?", (later,)))
    await harness.store.write(lambda connection: ledger.forget_old(connection, later, 10))
    harness.channels.script = None
    await harness.receive("new", "2")
    await harness.settled()
    assert await harness.rows("SELECT id, message_id FROM conversation_inbound") == [(1, "2")]
    told = await harness.call("messages.why", None, id="m1")
    assert [delivery["text"] for delivery in told["deliveries"]] == ["you said: new"]
