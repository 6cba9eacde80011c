"""A message whose place a newer one took ends as superseded by that one (P1)."""

from __future__ import annotations

import asyncio
import base64

from openclaw_config.models import Config
from openclaw_kernel.api import RetryClass, StepBegun, Turn, TurnResult, TurnSink
from tests.plugins.conversation.harness import Gate, Harness, TestClient, said

PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()


async def ends(harness: Harness) -> dict[str, tuple[str, str | None]]:
    rows = await harness.rows("SELECT run_id, state, reason FROM conversation_inbound")
    return {run_id: (state, reason) for run_id, state, reason in rows}


async def test_an_interrupting_message_supersedes_the_running_one(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("old", "k1")
    await gate.running("old")
    await harness.send("urgent", "k2", queueMode="interrupt")
    gate.let("urgent")
    await harness.events.terminal("k2")
    assert await ends(harness) == {"k1": ("superseded", "by k2"), "k2": ("answered", None)}
    why = await harness.call("messages.why", None, id="k1")
    assert (why["message"]["state"], why["message"]["supersededBy"]) == ("superseded", "k2")


async def test_messages_that_wait_for_collecting_become_one_turn(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("first", "k1")
    await gate.running("first")
    attachment = {"type": "image", "mimeType": "image/png", "fileName": "p.png", "content": PICTURE}
    await harness.send("one", "k2", queueMode="collect", attachments=[attachment])
    await harness.send("apart", "k3")
    await harness.send("two", "k4", queueMode="collect")
    await harness.send("three", "k5", queueMode="collect")
    for text in ("first", "apart", "one\n\ntwo\n\nthree"):
        gate.let(text)
    assert (await harness.events.terminal("k5"))["state"] == "final"
    assert gate.started == ["first", "apart", "one\n\ntwo\n\nthree"]
    for run_id in ("k2", "k4"):
        end = await harness.events.terminal(run_id)
        assert (end["state"], end["stopReason"]) == ("aborted", "superseded")
    found = await ends(harness)
    assert {found["k2"], found["k4"]} == {("superseded", "by k4"), ("superseded", "by k5")}
    assert found["k5"] == ("answered", None)
    parts = harness.runtime.turns[-1].message.to_json()["content"]
    assert [part["type"] for part in parts] == ["text", "image"]
    assert await harness.rows("SELECT count(*) FROM conversation_attachments") == [(0,)]


async def test_other_clients_and_other_options_are_not_collected(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("first", "k1")
    await gate.running("first")
    await harness.send("mine", "k2", queueMode="collect")
    other = TestClient(principal="device:other")
    await harness.call("chat.send", other, sessionKey="main", message="theirs", idempotencyKey="k3", queueMode="collect")
    await harness.send("thoughtful", "k4", queueMode="collect", thinking="high")
    texts = ["first", "mine", "theirs", "thoughtful"]
    for text in texts:
        gate.let(text)
    await harness.events.terminal("k4")
    assert [said(turn) for turn in harness.runtime.turns] == texts
    assert {state for state, _ in (await ends(harness)).values()} == {"answered"}


async def test_what_was_collected_stays_so_after_a_crash(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("first", "k1")
    await gate.running("first")
    await harness.send("one", "k2", queueMode="collect")
    await harness.send("two", "k3", queueMode="collect")
    await harness.crash()
    gate.let("first")
    gate.let("one\n\ntwo")
    await harness.start()
    await harness.settled()
    assert gate.started.count("one\n\ntwo") == 1
    assert not {"one", "two"} & set(gate.started)
    assert (await ends(harness))["k2"] == ("superseded", "by k3")


async def test_an_interrupting_message_without_room_interrupts_nothing(harness: Harness) -> None:
    harness.config = Config.model_validate({"session": {"queueLimit": 1}})
    ready = asyncio.Event()

    async def pay(turn: Turn, sink: TurnSink) -> TurnResult:
        await ready.wait()
        call = StepBegun(kind="tool", name="pay", started_ms=1, retry_class=RetryClass.SIDE_EFFECTING, call_id="c1", arguments={})
        await sink.begin_step(call)
        return TurnResult(status="ok", text="paid", stop_reason="stop")

    harness.runtime.script = pay
    await harness.send("first", "k1")
    await harness.send("second", "k2")
    refused = await harness.send("urgent", "k3", queueMode="interrupt")
    assert "interruptedActiveRun" not in refused
    assert (await harness.events.terminal("k3"))["state"] == "error"
    ready.set()
    assert (await harness.events.terminal("k1"))["state"] == "final"
    await harness.events.terminal("k2")
    found = await ends(harness)
    assert (found["k1"], found["k2"], found["k3"][0]) == (("answered", None), ("answered", None), "dead_lettered")
