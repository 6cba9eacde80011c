"""Repeats of chat.send, agent and send: one commit with what they write, and the first answer for ever (P5)."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from openclaw_kernel.api import GatewayError, InvalidRequest, OutboundMessage, SendFailed, Turn, TurnResult, TurnSink
from tests.plugins.conversation.harness import Gate, Harness, TestClient
from tests.plugins.pairing.device_client import Device
from tests.support.gateway import RunningGateway
from tests.support.ws_client import RequestFailed, is_chat

AGENT = {"message": "hi", "idempotencyKey": "r1"}
SEND = {"to": "irc:ann", "message": "hi", "idempotencyKey": "s1"}


async def keys(harness: Harness) -> list[tuple[str, str, str]]:
    return [(row[0], row[1], row[2]) for row in await harness.rows("SELECT method, key, state FROM kernel_requests ORDER BY id")]


async def failure(harness: Harness, method: str, params: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    with pytest.raises(GatewayError) as failed:
        await harness.call(method, None, **params)
    return failed.value.to_wire(), failed.value.payload


async def test_a_failed_turn_is_answered_with_its_failure_again(harness: Harness) -> None:
    async def fails(turn: Turn, sink: TurnSink) -> TurnResult:
        return TurnResult(status="error", text="", error="the key is wrong", error_kind="unknown")

    harness.runtime.script = fails
    first = await failure(harness, "agent", AGENT)
    assert await failure(harness, "agent", AGENT) == first
    await harness.restart()
    assert await failure(harness, "agent", AGENT) == first
    assert len(harness.runtime.turns) == 1


async def test_an_answer_of_a_turn_is_told_again_whole(harness: Harness) -> None:
    text = "word " * 4000

    async def talks(turn: Turn, sink: TurnSink) -> TurnResult:
        return TurnResult(status="ok", text=text, stop_reason="stop")

    harness.runtime.script = talks
    first = await harness.call("agent", None, **AGENT)
    assert first["result"]["payloads"][0]["text"] == text
    await harness.restart()
    assert await harness.call("agent", None, **AGENT) == first


async def test_a_caller_that_lost_its_answer_gets_it_by_asking_again(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    call = asyncio.ensure_future(harness.call("agent", None, **AGENT))
    await gate.running("hi")
    call.cancel()
    assert (await harness.call("agent", None, **AGENT))["status"] == "in_flight"
    gate.let("hi")
    await harness.events.terminal("r1")
    again = await harness.call("agent", None, **AGENT)
    assert (again["status"], again["result"]["payloads"][0]["text"]) == ("ok", "done: hi")
    assert await keys(harness) == [("agent", "r1", "done")]


async def test_what_failed_to_be_sent_is_not_sent_by_a_repeat(harness: Harness) -> None:
    async def blocked(message: OutboundMessage) -> None:
        raise SendFailed("blocked", permanent=True)

    harness.channels.script = blocked
    first = await failure(harness, "send", SEND)
    assert await failure(harness, "send", SEND) == first
    await harness.restart()
    assert await failure(harness, "send", SEND) == first
    assert len(harness.channels.attempts) == 1


async def test_a_send_that_was_cut_off_goes_out_once_and_its_repeat_waits_for_it(harness: Harness) -> None:
    entered = asyncio.Event()

    async def never(message: OutboundMessage) -> None:
        entered.set()
        await asyncio.Event().wait()

    harness.channels.script = never
    harness.channels.idempotent.add("irc")
    call = asyncio.ensure_future(harness.call("send", None, **SEND))
    await entered.wait()
    await harness.crash()
    call.cancel()
    assert await asyncio.gather(call, return_exceptions=True)
    harness.channels.script = None
    await harness.start()
    assert await keys(harness) == [("send", "s1", "in_flight")]
    sent = await harness.call("send", None, **SEND)
    assert sent["messageId"] == "m1"
    assert await harness.call("send", None, **SEND) == sent
    assert len(harness.channels.sent) == 1
    assert await keys(harness) == [("send", "s1", "done")]


async def test_a_repeated_stop_word_does_not_stop_the_turn_that_came_after(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("one", "k1")
    await gate.running("one")
    stopped = await harness.send("stop", "halt")
    assert stopped["runIds"] == ["k1"]
    await harness.events.terminal("k1")
    await harness.send("two", "k2")
    await gate.running("two")
    assert await harness.send("stop", "halt") == stopped
    gate.let("two")
    assert (await harness.events.terminal("k2"))["state"] == "final"


async def test_a_refusal_before_anything_was_done_leaves_the_key_free(harness: Harness) -> None:
    with pytest.raises(InvalidRequest, match="nobody"):
        await harness.call("chat.send", None, sessionKey="main", message="hi", idempotencyKey="k1", agentId="nobody")
    assert await keys(harness) == []
    assert (await harness.send("hi", "k1"))["status"] == "started"


async def test_a_conflict_leaves_neither_message_nor_key(harness: Harness) -> None:
    await harness.ask("hi", "k1")
    with pytest.raises(InvalidRequest):
        await harness.call("agent", None, message="another", idempotencyKey="k1")
    assert await keys(harness) == [("chat.send", "k1", "done")]
    assert len(await harness.states()) == 1


async def test_a_client_cannot_read_what_another_was_answered(harness: Harness) -> None:
    mine = await harness.call("send", TestClient(principal="device:a"), **SEND)
    theirs = await harness.call("send", TestClient(principal="device:b"), **SEND)
    assert (mine["messageId"], theirs["messageId"]) == ("m1", "m2")


async def test_a_client_is_not_hindered_by_the_run_of_another_with_its_key(harness: Harness) -> None:
    """Each has a run of its own under the key, waits for its own and stops its own."""
    gate = Gate()
    harness.runtime.script = gate
    ann, bob = TestClient(principal="device:ann"), TestClient(principal="device:bob")
    calls = {}
    for client, text in ((ann, "ann"), (bob, "bob")):
        params = {"sessionKey": text, "message": text, "idempotencyKey": "same"}
        calls[text] = asyncio.create_task(harness.call("agent", client, **params))
        await gate.running(text)
    waits = [asyncio.create_task(harness.call("agent.wait", client, runId="same", timeoutMs=20_000)) for client in (ann, bob)]
    gate.let("ann")
    assert (await calls["ann"])["result"]["payloads"][0]["text"] == "done: ann"
    assert (await waits[0])["status"] == "ok"
    assert (await harness.call("agent.wait", ann, runId="same", timeoutMs=0))["status"] == "ok"
    assert (await harness.call("agent.wait", bob, runId="same", timeoutMs=0))["status"] == "timeout"
    assert not waits[1].done()
    for method, key in (("chat.abort", "sessionKey"), ("sessions.abort", "key")):
        with pytest.raises(InvalidRequest, match="does not belong"):
            await harness.call(method, bob, **{key: "ann", "runId": "same"})
    assert (await harness.call("chat.abort", bob, sessionKey="bob", runId="same"))["runIds"] == ["same"]
    with pytest.raises(GatewayError):
        await calls["bob"]
    assert (await waits[1])["status"] == "error"
    assert (await harness.call("agent.wait", ann, runId="same", timeoutMs=0))["status"] == "ok"


@pytest.mark.parametrize(("method", "key"), [("chat.abort", "sessionKey"), ("sessions.abort", "key")])
async def test_a_client_stops_its_own_run_where_another_of_its_id_waits_in_the_session(harness: Harness, method: str, key: str) -> None:
    gate = Gate()
    harness.runtime.script = gate
    ann, bob = TestClient(principal="device:ann"), TestClient(principal="device:bob")
    for client, text in ((ann, "first"), (bob, "second")):
        await harness.call("chat.send", client, sessionKey="main", message=text, idempotencyKey="same")
    await gate.running("first")
    await harness.call(method, ann, **{key: "main", "runId": "same"})
    await gate.running("second")
    assert gate.cancelled == ["first"]
    gate.let("second")
    assert (await harness.call("agent.wait", bob, runId="same", timeoutMs=20_000))["status"] == "ok"


async def test_what_was_answered_before_there_was_a_table_is_still_known(harness: Harness) -> None:
    """Rows of the version before have key and answer in the plugin's own columns."""
    first = await harness.send("hi", "k1")
    sent = await harness.call("send", None, **SEND)

    def age(connection: sqlite3.Connection) -> None:
        digests = dict(connection.execute("SELECT method, digest FROM kernel_requests"))
        connection.execute("UPDATE conversation_inbound SET reply = ?", (json.dumps(first),))
        connection.execute("UPDATE conversation_outbox SET request_key = 'token:s1', request_hash = ?", (digests["send"],))
        connection.execute("DELETE FROM kernel_requests")

    await harness.events.terminal("k1")
    await harness.store.write(age)
    assert await harness.send("hi", "k1") == first
    assert await harness.call("send", None, **SEND) == sent
    assert len(harness.channels.sent) == 1
    another = {"sessionKey": "main", "message": "x", "idempotencyKey": "k1"}
    for method, params in (("send", {**SEND, "message": "other"}), ("chat.send", another)):
        with pytest.raises(InvalidRequest) as refused:
            await harness.call(method, None, **params)
        assert refused.value.details == {"reason": "chat-request-conflict"}


