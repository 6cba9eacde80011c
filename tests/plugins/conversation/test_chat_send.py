"""chat.send: the answer, its events, and what a repeated request gets."""

from __future__ import annotations

import asyncio
import base64

import pytest

from openclaw_kernel.api import (
    AssistantMessage,
    GatewayError,
    InvalidRequest,
    OutboundMessage,
    Step,
    Text,
    ToolCall,
    ToolResultMessage,
    Turn,
    TurnResult,
    TurnSink,
    Usage,
)
from tests.plugins.conversation.harness import Gate, Harness, TestClient, say, until


async def test_an_answer_comes_as_deltas_and_one_final(harness: Harness) -> None:
    ack = await harness.send("hello", "k1")
    assert ack == {"runId": "k1", "status": "started", "messageSeq": 1}
    final = await harness.events.terminal("k1")
    assert final["state"] == "final"
    assert final["message"]["content"] == [{"type": "text", "text": "you said: hello"}]
    assert final["stopReason"] == "stop"
    deltas = harness.events.of("chat", runId="k1", state="delta")
    assert [delta["deltaText"] for delta in deltas] == ["you said: hello"]
    assert deltas[0]["seq"] < final["seq"]
    phases = [event["data"]["phase"] for event in harness.events.of("agent", stream="lifecycle")]
    assert phases == ["start", "end"]
    assert await harness.texts() == [("user", "hello"), ("assistant", "you said: hello")]
    assert [state for _, state, _ in await harness.settled()] == ["answered"]


async def test_deltas_are_cumulative_and_paced_with_the_first_at_once(harness: Harness) -> None:
    async def stream(turn: Turn, sink: TurnSink) -> TurnResult:
        for _ in range(40):
            sink.text("word ")
            await asyncio.sleep(0.005)
        return TurnResult(status="ok", text="word " * 40)

    harness.runtime.script = stream
    await harness.ask("go", "k1")
    deltas = harness.events.of("chat", runId="k1", state="delta")
    assert deltas[0]["deltaText"] == "word "
    # 200 ms or more at one delta in 75 ms; every word by itself would make 40.
    assert 2 <= len(deltas) <= 12
    so_far = ""
    for delta in deltas:
        so_far += delta["deltaText"]
        assert delta["message"]["content"][0]["text"] == so_far
    assert so_far == "word " * 40
    assert [delta["seq"] for delta in deltas] == sorted({delta["seq"] for delta in deltas})


