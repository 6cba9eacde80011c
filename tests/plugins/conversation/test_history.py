"""chat.history and chat.inject: pages, cursors, ceilings."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from openclaw_kernel.api import InvalidRequest, Turn, TurnResult, TurnSink
from openclaw_plugins.conversation import transcript
from tests.plugins.conversation.harness import Gate, Harness, TestClient, say


async def history(harness: Harness, **params: Any) -> dict[str, Any]:
    found: dict[str, Any] = await harness.call("chat.history", None, sessionKey="main", **params)
    return found


def texts(page: dict[str, Any]) -> list[str]:
    return [message["content"][0]["text"] for message in page["messages"]]


async def talk(harness: Harness, count: int) -> None:
    for number in range(count):
        await harness.ask(str(number), f"k{number}")


async def test_an_empty_session_has_an_empty_page(harness: Harness) -> None:
    page = await history(harness)
    assert (page["messages"], page["hasMore"], page["totalMessages"]) == ([], False, 0)
    assert page["sessionKey"] == "agent:main:main"
    assert page["defaults"]["model"] == "echo-1"
    # Looking does not make a session.
    assert (await harness.call("sessions.list"))["sessions"] == []


async def test_the_newest_page_comes_first_and_oldest_message_first(harness: Harness) -> None:
    await talk(harness, 5)
    page = await history(harness, limit=4)
    assert texts(page) == ["3", "you said: 3", "4", "you said: 4"]
    assert [message["__openclaw"]["seq"] for message in page["messages"]] == [7, 8, 9, 10]
    assert (page["hasMore"], page["nextOffset"], page["totalMessages"], page["offset"]) == (True, 4, 10, 0)
    older = await history(harness, limit=4, offset=page["nextOffset"])
    assert texts(older) == ["1", "you said: 1", "2", "you said: 2"]
    oldest = await history(harness, limit=4, offset=older["nextOffset"])
    assert texts(oldest) == ["0", "you said: 0"]
    assert oldest["hasMore"] is False
    assert "nextOffset" not in oldest
    assert (await history(harness, offset=99))["messages"] == []


async def test_a_cursor_brings_what_came_since(harness: Harness) -> None:
    await talk(harness, 2)
    page = await history(harness)
    nothing = await history(harness, cursor=page["deltaCursor"])
    assert (nothing["kind"], nothing["messages"]) == ("delta", [])
    await harness.ask("more", "more")
    delta = await history(harness, cursor=nothing["deltaCursor"])
    assert texts(delta) == ["more", "you said: more"]
    assert delta["sessionInfo"]["key"] == "agent:main:main"
    assert await history(harness, cursor=page["deltaCursor"], limit=1) == {"kind": "reset"}
    assert await history(harness, cursor="nonsense") == {"kind": "reset"}
    await harness.call("sessions.reset", None, key="main")
    assert await history(harness, cursor=delta["deltaCursor"]) == {"kind": "reset"}


async def test_a_page_can_be_asked_for_around_a_message(harness: Harness) -> None:
    await talk(harness, 10)
    everything = await history(harness)
    wanted = everything["messages"][6]["__openclaw"]["id"]
    page = await history(harness, messageId=wanted, limit=5)
    assert [message["__openclaw"]["seq"] for message in page["messages"]] == [5, 6, 7, 8, 9]
    with pytest.raises(InvalidRequest, match="messageId"):
        await history(harness, messageId="other-1")


async def test_long_texts_are_cut_where_that_is_asked(harness: Harness) -> None:
    await harness.ask("x" * 500, "k1")
    page = await history(harness, maxChars=100)
    assert texts(page)[0] == "x" * 100 + "\n...(truncated)..."
    assert texts(await history(harness))[0] == "x" * 500


async def test_a_page_ends_where_its_bytes_do(harness: Harness) -> None:
    for number in range(6):
        await harness.ask(f"{number}" + "y" * 300, f"k{number}")
    page = await history(harness, maxBytes=2048)
    assert 1 <= len(page["messages"]) < 12
    assert page["hasMore"]
    assert page["messages"][-1]["__openclaw"]["seq"] == 12
    assert len(json.dumps(page["messages"])) < 4096


async def test_a_message_over_the_ceiling_is_named_not_sent(harness: Harness) -> None:
    await harness.ask("z" * 7_000_000, "k1")
    page = await history(harness)
    # The answer alone is over six million bytes as well.
    assert "too large" in texts(page)[-1]
    assert len(json.dumps(page)) < 6 << 20


async def test_a_running_turn_is_shown(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("work", "k1")
    await gate.running("work")
    page = await history(harness)
    assert page["inFlightRun"]["runId"] == "k1"
    assert page["inFlightRun"]["text"] == "thinking about work"
    assert texts(page) == ["work"]
    gate.let("work")
    await harness.events.terminal("k1")
    assert "inFlightRun" not in await history(harness)


async def test_a_transcript_of_another_session_is_not_shown(harness: Harness) -> None:
    await harness.ask("secret", "k1", "agent:other:main")
    other = await harness.call("chat.history", None, sessionKey="agent:other:main")
    with pytest.raises(InvalidRequest, match="no transcript of"):
        await history(harness, sessionId=other["sessionId"])


async def test_an_injected_message_is_in_history_and_told(harness: Harness) -> None:
    result = await harness.call("chat.inject", None, sessionKey="main", message="Note", label="Import")
    event = await harness.events.first("chat", runId=f"inject-{result['messageId']}")
    assert (event["seq"], event["state"]) == (0, "final")
    assert texts(await history(harness)) == ["[Import]\n\nNote"]
    await harness.ask("hi", "k1")
    assert texts(await history(harness)) == ["[Import]\n\nNote", "hi", "you said: hi"]


async def test_an_injection_while_a_turn_runs_keeps_the_history_whole(harness: Harness) -> None:
    gate = Gate()
    harness.runtime.script = gate
    await harness.send("work", "k1")
    await gate.running("work")
    await harness.call("chat.inject", None, sessionKey="main", message="Note")
    gate.let("work")
    await harness.events.terminal("k1")
    harness.runtime.script = say
    await harness.ask("next", "k2")
    cached = harness.runtime.turns[-1].history
    assert [transcript.text_of(message) for message in cached] == ["work", "Note", "done: work"]
    await harness.restart()
    await harness.ask("last", "k3")
    assert harness.runtime.turns[-1].history[:3] == cached


async def test_a_long_conversation_gives_a_turn_the_newest_part(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcript, "HISTORY_MESSAGES", 10)
    monkeypatch.setattr(transcript, "HISTORY_BYTES", 1 << 20)
    await talk(harness, 12)
    turn = harness.runtime.turns[-1]
    assert 1 <= len(turn.history) <= 10
    assert turn.history[0].role == "user"
    assert transcript.text_of(turn.history[-1]) == "you said: 10"


@pytest.mark.parametrize("how", ["at once", "after a restart"])
async def test_a_large_picture_does_not_hide_the_conversation(harness: Harness, how: str) -> None:
    picture = base64.b64encode(b"\x89PNG" + bytes(5 << 20)).decode()
    await harness.ask("my name is Ann", "k1")
    for number in range(3):
        await harness.ask(f"see {number}", f"p{number}", attachments=[{"mimeType": "image/png", "fileName": "p.png", "content": picture}])
    if how == "after a restart":
        await harness.restart()
    await harness.ask("what is my name?", "k2")
    history = harness.runtime.turns[-1].history
    said = [transcript.text_of(message) for message in history]
    assert said == ["my name is Ann", "you said: my name is Ann", *(text for n in range(3) for text in (f"see {n}", f"you said: see {n}"))]
    shown = [part["type"] for message in history for part in message.to_json()["content"] if part["type"] in ("image", "file")]
    assert shown == ["file", "file", "image"]


async def test_a_row_that_cannot_be_read_does_not_silence_its_session(harness: Harness) -> None:
    await harness.ask("one", "k1")
    await harness.ask("two", "k2")
    await harness.store.write(lambda connection: connection.execute("UPDATE conversation_messages SET body = '{}' WHERE seq = 2"))
    await harness.restart()
    assert (await harness.ask("three", "k3"))["state"] == "final"
    said = [transcript.text_of(message) for message in harness.runtime.turns[-1].history]
    assert said == ["one", "two", "you said: two"]


async def test_the_memory_for_histories_is_bounded(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcript, "CACHE_SESSIONS", 3)
    monkeypatch.setattr(transcript, "CACHE_BYTES", 1000)
    for number in range(8):
        await harness.ask("a" * 200, f"k{number}", f"s{number}")
        await harness.ask("b", f"l{number}", f"s{number}")
        assert [transcript.text_of(message)[:1] for message in harness.runtime.turns[-1].history] == ["a", "y"]


async def test_answers_stay_under_their_message_with_many_sessions_at_once(harness: Harness) -> None:
    async def tell(turn: Turn, sink: TurnSink) -> TurnResult:
        words = [transcript.text_of(message) for message in turn.history if message.role == "user"]
        return TurnResult(status="ok", text=",".join(words) or "none")

    harness.runtime.script = tell
    client = TestClient()
    for round_number in range(3):
        for session in range(20):
            key = f"r{round_number}s{session}"
            await harness.call("chat.send", client, sessionKey=f"s{session}", message=key, idempotencyKey=key)
    for session in range(20):
        final = await harness.events.terminal(f"r2s{session}")
        assert final["message"]["content"][0]["text"] == f"r0s{session},r1s{session}"
