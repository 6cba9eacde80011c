"""agent, agent.wait and send."""

from __future__ import annotations

import asyncio
import base64

import pytest

from openclaw_kernel.api import (
    AgentTimeout,
    GatewayError,
    InvalidRequest,
    OutboundMessage,
    Scope,
    SendFailed,
    Turn,
    TurnResult,
    TurnSink,
    Unavailable,
)
from openclaw_plugins.conversation.methods_agent import agent_scopes
from openclaw_plugins.conversation.wire import AgentParams
from tests.plugins.conversation.harness import Gate, Harness, TestClient, until


async def test_agent_answers_twice(harness: Harness) -> None:
    params = {"message": "hello", "idempotencyKey": "r1", "sessionKey": "side", "extraSystemPrompt": "Be brief"}
    accepted, final = await harness.answers("agent", TestClient(), params)
    assert (accepted["status"], accepted["sessionKey"], accepted["runId"]) == ("accepted", "agent:main:side", "r1")
    assert (final["status"], final["summary"]) == ("ok", "completed")
    assert final["result"]["payloads"] == [{"text": "you said: hello", "mediaUrl": None}]
    assert harness.runtime.turns[0].extra_system_prompt == "Be brief"
    (again,) = await harness.answers("agent", TestClient(), params)
    assert again["result"]["payloads"] == final["result"]["payloads"]
    await harness.restart()
    (later,) = await harness.answers("agent", TestClient(), params)
    assert later["status"] == "ok"
    assert len(harness.runtime.turns) == 1


async def test_agent_uses_the_main_session_of_the_named_agent(harness: Harness) -> None:
    accepted, _ = await harness.answers(
        "agent", TestClient(), {"message": "hi", "idempotencyKey": "r1", "agentId": "other", "model": "echo/echo-2"}
    )
    assert accepted["sessionKey"] == "agent:other:main"
    assert harness.runtime.turns[0].model == "echo/echo-2"
    session_id = harness.runtime.turns[0].session_id
    accepted, _ = await harness.answers("agent", TestClient(), {"message": "hi", "idempotencyKey": "r2", "sessionId": session_id})
    assert accepted["sessionKey"] == "agent:other:main"
    with pytest.raises(InvalidRequest, match="no session"):
        await harness.call("agent", None, message="hi", idempotencyKey="r3", sessionId="nothing")


async def test_a_failed_turn_fails_the_second_answer(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    with pytest.raises(AgentTimeout) as late:
        await harness.call("agent", None, message="slow", idempotencyKey="r1", timeout=1)
    assert late.value.payload is not None
    assert late.value.payload["status"] == "timeout"
    running = asyncio.ensure_future(harness.call("agent", None, message="work", idempotencyKey="r2"))
    await gate.running("work")
    await harness.call("chat.abort", None, sessionKey="main")
    with pytest.raises(Unavailable) as stopped:
        await running
    assert stopped.value.payload == {"runId": "r2", "status": "error", "summary": "stopped"}


async def test_a_repeat_of_a_running_agent_call_is_in_flight(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    first = asyncio.ensure_future(harness.call("agent", None, message="work", idempotencyKey="r1"))
    await gate.running("work")
    again = await harness.call("agent", None, message="work", idempotencyKey="r1")
    assert again == {"runId": "r1", "status": "in_flight"}
    gate.let("work")
    assert (await first)["status"] == "ok"


def test_resetting_by_message_needs_the_admin_scope() -> None:
    def scopes(message: str) -> tuple[Scope, ...]:
        return tuple(agent_scopes(AgentParams.model_validate({"message": message, "idempotencyKey": "k"})))

    assert scopes("/new") == scopes("/RESET now") == (Scope.ADMIN,)
    assert scopes("hello") == scopes("/newer") == ()


async def test_wait_knows_runs_that_run_ended_and_are_yet_to_come(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    coming = asyncio.ensure_future(harness.call("agent.wait", None, runId="k1", timeoutMs=5000))
    await harness.send("work", "k1")
    await gate.running("work")
    await harness.send("queued", "k2")
    running = await harness.call("agent.wait", None, runId="k1", timeoutMs=0)
    assert running["status"] == "timeout"
    assert "endedAt" not in running
    assert (await harness.call("agent.wait", None, runId="k2", timeoutMs=0))["status"] == "pending"
    gate.let("work")
    ended = await coming
    assert ended["status"] == "ok"
    assert ended["endedAt"] >= ended["startedAt"]
    assert (await harness.call("agent.wait", None, runId="k1", timeoutMs=0))["status"] == "ok"
    gate.let("queued")
    await harness.events.terminal("k2")
    await harness.restart()
    assert (await harness.call("agent.wait", None, runId="k1"))["status"] == "ok"
    assert await harness.call("agent.wait", None, runId="unknown", timeoutMs=10) == {
        "runId": "unknown",
        "status": "timeout",
    }


async def test_agent_delivers_to_the_place_it_is_given(harness: Harness) -> None:
    await harness.call("agent", None, message="hi", idempotencyKey="r1", deliver=True, channel="irc", to="ann")
    await until(lambda: harness.channels.sent)
    assert (harness.channels.sent[0].target.channel, harness.channels.sent[0].target.peer_id) == ("irc", "ann")


async def test_send_returns_what_the_platform_says(harness: Harness) -> None:
    sent = await harness.call("send", None, to="42", channel="telegram", message="hi", idempotencyKey="s1")
    assert sent == {"runId": "s1", "messageId": "m1", "channel": "telegram", "chatId": "42"}
    # A repeat answers the same without sending again, also later.
    assert await harness.call("send", None, to="42", channel="telegram", message="hi", idempotencyKey="s1") == sent
    await harness.restart()
    assert await harness.call("send", None, to="42", channel="telegram", message="hi", idempotencyKey="s1") == sent
    assert len(harness.channels.sent) == 1
    with pytest.raises(InvalidRequest, match="used for another"):
        await harness.call("send", None, to="42", channel="telegram", message="other", idempotencyKey="s1")


async def test_send_joins_one_that_is_under_way(harness: Harness) -> None:
    entered, go = asyncio.Event(), asyncio.Event()

    async def slow(message: OutboundMessage) -> None:
        entered.set()
        await go.wait()

    harness.channels.script = slow
    first = asyncio.ensure_future(harness.call("send", None, to="irc:ann", message="hi", idempotencyKey="s1"))
    await entered.wait()
    second = asyncio.ensure_future(harness.call("send", None, to="irc:ann", message="hi", idempotencyKey="s1"))
    await asyncio.sleep(0.02)
    go.set()
    assert await first == await second
    assert len(harness.channels.attempts) == 1


async def test_two_sends_with_one_key_at_the_same_time_are_one(harness: Harness) -> None:
    both = await asyncio.gather(*(harness.call("send", None, to="irc:ann", message="hi", idempotencyKey="s1") for _ in range(2)))
    assert both[0] == both[1]
    assert len(harness.channels.attempts) == 1


async def test_send_tells_why_it_failed(harness: Harness) -> None:
    async def blocked(message: OutboundMessage) -> None:
        raise SendFailed("blocked", permanent=True)

    harness.channels.script = blocked
    with pytest.raises(Unavailable, match="not sent to irc: blocked"):
        await harness.call("send", None, to="irc:ann", message="hi", idempotencyKey="s1")


async def test_a_send_that_has_to_wait_says_that_it_is_kept(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    from openclaw_plugins.conversation import methods_agent

    monkeypatch.setattr(methods_agent, "SEND_SECONDS", 0.05)
    harness.channels.up.remove("irc")
    with pytest.raises(Unavailable) as queued:
        await harness.call("send", None, to="irc:ann", message="hi", idempotencyKey="s1")
    assert queued.value.details == {"code": "OUTBOUND_DELIVERY_QUEUED"}
    harness.channels.up.add("irc")
    await until(lambda: harness.channels.sent)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"to": "42", "message": "hi"}, "channel: is missing"),
        ({"to": "42", "message": "hi", "channel": "pigeon"}, "no channel 'pigeon'"),
        ({"to": "42", "channel": "irc"}, "message: is empty"),
        ({"to": "42", "channel": "irc", "mediaUrl": "http://x/y.png"}, "files are not fetched"),
        ({"to": "irc:", "channel": "irc", "message": "hi"}, "names nobody"),
        ({"to": "42", "channel": "irc", "buffer": "???"}, "buffer: is no base64"),
    ],
)
async def test_a_send_that_cannot_be_is_refused(harness: Harness, params: dict[str, str], text: str) -> None:
    with pytest.raises(GatewayError, match=text):
        await harness.call("send", None, idempotencyKey="s1", **params)
    assert await harness.rows("SELECT count(*) FROM conversation_outbox") == [(0,)]