async def test_a_repeat_while_it_runs_is_in_flight_and_afterwards_as_first_answered(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    first = await harness.send("hello", "k1")
    await gate.running("hello")
    assert await harness.send("hello", "k1") == {"runId": "k1", "status": "in_flight"}
    gate.let("hello")
    await harness.events.terminal("k1")
    assert await harness.send("hello", "k1") == first
    await harness.restart()
    assert await harness.send("hello", "k1") == first
    assert gate.started == ["hello"]
    assert len(harness.events.of("chat", runId="k1", state="final")) == 1


@pytest.mark.parametrize("finished", [False, True])
async def test_the_same_key_with_another_payload_is_refused(harness: Harness, *, finished: bool) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("hello", "k1")
    if finished:
        gate.let("hello")
        await harness.events.terminal("k1")
    with pytest.raises(InvalidRequest) as refused:
        await harness.send("something else", "k1")
    assert refused.value.details == {"reason": "chat-request-conflict"}
    gate.let("hello")
    await harness.events.terminal("k1")


async def test_one_key_of_two_principals_is_two_messages(harness: Harness) -> None:
    await harness.ask("from one", "k1")
    other = TestClient(principal="device:2")
    await harness.call("chat.send", other, sessionKey="main", message="from two", idempotencyKey="k1")
    await until(lambda: len(harness.runtime.turns) == 2)


async def test_a_connection_that_goes_away_does_not_take_its_message_back(harness: Harness) -> None:
    call = asyncio.ensure_future(harness.send("hello", "k1"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    call.cancel()
    final = await harness.events.terminal("k1")
    assert final["state"] == "final"
    assert [state for _, state, _ in await harness.settled()] == ["answered"]


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"sessionKey": "main", "message": "  "}, "is empty"),
        ({"sessionKey": "agent::x", "message": "hi"}, "no session key"),
        ({"sessionKey": "agent:other:main", "message": "hi", "agentId": "main"}, "does not own"),
        ({"sessionKey": "main", "message": "hi", "thinking": "deeply"}, "no level"),
        ({"sessionKey": "main", "message": "hi", "nonsense": 1}, "nonsense"),
        ({"sessionKey": "main", "message": "hi", "attachments": [{"content": "???"}]}, "base64"),
    ],
)
async def test_a_request_that_cannot_be_is_refused(harness: Harness, params: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        await harness.call("chat.send", None, idempotencyKey="k1", **params)
    assert await harness.states() == []


async def test_an_unknown_agent_is_named(harness: Harness) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await harness.send("hi", "k1", session="agent:nobody:main")
    assert refused.value.details == {"code": "UNKNOWN_AGENT_ID", "agentId": "nobody"}


async def test_history_and_session_reach_the_turn(harness: Harness) -> None:
    await harness.ask("one", "k1")
    await harness.ask("two", "k2", thinking="high", timeoutMs=5000)
    first, second = harness.runtime.turns
    assert first.history == ()
    assert [type(message).__name__ for message in second.history] == ["UserMessage", "AssistantMessage"]
    assert second.thinking == "high"
    assert second.timeout_seconds == 5
    assert second.session_id == first.session_id
    assert second.session_key == "agent:main:main"
    # The cached history and the one read from disk are the same.
    await harness.restart()
    await harness.ask("three", "k3")
    assert harness.runtime.turns[2].history[:2] == second.history


async def test_attachments_become_parts_of_the_message(harness: Harness) -> None:
    picture = base64.b64encode(b"\x89PNG-bytes").decode()
    note = base64.b64encode("grüße".encode()).decode()
    files = [
        {"type": "image", "mimeType": "image/png", "fileName": "a.png", "content": f"data:image/png;base64,{picture}"},
        {"mimeType": "text/plain", "fileName": "n.txt", "content": note, "sizeBytes": 7},
    ]
    await harness.ask("see", "k1", attachments=files)
    parts = harness.runtime.turns[0].message.to_json()["content"]
    assert parts[1] == {"type": "image", "mimeType": "image/png", "data": picture, "fileName": "a.png"}
    assert parts[2] == {"type": "file", "mimeType": "text/plain", "fileName": "n.txt", "text": "grüße"}
    assert await harness.rows("SELECT count(*) FROM conversation_attachments") == [(0,)]


@pytest.mark.parametrize(
    ("claimed", "content", "part"),
    [
        ("image/png", b"\x89PNG...", ("image", "image/png")),
        ("image/png", b"\xff\xd8\xff", ("image", "image/jpeg")),
        ("image/png", b"RIFF\x00\x00\x00\x00WEBPVP8", ("image", "image/webp")),
        ("image/png", b"just words", ("file", "image/png")),
        ("image/svg+xml", b"<svg/>", ("file", "image/svg+xml")),
        ("application/pdf", b"\x89PNG...", ("image", "image/png")),
    ],
)
async def test_only_what_is_a_picture_goes_to_the_model_as_one(
    harness: Harness, claimed: str, content: bytes, part: tuple[str, str]
) -> None:
    encoded = base64.b64encode(content).decode()
    await harness.ask("see", "k1", attachments=[{"type": "image", "mimeType": claimed, "content": encoded}])
    (found,) = [item for item in harness.runtime.turns[0].message.to_json()["content"] if item["type"] != "text"]
    assert (found["type"], found["mimeType"]) == part


async def test_a_hundred_files_are_taken_and_more_are_not(harness: Harness) -> None:
    files = [{"mimeType": "text/plain", "fileName": f"{number}.txt", "content": "aGk="} for number in range(101)]
    with pytest.raises(InvalidRequest, match="at most 100"):
        await harness.send("many", "k1", attachments=files)
    await harness.ask("many", "k2", attachments=files[:100])
    assert len(harness.runtime.turns[0].message.to_json()["content"]) == 101


async def test_attachments_of_a_waiting_message_survive_a_restart(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("first", "k1")
    await gate.running("first")
    content = base64.b64encode(b"\x89PNG").decode()
    await harness.send("second", "k2", attachments=[{"mimeType": "image/png", "content": content}])
    await harness.restart()
    gate.let("first")
    await gate.running("second")
    gate.let("second")
    await harness.events.terminal("k2")
    assert harness.runtime.turns[-1].message.to_json()["content"][1]["data"] == content
    assert await harness.rows("SELECT count(*) FROM conversation_attachments") == [(0,)]


async def test_an_image_over_the_limit_is_refused(harness: Harness) -> None:
    content = base64.b64encode(b"x" * (6 * 1024 * 1024 + 1)).decode()
    with pytest.raises(InvalidRequest, match="at most 6291456"):
        await harness.send("see", "k1", attachments=[{"mimeType": "image/png", "content": content}])


async def use_a_tool(turn: Turn, sink: TurnSink) -> TurnResult:
    sink.text("I will look. ")
    await sink.record(AssistantMessage(content=(Text("I will look. "), ToolCall("c1", "fetch", {"url": "x"}))))
    sink.tool("start", call_id="c1", name="fetch", arguments={"url": "x"})
    await sink.record_step(Step(kind="tool", name="fetch", started_ms=1, ended_ms=2, retry_class="pure"))
    sink.tool("result", call_id="c1", name="fetch", arguments={"url": "x"}, result="found")
    await sink.record(ToolResultMessage(call_id="c1", name="fetch", text="found"))
    usage = Usage(input_tokens=10, output_tokens=5)
    await sink.record_step(Step(kind="model", name="echo/echo-1", started_ms=3, ended_ms=4, usage=usage, cost_usd=0.5))
    sink.text("It is there.")
    await sink.record(AssistantMessage(content=(Text("It is there."),), provider="echo", model="echo-1"))
    return TurnResult(status="ok", text="I will look. It is there.", stop_reason="stop", usage=usage, cost_usd=0.5, model="echo/echo-1")


async def test_a_piece_of_an_answer_stands_for_those_before_it_but_not_across_a_tool_call(harness: Harness) -> None:
    """P25: what the log leaves out for who comes back is told again by what it keeps."""

    async def with_pauses(turn: Turn, sink: TurnSink) -> TurnResult:
        for word in ("one ", "two "):
            sink.text(word)
            await harness.events.first("chat", state="delta", deltaText=word)
        return await use_a_tool(turn, sink)

    harness.runtime.script = with_pauses
    await harness.call("chat.send", sessionKey="main", message="look", idempotencyKey="k1")
    await harness.events.terminal("k1")
    newest: dict[str, str] = {}
    for sent in harness.events.sent:
        key = sent.options["replaces"]
        if sent.event == "agent" and sent.payload["stream"] == "assistant":
            assert sent.payload["data"]["text"].startswith(newest.get(key, ""))
            newest[key] = sent.payload["data"]["text"]
        elif sent.payload.get("state") != "delta":
            assert key is None, sent
    assert list(newest.values()) == ["one two ", "one two I will look. ", "one two I will look. It is there."]


async def test_tool_steps_go_to_the_owner_and_to_the_sessions_subscribers(harness: Harness) -> None:
    harness.runtime.script = use_a_tool
    owner = TestClient(connection_id="mine", caps=frozenset({"tool-events"}))
    await harness.call("chat.send", owner, sessionKey="main", message="look", idempotencyKey="k1")
    final = await harness.events.terminal("k1")
    tools = [sent for sent in harness.events.sent if sent.payload.get("stream") == "tool"]
    own = [sent for sent in tools if sent.event == "agent"]
    assert [sent.payload["data"]["phase"] for sent in own] == ["start", "result"]
    assert all(sent.options["connections"] == ("mine",) for sent in own)
    others = [sent for sent in tools if sent.event == "session.tool"]
    assert [sent.payload["data"]["phase"] for sent in others] == ["start", "result"]
    assert others[0].options["topics"] == ("sessions", "session:agent:main:main")
    assert others[0].options["exclude"] == ("mine",)
    assert final["message"]["content"][0]["text"] == "I will look. It is there."
    assert [role for role, _ in await harness.texts()] == ["user", "assistant", "toolResult", "assistant"]
    messages = harness.events.of("session.message")
    assert [event["messageSeq"] for event in messages] == [1, 2, 3, 4]
    assert all(event["message"]["__openclaw"]["id"] == event["messageId"] for event in messages)
    steps = await harness.rows("SELECT kind, name, cost_usd FROM conversation_steps ORDER BY id")
    assert steps == [("tool", "fetch", None), ("model", "echo/echo-1", 0.5)]
    row = (await harness.call("sessions.list"))["sessions"][0]
    assert (row["inputTokens"], row["outputTokens"], row["estimatedCostUsd"]) == (10, 5, 0.5)


async def test_a_client_without_the_cap_gets_no_tool_events_of_its_own(harness: Harness) -> None:
    harness.runtime.script = use_a_tool
    await harness.ask("look", "k1")
    assert harness.events.of("agent", stream="tool") == []
    assert len(harness.events.of("session.tool")) == 2


async def fail(turn: Turn, sink: TurnSink) -> TurnResult:
    return TurnResult(status="error", text="", error="the key is wrong", error_kind="unknown")


async def burst(turn: Turn, sink: TurnSink) -> TurnResult:
    raise RuntimeError("bug")


async def nothing(turn: Turn, sink: TurnSink) -> TurnResult:
    return TurnResult(status="ok", text="")


@pytest.mark.parametrize(("script", "message"), [(fail, "the key is wrong"), (burst, "RuntimeError"), (nothing, "empty answer")])
async def test_a_turn_that_fails_ends_visibly(harness: Harness, script: object, message: str) -> None:
    harness.runtime.script = script  # type: ignore[assignment]
    error = await harness.ask("hello", "k1")
    assert error["state"] == "error"
    assert message in error["errorMessage"]
    assert [state for _, state, _ in await harness.settled()] == ["dead_lettered"]
    history = await harness.call("chat.history", None, sessionKey="main")
    assert message in history["messages"][-1]["errorMessage"]
    harness.runtime.script = say
    assert (await harness.ask("again", "k2"))["state"] == "final"
    # The failed answer has no words, and a model is not given a message without any.
    assert [message.role for message in harness.runtime.turns[-1].history] == ["user"]


async def test_a_silent_answer_has_a_final_without_a_message(harness: Harness) -> None:
    async def silent(turn: Turn, sink: TurnSink) -> TurnResult:
        return TurnResult(status="ok", text="NO_REPLY")

    harness.runtime.script = silent
    final = await harness.ask("psst", "k1")
    assert final["state"] == "final"
    assert "message" not in final
    assert (await harness.settled())[0][1:] == ("suppressed", "silent")


async def test_a_turn_that_overruns_its_time_is_ended_and_the_lane_goes_on(harness: Harness) -> None:
    gate = Gate(stubborn=True)
    harness.runtime.script = gate
    ended = await harness.ask("slow", "k1", timeoutMs=100)
    assert (ended["state"], ended["errorKind"]) == ("error", "timeout")
    harness.runtime.script = say
    assert (await harness.ask("next", "k2"))["state"] == "final"
    gate.released.set()


async def test_delivery_takes_the_answer_to_a_channel_too(harness: Harness) -> None:
    await harness.ask("hello", "k1", deliver=True, originatingChannel="telegram", originatingTo="group:-100", originatingThreadId="5")
    (sent,) = await _sent(harness, 1)
    assert (sent.text, sent.target.peer_kind, sent.target.peer_id) == ("you said: hello", "group", "-100")
    assert (sent.target.thread_id, sent.run_id) == ("5", "k1")
    assert harness.runtime.turns[0].channel == "telegram"
    # Without a place of its own, delivery goes where the session's messages came from last.
    await harness.ask("more", "k2", deliver=True)
    assert (await _sent(harness, 2))[1].target == sent.target


async def _sent(harness: Harness, count: int) -> list[OutboundMessage]:
    await until(lambda: len(harness.channels.sent) >= count)
    return list(harness.channels.sent)


async def test_commands_answer_as_a_run(harness: Harness) -> None:
    await harness.ask("hello", "k1")
    before = (await harness.call("sessions.list"))["sessions"][0]["sessionId"]
    final = await harness.ask("/new", "k2")
    assert final["state"] == "final"
    assert "new conversation" in final["message"]["content"][0]["text"]
    assert (await harness.call("sessions.list"))["sessions"][0]["sessionId"] != before
    assert await harness.texts() == []
    for key, (command, word) in enumerate([("/status", "Model"), ("/model", "echo/echo-2"), ("/help", "/stop")]):
        final = await harness.ask(command, f"c{key}")
        assert word in final["message"]["content"][0]["text"], command
    await harness.ask("/model echo/echo-2", "m1")
    await harness.ask("which", "k3")
    assert harness.runtime.turns[-1].model == "echo/echo-2"
    assert "no model" in (await harness.ask("/model nope/x", "m2"))["message"]["content"][0]["text"]


async def test_interpretation_of_commands_can_be_suppressed(harness: Harness) -> None:
    final = await harness.ask("/new", "k1", suppressCommandInterpretation=True)
    assert final["message"]["content"][0]["text"] == "you said: /new"


async def test_a_store_that_fails_is_told_and_blocks_nobody(harness: Harness) -> None:
    await harness.ask("warm", "k0")
    original = harness.store.write

    async def broken(work: object) -> object:
        raise GatewayError("disk full")

    harness.store.write = broken  # type: ignore[method-assign, assignment]
    with pytest.raises(GatewayError, match="disk full"):
        await harness.send("hello", "k1")
    harness.store.write = original  # type: ignore[method-assign]
    assert (await harness.ask("hello", "k1"))["state"] == "final"
