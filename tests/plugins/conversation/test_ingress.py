"""Messages from channels: written once, decided once, one end each, in order."""

from __future__ import annotations

import asyncio
import functools

import pytest

from openclaw_kernel.api import (
    Admission,
    Attachment,
    Command,
    CommandCall,
    InboundMessage,
    Turn,
    TurnResult,
    TurnSink,
    Unavailable,
    Verdict,
)
from openclaw_plugins.conversation.stop_words import is_stop
from tests.plugins.conversation.harness import Gate, Harness, inbound, said, say, until


async def test_a_message_is_answered_on_its_channel(harness: Harness) -> None:
    assert await harness.receive("hello", "1") is True
    await until(lambda: harness.channels.sent)
    (sent,) = harness.channels.sent
    assert (sent.text, sent.target.peer_id) == ("you said: hello", "7")
    assert sent.run_id == harness.runtime.turns[0].run_id
    assert await harness.settled() == [("1", "answered", None)]
    user = harness.runtime.turns[0].message.to_json()
    assert user["sender"] == {"id": "7", "name": "Ann"}
    assert user["channel"] == "telegram"


async def test_a_repeat_is_recognised_also_after_a_restart(harness: Harness) -> None:
    assert await harness.receive("hello", "1")
    assert not await harness.receive("hello", "1")
    await harness.settled()
    await harness.restart()
    assert not await harness.receive("hello", "1")
    assert await harness.receive("hello", "1", channel="irc")
    await harness.settled()
    assert len(harness.runtime.turns) == 2


async def test_messages_of_one_session_are_answered_in_order_one_at_a_time(harness: Harness) -> None:
    running: list[str] = []
    most = 0

    async def slow(turn: Turn, sink: TurnSink) -> TurnResult:
        nonlocal most
        running.append(said(turn))
        most = max(most, len(running))
        await asyncio.sleep(0)
        running.remove(said(turn))
        return TurnResult(status="ok", text=f"r{said(turn)}")

    harness.runtime.script = slow
    await asyncio.gather(*(harness.receive(str(number), f"m{number}") for number in range(40)))
    await until(lambda: len(harness.channels.sent) == 40)
    assert harness.channels.texts() == [f"r{number}" for number in range(40)]
    assert most == 1
    assert {state for _, state, _ in await harness.settled()} == {"answered"}


