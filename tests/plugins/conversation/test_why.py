"""Whatever id somebody holds, its message's way can be told (P1, W2)."""

from __future__ import annotations

import dataclasses
import sqlite3
from typing import Any

import pytest

from openclaw_kernel.api import (
    Admission,
    Delivery,
    Ingress,
    InvalidRequest,
    LoopBlock,
    OutboundMessage,
    SendFailed,
    Sessions,
    Step,
    Target,
    Turn,
    TurnResult,
    TurnSink,
    Usage,
    Verdict,
)
from tests.plugins.conversation.harness import Gate, Harness, inbound, until

DAY_MS = 86_400_000


async def why(harness: Harness, query: str) -> dict[str, Any]:
    answer: dict[str, Any] = await harness.call("messages.why", None, id=query)
    return answer


async def sent(harness: Harness, count: int) -> None:
    async def all_sent() -> bool:
        return await harness.rows("SELECT count(*) FROM conversation_outbox WHERE state = 'sent'") == [(count,)]

    await until(all_sent)


async def failing(turn: Turn, sink: TurnSink) -> TurnResult:
    return TurnResult(status="error", text="", error="the model is gone")


async def test_an_answered_message_is_told_whole(harness: Harness) -> None:
    async def with_steps(turn: Turn, sink: TurnSink) -> TurnResult:
        now = harness.now_ms()
        usage = Usage(input_tokens=10, output_tokens=5)
        await sink.record_step(Step(kind="model", name="echo/echo-1", started_ms=now, ended_ms=now + 3, usage=usage, cost_usd=0.25))
        await sink.record_step(Step(kind="tool", name="fetch", started_ms=now, ended_ms=now + 4, retry_class="pure"))
        return TurnResult(status="ok", text="done", stop_reason="stop", model="echo/echo-1")

    harness.runtime.script = with_steps
    await harness.receive("hello " * 100, "77:1", sender="s1", name="Ann")
    await harness.settled()
    await sent(harness, 1)
    answer = await why(harness, "telegram:77:1")
    message = answer["message"]
    assert message["sender"] == {"id": "s1", "name": "Ann"}
    assert (message["channel"], message["accountId"], message["messageId"]) == ("telegram", "default", "77:1")
    assert message["textShortened"]
    assert len(message["text"]) < 300
    assert message["route"]["reason"] == "test"
    assert message["admission"] == {"verdict": "allow", "reason": "everybody"}
    assert message["acceptedMs"] <= message["begunMs"] <= message["endedMs"]
    assert message["queueWaitMs"] >= 0
    (turn,) = answer["turns"]
    assert [(step["kind"], step["name"], step["state"], step["retryClass"]) for step in turn["steps"]] == [
        ("model", "echo/echo-1", "done", None),
        ("tool", "fetch", "done", "pure"),
    ]
    assert (turn["steps"][0]["inputTokens"], turn["steps"][0]["costUsd"]) == (10, 0.25)
    (delivery,) = answer["deliveries"]
    assert (delivery["kind"], delivery["state"], delivery["platformIds"]) == ("answer", "sent", ["m1"])
    assert [(attempt["number"], attempt["outcome"]) for attempt in delivery["attemptLog"]] == [(1, "sent")]
    # Every other id of it leads to the same.
    for query in (message["ledgerId"], message["runId"], message["runId"][:12], "77:1", delivery["deliveryId"], "m1", "telegram:m1"):
        again = await why(harness, query) if query != message["ledgerId"] else answer
        assert again["message"]["ledgerId"] == message["ledgerId"], query