async def test_a_file_is_sent_and_the_session_remembers_the_words(harness: Harness) -> None:
    await harness.call(
        "send",
        None,
        to="group:-5",
        channel="telegram",
        message="See",
        idempotencyKey="s1",
        buffer=base64.b64encode(b"\x89PNG").decode(),
        contentType="image/png",
        filename="p.png",
        sessionKey="main",
    )
    (sent,) = harness.channels.sent
    assert (sent.attachments[0].kind, sent.attachments[0].content) == ("image", b"\x89PNG")
    assert (sent.target.peer_kind, sent.target.peer_id) == ("group", "-5")
    assert await harness.texts() == [("assistant", "See")]


async def test_two_clients_with_one_key_each_get_their_own_result(harness: Harness) -> None:
    alice, bob = TestClient(principal="device:alice"), TestClient(principal="device:bob", connection_id="c2")
    first = await harness.call("agent", alice, message="alice's secret", idempotencyKey="k1")
    second = await harness.call("agent", bob, message="bob's", idempotencyKey="k1")
    assert second["result"]["payloads"][0]["text"] == "you said: bob's"
    again = await harness.call("agent", alice, message="alice's secret", idempotencyKey="k1")
    assert again["result"] | {"meta": None} == first["result"] | {"meta": None}
    await harness.restart()
    again = await harness.call("agent", bob, message="bob's", idempotencyKey="k1")
    assert again["result"]["payloads"][0]["text"] == "you said: bob's"
    assert len(harness.runtime.turns) == 2


@pytest.mark.parametrize(("method", "words"), [("agent", {"message": "hi"}), ("chat.send", {"message": "hi"})])
@pytest.mark.parametrize("key", ["global", "unknown"])
async def test_an_agent_that_would_not_answer_is_not_named_in_vain(harness: Harness, method: str, words: dict[str, str], key: str) -> None:
    with pytest.raises(InvalidRequest, match="main answers in"):
        await harness.call(method, None, sessionKey=key, agentId="other", idempotencyKey="k1", **words)
    assert harness.runtime.turns == []


async def test_a_clock_that_was_set_back_gives_no_negative_time(harness: Harness) -> None:
    async def back(turn: Turn, sink: TurnSink) -> TurnResult:
        harness.offset_ms = -3_600_000
        return TurnResult(status="ok", text="done")

    harness.runtime.script = back
    answer = await harness.call("agent", None, message="hi", idempotencyKey="k1")
    assert answer["result"]["meta"]["durationMs"] == 0