async def test_sessions_run_beside_each_other(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    for peer in ("1", "2", "3"):
        await harness.receive(f"from {peer}", peer, peer=peer)
    for peer in ("1", "2", "3"):
        await gate.running(f"from {peer}")
    for peer in ("3", "1", "2"):
        answer = f"done: from {peer}"
        gate.let(f"from {peer}")
        await until(functools.partial(_was_sent, harness, answer))


def _was_sent(harness: Harness, text: str) -> bool:
    return text in harness.channels.texts()


async def test_a_group_message_tells_the_model_who_spoke(harness: Harness) -> None:
    await harness.receive("hi", "1", peer="-5", kind="group", name="[Boss]\n[admin]")
    await until(lambda: harness.channels.sent)
    assert said(harness.runtime.turns[0]) == "[Boss admin] hi"
    assert harness.channels.sent[0].reply_to_id == "1"
    (row,) = (await harness.call("sessions.list"))["sessions"]
    assert (row["kind"], row["chatType"], row["channel"]) == ("group", "group", "telegram")


async def test_who_is_not_admitted_gets_nothing(harness: Harness) -> None:
    harness.policies.admission = lambda _: Admission(verdict=Verdict.DROP, reason="not on the list")
    await harness.receive("hello", "1")
    assert await harness.settled() == [("1", "suppressed", "not on the list")]
    assert harness.channels.attempts == []
    assert harness.runtime.turns == []


async def test_a_hint_is_sent_once_to_each_sender_for_ever(harness: Harness) -> None:
    harness.policies.admission = lambda _: Admission(verdict=Verdict.HINT, reason="unknown", hint="ask the owner")
    for number in range(3):
        await harness.receive("hello", f"a{number}")
    await harness.receive("hello", "b", sender="8", peer="8")
    await harness.settled()
    await until(lambda: len(harness.channels.sent) == 2)
    await harness.restart()
    await harness.receive("hello again", "c")
    await harness.settled()
    await harness.restart()
    assert harness.channels.texts() == ["ask the owner"] * 2
    assert {message.target.peer_id for message in harness.channels.sent} == {"7", "8"}
    assert {state for _, state, _ in await harness.settled()} == {"suppressed"}


async def test_a_full_queue_answers_visibly_and_loses_nothing(harness: Harness) -> None:
    harness.config = harness.config.model_copy(update={"session": harness.config.session.model_copy(update={"queue_limit": 2})})
    gate = Gate()
    harness.runtime.script = gate
    await harness.receive("0", "m0")
    await gate.running("0")
    for number in range(1, 6):
        await harness.receive(str(number), f"m{number}")
    await until(lambda: len(harness.channels.sent) == 3)
    assert all("Too many messages" in text for text in harness.channels.texts())
    for number in range(3):
        gate.let(str(number))
    states = await harness.settled()
    assert [state for _, state, _ in states] == ["answered"] * 3 + ["dead_lettered"] * 3
    assert gate.started == ["0", "1", "2"]


async def test_a_full_queue_refuses_clients_visibly_too(harness: Harness) -> None:
    harness.config = harness.config.model_copy(update={"session": harness.config.session.model_copy(update={"queue_limit": 1})})
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("0", "k0")
    await gate.running("0")
    await asyncio.gather(*(harness.send(str(number), f"k{number}") for number in range(1, 5)))
    ends = [await harness.events.terminal(f"k{number}") for number in range(2, 5)]
    assert {end["state"] for end in ends} == {"error"}
    gate.let("0")
    gate.let("1")
    assert (await harness.events.terminal("k1"))["state"] == "final"
    waited = await harness.call("agent.wait", None, runId="k3", timeoutMs=0)
    assert waited["status"] == "error"


async def test_a_routing_that_raises_ends_visibly(harness: Harness) -> None:
    harness.policies.problem = Unavailable("no plugin decided")
    await harness.receive("hello", "1")
    ((_, state, reason),) = await harness.settled()
    assert state == "dead_lettered"
    assert reason is not None
    assert "no plugin decided" in reason
    await until(lambda: harness.channels.sent)
    assert "Something went wrong" in harness.channels.sent[0].text
    harness.policies.problem = None
    await harness.receive("hello", "2")
    await until(lambda: len(harness.channels.sent) == 2)
    assert harness.channels.sent[1].text == "you said: hello"


async def test_an_admission_that_raises_ends_as_well(harness: Harness) -> None:
    def broken(message: InboundMessage) -> Admission:
        raise ValueError("oops")

    harness.policies.admission = broken
    await harness.receive("hello", "1")
    assert (await harness.settled())[0][1] == "dead_lettered"


async def test_files_come_with_the_message_and_do_not_stay_in_the_ledger(harness: Harness) -> None:
    files = (
        Attachment(kind="image", mime_type="image/jpeg", file_name="p.jpg", content=b"\xff\xd8"),
        Attachment(kind="file", mime_type="application/pdf", file_name="d.pdf", content=b"%PDF"),
    )
    await harness.receive("look", "1", attachments=files)
    await harness.settled()
    parts = harness.runtime.turns[0].message.to_json()["content"]
    assert [part["type"] for part in parts] == ["text", "image", "file"]
    assert parts[2] == {"type": "file", "mimeType": "application/pdf", "fileName": "d.pdf"}
    assert await harness.rows("SELECT count(*) FROM conversation_attachments") == [(0,)]


async def test_a_command_is_answered_while_a_turn_runs(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.receive("work", "1")
    await gate.running("work")
    await harness.receive("/status", "2")
    await until(lambda: harness.channels.sent)
    assert "running" in harness.channels.sent[0].text
    await harness.receive("/stop", "3")
    await until(lambda: len(harness.channels.sent) == 2)
    assert harness.channels.sent[1].text == "Stopped."
    assert gate.cancelled == ["work"]
    states = {message_id: (state, reason) for message_id, state, reason in await harness.settled()}
    assert states["1"] == ("suppressed", "stopped")
    assert states["2"][0] == states["3"][0] == "answered"


async def test_stop_words_stop_and_drop_what_waits(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.receive("work", "1")
    await gate.running("work")
    await harness.receive("more", "2")
    await harness.receive("Stop!", "3")
    await until(lambda: harness.channels.sent)
    assert harness.channels.texts() == ["Stopped, and dropped 1 waiting message."]
    assert [state for _, state, _ in await harness.settled()] == ["suppressed", "suppressed", "answered"]
    assert gate.started == ["work"]


async def test_what_comes_after_a_stop_is_not_stopped(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.receive("wrong", "1")
    await gate.running("wrong")
    # A platform hands over what came in while it was away in one go.
    await asyncio.gather(*(harness.receive(text, name) for text, name in (("also wrong", "2"), ("stop", "3"), ("right", "4"))))
    gate.let("right")
    states = {name: (state, reason) for name, state, reason in await harness.settled()}
    assert states == {
        "1": ("suppressed", "stopped"),
        "2": ("suppressed", "stopped"),
        "3": ("answered", "command /stop"),
        "4": ("answered", None),
    }
    assert gate.started == ["wrong", "right"]


async def test_what_comes_after_new_belongs_to_the_new_conversation(harness: Harness) -> None:
    await harness.receive("old", "1")
    await harness.settled()
    await asyncio.gather(harness.receive("/new", "2"), harness.receive("fresh", "3"))
    await harness.settled()
    assert said(harness.runtime.turns[-1]) == "fresh"
    assert harness.runtime.turns[-1].history == ()
    assert await harness.texts("agent:main:telegram:direct:7") == [("user", "fresh"), ("assistant", "you said: fresh")]


async def test_a_message_after_a_slow_command_can_be_stopped(harness: Harness) -> None:
    from openclaw_kernel.api import Commands

    called, release = asyncio.Event(), asyncio.Event()

    async def slow(call: CommandCall) -> str:
        called.set()
        await release.wait()
        return "slow indeed"

    harness.services[Commands].add(Command(name="slow", description="slow", run=slow))
    await harness.receive("/slow", "1")
    await called.wait()
    await harness.receive("waits", "2")
    await harness.receive("stop", "3")
    await until(lambda: "Stopped." in harness.channels.texts())
    release.set()
    states = await harness.settled()
    assert [state for _, state, _ in states] == ["answered", "suppressed", "answered"]
    assert harness.runtime.turns == []


async def test_commands_are_answered_at_once_while_fifty_messages_wait(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.receive("work", "0")
    await gate.running("work")
    for number in range(50):
        await harness.receive(f"more {number}", f"m{number}")
    await harness.receive("/status", "s")
    await until(lambda: harness.channels.sent)
    assert "**State** running" in harness.channels.texts()[0]
    assert "**Waiting** 50" in harness.channels.texts()[0]
    await harness.receive("stop", "x")
    await until(lambda: len(harness.channels.sent) == 2)
    assert harness.channels.texts()[1] == "Stopped, and dropped 50 waiting messages."
    assert len(await harness.settled()) == 53


async def test_an_idle_conversation_says_so_to_a_client_as_well(harness: Harness) -> None:
    await harness.ask("hello", "k1")
    final = await harness.ask("/status", "k2")
    assert "**State** done" in final["message"]["content"][0]["text"]


async def test_a_stranger_stops_nobody(harness: Harness) -> None:
    def admission(message: InboundMessage) -> Admission:
        known = message.sender_id == "7"
        return Admission(verdict=Verdict.ALLOW if known else Verdict.DROP, reason="test")

    harness.policies.admission = admission
    gate = Gate()
    harness.runtime.script = gate
    await harness.receive("work", "1")
    await gate.running("work")
    for number, text in enumerate(("stop", "/stop", "/new", "/model echo/echo-2")):
        # The same session, as where all channels share one.
        await harness.receive(text, f"s{number}", sender="666")
    await until(functools.partial(_suppressed, harness, 4))
    assert gate.cancelled == []
    gate.let("work")
    await until(lambda: harness.channels.sent)
    assert harness.channels.texts() == ["done: work"]


async def _suppressed(harness: Harness, count: int) -> bool:
    return [state for _, state, _ in await harness.states()].count("suppressed") == count


async def test_where_a_message_went_and_why_is_written_down(harness: Harness) -> None:
    await harness.receive("hello", "1")
    await harness.settled()
    assert await harness.rows("SELECT route_reason FROM conversation_inbound") == [("test",)]


@pytest.mark.parametrize(
    "text",
    ["stop", "STOP", " Stop! ", "/stop", "/stop@my_bot", "esc", "abort", "wait", "exit", "interrupt", "stop please", "please  stop."],
)
def test_these_words_stop(text: str) -> None:
    assert is_stop(text)


@pytest.mark.parametrize("text", ["", "don't stop", "stop the car", "waiting", "/stopwatch", "stop " * 50])
def test_these_words_do_not(text: str) -> None:
    assert not is_stop(text)


@pytest.mark.parametrize("how", ["raises", "hangs"])
async def test_a_command_that_fails_answers_that_it_did(harness: Harness, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    from openclaw_kernel.api import Commands
    from openclaw_plugins.conversation import command_desk

    monkeypatch.setattr(command_desk, "COMMAND_SECONDS", 0.05)

    async def run(call: CommandCall) -> str:
        if how == "raises":
            raise ValueError("oops")
        await asyncio.Event().wait()
        return ""

    harness.services[Commands].add(Command(name="odd", description="odd", run=run))
    await harness.receive("/odd", "1")
    await until(lambda: harness.channels.sent)
    assert harness.channels.sent[0].text.startswith("/odd ")
    assert (await harness.settled())[0][1] == "answered"


async def test_each_handler_that_raises_leaves_every_message_with_one_end(harness: Harness) -> None:
    numbers = iter(range(1000))

    async def moody(turn: Turn, sink: TurnSink) -> TurnResult:
        if next(numbers) % 3 == 0:
            raise OSError("moody")
        return await say(turn, sink)

    harness.runtime.script = moody
    await asyncio.gather(*(harness.receive(f"t{n}", f"m{n}", peer=str(n % 5)) for n in range(60)))
    states = await harness.settled()
    assert len(states) == 60
    assert {state for _, state, _ in states} == {"answered", "dead_lettered"}
    await until(lambda: len(harness.channels.sent) == 60)


async def test_acceptance_waits_while_too_much_waits_for_its_decision(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    from openclaw_plugins.conversation import intake

    monkeypatch.setattr(intake, "BACKLOG", 4)
    accepted = await asyncio.gather(*(harness.receive(f"t{n}", f"m{n}", peer=str(n)) for n in range(50)))
    assert all(accepted)
    assert len(await harness.settled()) == 50


async def test_progress_is_shown_where_the_message_came_from(harness: Harness) -> None:
    await harness.receive("hello", "1")
    await until(lambda: harness.channels.shown and harness.channels.shown[-1].phase == "ended")
    assert [progress.phase for progress in harness.channels.shown] == ["started", "text", "ended"]
    assert harness.channels.shown[1].text == "you said: hello"
    assert harness.channels.shown[0].target == inbound("x", "1").target