async def test_each_kind_of_end_has_its_reason(harness: Harness) -> None:
    harness.policies.admission = lambda message: Admission(
        verdict=Verdict.ALLOW if message.sender_id == "known" else Verdict.DROP, reason=f"rule for {message.sender_id}"
    )
    await harness.receive("hello", "refused", sender="stranger")
    await harness.receive("/help", "command", sender="known")
    harness.runtime.script = failing
    await harness.receive("hello", "broken", sender="known")
    await harness.settled()
    refused = (await why(harness, "refused"))["message"]
    assert (refused["state"], refused["reason"]) == ("suppressed", "rule for stranger")
    assert refused["admission"] == {"verdict": "drop", "reason": "rule for stranger"}
    command = (await why(harness, "command"))["message"]
    assert (command["state"], command["admission"]["verdict"]) == ("answered", "allow")
    broken = await why(harness, "broken")
    assert (broken["message"]["state"], broken["message"]["reason"]) == ("dead_lettered", "the model is gone")
    assert broken["turns"][0]["error"] == "the model is gone"

    async def silent(turn: Turn, sink: TurnSink) -> TurnResult:
        return TurnResult(status="ok", text="NO_REPLY")

    harness.runtime.script = silent
    await harness.receive("psst", "silent", sender="known")
    harness.policies.problem = ValueError("no such rule")
    await harness.receive("where to", "unrouted", sender="known")
    await harness.settled()
    quiet = (await why(harness, "silent"))["message"]
    assert (quiet["state"], quiet["reason"]) == ("suppressed", "silent")
    unrouted = (await why(harness, "unrouted"))["message"]
    assert (unrouted["state"], unrouted["route"]["sessionKey"]) == ("dead_lettered", None)
    assert "no such rule" in unrouted["reason"]


async def test_a_message_that_is_stopped_before_its_turn_begins_tells_who_decided(harness: Harness) -> None:
    """Its stop may overtake the write of where it goes: then the stop, or its end, writes that down."""
    gate = Gate()
    harness.runtime.script = gate
    await harness.receive("first", "first")
    await gate.running("first")
    await harness.receive("second", "hasty")

    async def queued() -> bool:
        return ("hasty", "queued", None) in await harness.states()

    await until(queued)

    def forget(connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE conversation_inbound SET state = 'accepted', agent_id = NULL, session_key = NULL, route_reason = NULL, admission = NULL"
            " WHERE message_id = 'hasty'"
        )

    await harness.store.write(forget)
    await harness.receive("/stop", "stop")
    await harness.settled()
    message = (await why(harness, "hasty"))["message"]
    assert (message["state"], message["reason"], message["begunMs"]) == ("suppressed", "stopped", None)
    assert (message["route"]["reason"], message["admission"]["verdict"]) == ("test", "allow")


async def test_a_clients_request_and_a_note_are_told(harness: Harness) -> None:
    await harness.ask("hello", "request-1")
    answer = await why(harness, "request-1")
    assert answer["message"]["fromClient"]
    assert answer["message"]["admission"]["verdict"] == "allow"
    assert answer["turns"][0]["runId"] == "request-1"
    history = await harness.call("chat.history", None, sessionKey="main")
    entry = history["messages"][0]["__openclaw"]["id"]
    assert (await why(harness, entry))["message"]["runId"] == "request-1"
    note = (await harness.call("chat.inject", None, sessionKey="main", message="remember"))["messageId"]
    told = await why(harness, note)
    assert (told["kind"], told["note"]["text"]) == ("note", "remember")