# --- the real process -------------------------------------------------------------------------------------------------


def rows(gateway: RunningGateway, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{gateway.home}/state.sqlite3?mode=ro", uri=True)) as connection:
        return connection.execute(statement).fetchall()


def change(gateway: RunningGateway, statement: str) -> None:
    with closing(sqlite3.connect(gateway.home / "state.sqlite3")) as connection:
        connection.execute(statement)
        connection.commit()


async def test_killed_after_the_acceptance_a_repeat_is_no_second_message(gateway: RunningGateway) -> None:
    params = {"sessionKey": "main", "message": "!slow 100\n" + "word " * 50, "idempotencyKey": "k1"}
    async with gateway.connect() as client:
        first = await client.request("chat.send", params)
        await gateway.kill()
    await gateway.start()
    async with gateway.connect() as client:
        again = await client.request("chat.send", params)
        assert again in (first, {"runId": "k1", "status": "in_flight"})
        with pytest.raises(RequestFailed) as refused:
            await client.request("chat.send", {**params, "message": "other"})
        assert refused.value.details["reason"] == "chat-request-conflict"
        await client.request("agent.wait", {"runId": "k1", "timeoutMs": 20_000})
        assert await client.request("chat.send", params) == first
    assert rows(gateway, "SELECT count(*) FROM conversation_inbound") == [(1,)]


async def test_killed_before_the_answer_arrives_the_message_is_one(gateway: RunningGateway) -> None:
    """The request is sent and the process killed without waiting for the answer: on disk with its key, or not at all."""
    params = {"sessionKey": "main", "message": "hello", "idempotencyKey": "k1"}
    for _ in range(3):
        async with gateway.connect() as client:
            await client.send({"type": "req", "id": "x", "method": "chat.send", "params": params})
            await gateway.kill()
        await gateway.start()
        assert rows(gateway, "SELECT count(*) FROM kernel_requests") == rows(gateway, "SELECT count(*) FROM conversation_inbound")
    async with gateway.connect() as client:
        await client.request("chat.send", params)
        await client.request("agent.wait", {"runId": "k1", "timeoutMs": 20_000})
    assert rows(gateway, "SELECT count(*) FROM conversation_inbound") == [(1,)]


async def test_an_answered_call_is_answered_alike_after_a_kill(gateway: RunningGateway) -> None:
    """`chat.inject` is carried out by the kernel's rules alone; its failures are answers too."""
    good = {"sessionKey": "main", "message": "a note", "idempotencyKey": "n1"}
    bad = {"sessionKey": "agent:nobody:main", "message": "a note", "idempotencyKey": "n2"}
    async with gateway.connect() as client:
        first = await client.request("chat.inject", good)
        with pytest.raises(RequestFailed) as failed:
            await client.request("chat.inject", bad)
        await gateway.kill()
    await gateway.start()
    async with gateway.connect() as client:
        assert await client.request("chat.inject", good) == first
        with pytest.raises(RequestFailed) as again:
            await client.request("chat.inject", bad)
        assert again.value.error == failed.value.error
        history = await client.request("chat.history", {"sessionKey": "main"})
        assert len(history["messages"]) == 1


async def test_a_call_cut_off_by_a_kill_is_told_as_unknown(gateway: RunningGateway) -> None:
    params = {"sessionKey": "main", "message": "a note", "idempotencyKey": "n1"}
    async with gateway.connect() as client:
        await client.request("chat.inject", params)
        await gateway.kill()
    # What a kill between the work and its answer leaves.
    change(gateway, "UPDATE kernel_requests SET state = 'in_flight', payload = NULL")
    await gateway.start()
    async with gateway.connect() as client:
        with pytest.raises(RequestFailed) as told:
            await client.request("chat.inject", params)
        assert (told.value.code, told.value.details["reason"]) == ("UNAVAILABLE", "idempotency-unknown")
        history = await client.request("chat.history", {"sessionKey": "main"})
        assert len(history["messages"]) == 1


async def test_killed_in_a_turn_the_repeat_of_agent_tells_how_it_ended(gateway: RunningGateway) -> None:
    params = {"sessionKey": "main", "message": "!slow 20\n" + "word " * 20, "idempotencyKey": "r1"}
    async with gateway.connect() as client:
        await client.send({"type": "req", "id": "x", "method": "agent", "params": params})
        await client.expect_event(is_chat("delta", run="r1"))
        await gateway.kill()
    await gateway.start()
    async with gateway.connect() as client:
        await client.request("agent.wait", {"runId": "r1", "timeoutMs": 20_000})
        answers = []
        for _ in range(2):
            try:
                answers.append(await client.request("agent", params, expect_final=True))
            except RequestFailed as failed:
                answers.append(failed.error)
        assert answers[0] == answers[1]
    assert rows(gateway, "SELECT count(*) FROM conversation_inbound") == [(1,)]
    assert rows(gateway, "SELECT state FROM kernel_requests") == [("done",)]


async def test_clients_with_one_key_are_strangers_to_each_other(gateway: RunningGateway) -> None:
    """The token's holder and a paired device: each gets its own answer, and no conflict tells of the other's."""
    answers: list[str] = []
    device = Device().connect(gateway.ws_url, auth={"token": gateway.token}, scopes=("operator.write",))
    for connected in (gateway.connect(), device):
        async with connected as client:
            params = {"sessionKey": "main", "message": f"number {len(answers)}", "idempotencyKey": "same"}
            first = await client.request("agent", params, expect_final=True)
            assert await client.request("agent", params, expect_final=True) == first
            answers.append(first["result"]["payloads"][0]["text"])
    assert answers == ["number 0", "number 1"]
    assert len(rows(gateway, "SELECT DISTINCT principal FROM kernel_requests")) == 2