async def test_a_message_that_waits_names_what_it_waits_for(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("first", "run-a")
    await gate.running("first")
    await harness.send("second", "run-b")
    answer = await why(harness, "run-b")
    assert (answer["message"]["state"], answer["waitsBehind"]) == ("queued", ["run-a"])
    gate.let("first")
    gate.let("second")
    await harness.events.terminal("run-b")


async def test_what_was_sent_without_a_message_is_told(harness: Harness) -> None:
    place = Target(channel="telegram", account_id="default", peer_kind="direct", peer_id="7")

    async def blocked(message: OutboundMessage) -> None:
        raise SendFailed("blocked by the user", permanent=True)

    harness.channels.script = blocked
    outbox_id = await harness.services[Delivery].enqueue(place, text="news")

    async def failed() -> bool:
        return bool((await why(harness, outbox_id))["deliveries"][0]["state"] == "failed")

    await until(failed)
    answer = await why(harness, outbox_id[:8])
    assert answer["message"] is None
    (delivery,) = answer["deliveries"]
    assert (delivery["kind"], delivery["error"]) == ("message", "blocked by the user")
    assert delivery["attemptLog"][0]["outcome"] == "refused"


async def test_a_stop_word_of_a_client_is_told_as_the_request_it_is(harness: Harness) -> None:
    await harness.send("stop", "request-1")
    answer = await why(harness, "request-1")
    assert answer["kind"] == "request"
    (request,) = answer["requests"]
    assert (request["method"], request["principal"], request["state"], request["error"]) == ("chat.send", "token", "done", None)


async def test_an_id_that_means_several_lists_them_and_an_unknown_one_says_where_to_look(harness: Harness) -> None:
    await harness.receive("one", "same-id", channel="telegram")
    await harness.receive("two", "same-id", channel="irc")
    await harness.settled()
    several = (await why(harness, "same-id"))["candidates"]
    assert sorted(one["about"] for one in several) == ["message same-id of irc, answered", "message same-id of telegram, answered"]
    assert (await why(harness, "irc:same-id"))["message"]["channel"] == "irc"
    for one in several:
        assert (await why(harness, one["id"]))["id"] == one["id"]
    with pytest.raises(InvalidRequest, match=r"nothing is known of 'nobody'; the ledger keeps 30 days and begins 20.*logs"):
        await why(harness, "nobody")


async def test_a_message_that_the_ledger_deleted_is_still_known_by_its_ids(harness: Harness) -> None:
    await harness.ask("hello", "request-1")
    await harness.receive("hello", "77:1")
    await harness.settled()
    await sent(harness, 1)
    ((outbox_id,),) = await harness.rows("SELECT outbox_id FROM conversation_outbox")
    harness.offset_ms = 31 * DAY_MS
    await harness.services[Sessions].clean()
    for query, what, state in (
        ("request-1", "message", "answered"),
        ("telegram:77:1", "message", "answered"),
        (outbox_id, "delivery", "sent"),
    ):
        answer = await why(harness, query)
        assert (answer["kind"], answer["swept"]["what"], answer["swept"]["state"]) == ("swept", what, state)


async def test_the_attempts_that_are_kept_are_bounded(harness: Harness) -> None:
    from openclaw_plugins.conversation import attempts

    place = Target(channel="telegram", account_id="default", peer_kind="direct", peer_id="7")

    async def limited(message: OutboundMessage) -> None:
        if len(harness.channels.attempts) < attempts.KEPT + 5:
            raise SendFailed("slow down " * 100, retry_after=0.0)

    harness.channels.script = limited
    outbox_id = await harness.services[Delivery].enqueue(place, text="news")
    await sent(harness, 1)
    (delivery,) = (await why(harness, outbox_id))["deliveries"]
    assert delivery["attempts"] == attempts.KEPT + 5
    log = delivery["attemptLog"]
    assert [log[0]["number"], log[-1]["number"], len(log)] == [6, attempts.KEPT + 5, attempts.KEPT]
    assert max(len(attempt["error"] or "") for attempt in log) == attempts.LONGEST_ERROR
    assert log[0]["retryAfterMs"] is not None


async def test_a_message_is_found_by_what_a_person_sees_of_it(harness: Harness) -> None:
    """W2: nobody sees the number of a bot."""
    await harness.receive("one", "1001:42:7")
    await harness.receive("two", "1001:-43:8")
    await harness.receive("three", "1001:-43:7")
    await harness.receive("album", "1001:42:11-13")
    await harness.receive("other", "9:42:70", channel="irc")
    await harness.settled()
    for query, text in (
        ("telegram:42:7", "one"),
        ("42:7", "one"),
        ("1001:42:7", "one"),
        ("telegram:-43:7", "three"),
        ("8", "two"),
        ("telegram:8", "two"),
        ("telegram:42:11", "album"),
        ("irc:42:70", "other"),
    ):
        assert (await why(harness, query))["message"]["text"] == text, query
    several = (await why(harness, "telegram:7"))["candidates"]
    assert sorted(one["about"] for one in several) == [
        "message 1001:-43:7 of telegram, answered",
        "message 1001:42:7 of telegram, answered",
    ]
    for unknown in ("telegram:42:9", "irc:42:7", "telegram:42:", ":7"):
        with pytest.raises(InvalidRequest, match="nothing is known"):
            await why(harness, unknown)


async def test_what_was_sent_is_found_by_its_chat(harness: Harness) -> None:
    place = Target(channel="telegram", account_id="default", peer_kind="direct", peer_id="42")
    first = await harness.services[Delivery].enqueue(place, text="news")
    await harness.services[Delivery].enqueue(place, text="more")
    await sent(harness, 2)
    assert (await why(harness, "telegram:42:m1"))["deliveries"][0]["deliveryId"] == first
    assert (await why(harness, "42:m1"))["deliveries"][0]["deliveryId"] == first
    with pytest.raises(InvalidRequest, match="nothing is known"):
        await why(harness, "telegram:43:m1")


async def test_the_search_by_what_a_person_sees_does_not_walk_the_ledger(harness: Harness) -> None:
    from openclaw_plugins.conversation import finding

    def fill(connection: sqlite3.Connection) -> None:
        connection.executemany(
            "INSERT INTO conversation_inbound (channel, account_id, message_id, received_ms, updated_ms, state, body)"
            " VALUES (?, 'default', ?, 1, 1, 'answered', '{}')",
            [("telegram", f"1001:{chat}:{number}") for chat in range(20) for number in range(200)]
            + [("irc", f"{number:08}") for number in range(finding.MOST_HEADS + 100)],
        )

    await harness.store.write(fill)
    asked = 0

    def search(connection: sqlite3.Connection) -> list[finding.Found]:
        def count(statement: str) -> None:
            nonlocal asked
            asked += 1

        connection.set_trace_callback(count)
        try:
            return finding.find(connection, "telegram:7:199")
        finally:
            connection.set_trace_callback(None)

    (found,) = await harness.store.read(search)
    assert found.about == "message 1001:7:199 of telegram, answered"
    assert asked < 20 + finding.MOST_HEADS * 2


@pytest.mark.parametrize("timestamp_ms", [-(10**15), 10**18, 2**62])
async def test_a_time_that_is_none_is_not_believed(harness: Harness, timestamp_ms: int) -> None:
    """W2: what a platform says of the time must not break the way of a message, nor the answer that nothing is known."""
    harness.policies.admission = lambda message: Admission(verdict=Verdict.DROP, reason="nobody")
    message = dataclasses.replace(inbound("hello", "1"), timestamp_ms=timestamp_ms)
    assert await harness.services[Ingress].accept(message)
    await harness.settled()
    told = (await why(harness, "m1"))["message"]
    assert abs(told["receivedMs"] - harness.now_ms()) < DAY_MS
    with pytest.raises(InvalidRequest, match="begins 20"):
        await why(harness, "nobody")


async def test_what_kept_the_event_loop_while_a_message_was_under_way_is_told(harness: Harness) -> None:
    await harness.receive("hi", "1", sender="s1")
    await harness.settled()
    await sent(harness, 1)
    assert "loopBlocks" not in await why(harness, "m1")
    harness.gateway.blocks = [LoopBlock(plugin_id="bells", place="x.py:7", seconds=1.5, ended_ms=5)]
    answer = await why(harness, "m1")
    assert answer["loopBlocks"] == [{"atMs": 5, "ms": 1500, "plugin": "bells", "place": "x.py:7"}]
    assert harness.gateway.asked == (answer["message"]["receivedMs"], answer["message"]["endedMs"])
