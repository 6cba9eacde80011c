"""A real gateway, a bot, and kill -9: whatever was accepted ends once, and no answer comes twice."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.emulators.telegram_control import TelegramEmulator
from tests.plugins.conversation.harness import until
from tests.support.gateway import RunningGateway, StartGateway

CHAT = 42
OPEN = {"accepted", "routed", "queued", "running"}


@pytest.fixture
async def emulator() -> AsyncIterator[TelegramEmulator]:
    async with TelegramEmulator() as started:
        yield started


def config(emulator: TelegramEmulator, *chats: int) -> dict[str, Any]:
    telegram = {"botToken": emulator.token, "apiRoot": emulator.api_root, "allowFrom": [*chats], "pollTimeoutSeconds": 5}
    return {"channels": {"telegram": telegram}, "session": {"dmScope": "per-peer"}}


def rows(gateway: RunningGateway, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{gateway.home}/state.sqlite3?mode=ro", uri=True)) as connection:
        return connection.execute(statement).fetchall()


async def settled(gateway: RunningGateway, count: int) -> Counter[str]:
    """Wait until so many messages have ended, and all deliveries; return the messages' states."""

    def ended() -> Counter[str] | None:
        states = Counter(state for (state,) in rows(gateway, "SELECT state FROM conversation_inbound"))
        deliveries = {state for (state,) in rows(gateway, "SELECT state FROM conversation_outbox")}
        return states if states.total() >= count and not states.keys() & OPEN and not deliveries & {"prepared", "sending"} else None

    return await until(ended, "the end of every message") or Counter()


async def texts(emulator: TelegramEmulator, chat: int = CHAT) -> list[str]:
    return [message["text"] for message in await emulator.visible(chat)]


async def test_killed_in_a_turn_it_goes_on_and_everybody_is_answered_in_order(
    emulator: TelegramEmulator, start_gateway: StartGateway
) -> None:
    """P1, P4: the one that was cut off and those that waited, once each."""
    gateway = await start_gateway(config(emulator, CHAT))
    await emulator.user_message("!slow 60\n" + "word " * 20 + "first", chat_id=CHAT)
    await emulator.wait(chat_id=CHAT, contains="word word")
    last = await emulator.user_message("second", chat_id=CHAT)
    await emulator.user_message("third", chat_id=CHAT)
    await emulator.wait(confirmed=last["update_id"])
    await gateway.kill()
    await gateway.start()
    await emulator.wait(chat_id=CHAT, contains="third")
    assert await settled(gateway, 3) == {"answered": 3}
    shown = await texts(emulator)
    assert [text.split()[-1] for text in shown if not text.endswith("…")] == ["first", "second", "third"]
    assert rows(gateway, "SELECT state, resumes FROM conversation_runs ORDER BY id") == [("ok", 1), ("ok", 0), ("ok", 0)]
    await gateway.kill()
    await gateway.start()
    assert await settled(gateway, 3) == {"answered": 3}
    assert await texts(emulator) == shown


def using_the_shell(emulator: TelegramEmulator) -> dict[str, Any]:
    return {**config(emulator, CHAT), "agents": {"defaults": {"tools": {"allow": ["shell"]}}}}


def shell(script: str) -> str:
    return f"!tool shell {json.dumps({'argv': ['sh', '-c', script]})}"


async def test_killed_in_a_call_with_effects_it_is_not_repeated_and_the_sender_is_told_which(
    emulator: TelegramEmulator, start_gateway: StartGateway
) -> None:
    """P4: the effect happens once, and nobody is left in doubt about what is in doubt."""
    gateway = await start_gateway(using_the_shell(emulator))
    effects = gateway.home / "workspace" / "main" / "effects"
    await emulator.user_message(shell("echo done >> effects; sleep 600"), chat_id=CHAT)
    await until(effects.exists)
    running = "SELECT kind, name, state, retry_class, ended_ms FROM conversation_steps WHERE state = 'running' AND kind = 'tool'"
    assert rows(gateway, running) == [("tool", "shell", "running", "side-effecting", 0)]
    await gateway.kill()
    await gateway.start()
    await emulator.wait(chat_id=CHAT, contains="the tool shell was at work")
    assert await settled(gateway, 1) == {"dead_lettered": 1}
    assert effects.read_text() == "done\n"
    assert rows(gateway, "SELECT state FROM conversation_steps WHERE kind = 'tool'") == [("interrupted",)]
    ((reason,),) = rows(gateway, "SELECT reason FROM conversation_inbound")
    assert "the tool shell" in reason
    await emulator.user_message("go on", chat_id=CHAT)
    await emulator.wait(chat_id=CHAT, contains="go on")


async def test_killed_in_a_harmless_call_it_is_made_again_and_what_was_done_is_kept(start_gateway: StartGateway) -> None:
    """P4: a client that comes back sees the same run end, once."""
    asked = 0

    async def page(_request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        if asked == 1:
            await asyncio.Event().wait()
        return web.Response(text="<h1>Tide</h1>", content_type="text/html")

    application = web.Application()
    application.router.add_get("/", page)
    async with TestServer(application, host="127.0.0.1") as server:
        place = f"127.0.0.1:{server.port}"
        gateway = await start_gateway({"plugins": {"entries": {"web-tools": {"config": {"allowPrivate": [place]}}}}})
        ask = {"sessionKey": "main", "message": f'!tool fetch {{"url": "http://{place}/"}}\nreading', "idempotencyKey": "k1"}
        async with gateway.connect() as client:
            await client.request("chat.send", ask)
            await until(lambda: asked)
        await gateway.kill()
        await gateway.start()
        async with gateway.connect() as client:
            waited = await client.request("agent.wait", {"runId": "k1", "timeoutMs": 10_000})
            assert waited["status"] == "ok"
            history = (await client.request("chat.history", {"sessionKey": "main"}))["messages"]
            assert [message["role"] for message in history] == ["user", "assistant", "toolResult", "assistant"]
            again = await client.request("chat.send", ask)
            assert again["runId"] == "k1"
            after = (await client.request("chat.history", {"sessionKey": "main"}))["messages"]
            assert len(after) == len(history)
        assert rows(gateway, "SELECT state FROM conversation_inbound") == [("answered",)]
        ((state, resumes, text),) = rows(gateway, "SELECT state, resumes, text FROM conversation_runs")
        assert (state, resumes) == ("ok", 1)
        assert text.startswith("reading\n\nfetch: ")
        assert "Tide" in text
        assert asked == 2


@pytest.mark.parametrize("word", ["/stop", "please stop"])
async def test_killed_right_after_a_stop_it_stays_stopped(emulator: TelegramEmulator, start_gateway: StartGateway, word: str) -> None:
    """P15: what runs and what waits, from a channel."""
    gateway = await start_gateway(config(emulator, CHAT))
    await emulator.user_message("!slow 100\n" + "word " * 300, chat_id=CHAT)
    await emulator.wait(chat_id=CHAT, contains="word")
    last = await emulator.user_message("waits", chat_id=CHAT)
    await emulator.wait(confirmed=last["update_id"])
    await emulator.user_message(word, chat_id=CHAT)
    await emulator.wait(chat_id=CHAT, contains="Stopped, and dropped 1 waiting message.")
    await gateway.kill()
    await gateway.start()
    states = await settled(gateway, 3)
    assert states == {"suppressed": 2, "answered": 1}
    assert rows(gateway, "SELECT reason FROM conversation_inbound WHERE state = 'suppressed'") == [("stopped",)] * 2
    assert not [text for text in await texts(emulator) if text == "waits"]


async def test_killed_right_after_an_abort_was_answered_it_stays_stopped(start_gateway: StartGateway) -> None:
    """P15: no call starts any more, and the next process does not go on."""
    gateway = await start_gateway({"agents": {"defaults": {"tools": {"allow": ["shell"]}}}})
    started = gateway.home / "workspace" / "main" / "started"
    script = "trap '' TERM INT; touch started; sleep 600"
    async with gateway.connect() as client:
        await client.request("chat.send", {"sessionKey": "main", "message": shell(script), "idempotencyKey": "k1"})
        await client.request("chat.send", {"sessionKey": "main", "message": "waits", "idempotencyKey": "k2"})
        await until(started.exists)
        answer = await client.request("chat.abort", {"sessionKey": "main"})
        assert answer == {"ok": True, "aborted": True, "runIds": ["k1", "k2"]}
        await gateway.kill()
    await gateway.start()
    assert await settled(gateway, 2) == {"suppressed": 2}
    assert rows(gateway, "SELECT DISTINCT reason FROM conversation_inbound") == [("stopped",)]
    async with gateway.connect() as client:
        waited = await client.request("agent.wait", {"runId": "k1", "timeoutMs": 0})
        assert waited["status"] == "error"


@pytest.mark.parametrize("arrived", [True, False])
async def test_killed_while_an_answer_is_sent_it_is_not_sent_again_and_the_person_is_told(
    emulator: TelegramEmulator, start_gateway: StartGateway, arrived: bool
) -> None:
    gateway = await start_gateway(config(emulator, CHAT))
    await emulator.fault("sendMessage", "hang", after_accept=arrived, times=1, chat_id=CHAT)
    await emulator.user_message("the answer", chat_id=CHAT)
    await emulator.wait(attempted="sendMessage")
    await gateway.kill()
    await emulator.clear_faults()
    await gateway.start()
    await emulator.wait(chat_id=CHAT, contains="may not have reached you")
    assert await settled(gateway, 1) == {"answered": 1}
    assert rows(gateway, "SELECT state FROM conversation_outbox ORDER BY id") == [("unknown_after_send",), ("sent",)]
    shown = await texts(emulator)
    assert shown.count("the answer") == int(arrived)
    await emulator.user_message("go on", chat_id=CHAT)
    await emulator.wait(chat_id=CHAT, contains="go on")
    assert len(await texts(emulator)) == len(shown) + 1


async def test_killed_before_the_channel_works_again_what_was_answered_goes_out_once(
    emulator: TelegramEmulator, start_gateway: StartGateway
) -> None:
    gateway = await start_gateway(config(emulator, CHAT))
    await emulator.fault("sendMessage", "status", status=502, times=-1, chat_id=CHAT)
    await emulator.user_message("patience", chat_id=CHAT)
    await emulator.wait(attempted="sendMessage")
    await until(lambda: ("prepared",) in rows(gateway, "SELECT state FROM conversation_outbox WHERE attempts > 0"))
    await gateway.kill()
    await emulator.clear_faults()
    await gateway.start()
    await emulator.wait(chat_id=CHAT, contains="patience")
    assert await settled(gateway, 1) == {"answered": 1}
    assert await texts(emulator) == ["patience"]


async def test_killed_at_any_moment_everything_accepted_ends_and_nothing_is_said_twice(
    emulator: TelegramEmulator, start_gateway: StartGateway
) -> None:
    moments = random.Random(7)  # noqa: S311
    chats = [100, 101, 102, 103]
    gateway = await start_gateway(config(emulator, *chats))
    sent = 0
    for round_number in range(5):
        for number in range(3):
            for chat in chats:
                await emulator.user_message(f"!slow 5\nr{round_number} n{number} of {chat}", chat_id=chat)
                sent += 1
        await asyncio.sleep(moments.uniform(0.0, 0.4))
        await gateway.kill()
        await gateway.start()
    states = await settled(gateway, sent)
    assert states.total() == sent
    assert rows(gateway, "SELECT count(*) FROM conversation_runs WHERE ended_ms IS NULL") == [(0,)]
    for chat in chats:
        shown = [text for text in await texts(emulator, chat) if text.endswith(f"of {chat}")]
        assert len(shown) == len(set(shown)), f"an answer came twice to {chat}: {shown}"
        told = await texts(emulator, chat)
        # Each message got its answer, or was said to be lost on the way: nobody is left without a word.
        assert len(told) >= 15


async def test_killed_before_the_first_of_two_was_decided_they_are_answered_in_order(
    emulator: TelegramEmulator, start_gateway: StartGateway
) -> None:
    gateway = await start_gateway(config(emulator, CHAT))
    await emulator.user_message("!slow 100\n" + "word " * 300, chat_id=CHAT)
    await emulator.wait(chat_id=CHAT, contains="word word")
    await emulator.user_message("second", chat_id=CHAT)
    last = await emulator.user_message("third", chat_id=CHAT)
    await emulator.wait(confirmed=last["update_id"])
    await until(lambda: rows(gateway, "SELECT state FROM conversation_inbound WHERE state = 'queued'") == [("queued",)] * 2)
    await gateway.kill()
    # As where the third's row was written before the second's.
    with closing(sqlite3.connect(gateway.home / "state.sqlite3")) as connection:
        connection.execute(
            "UPDATE conversation_inbound SET state = 'accepted', agent_id = NULL, session_key = NULL, run_id = NULL"
            " WHERE id = (SELECT min(id) FROM conversation_inbound WHERE state = 'queued')"
        )
        connection.execute("UPDATE conversation_inbound SET state = 'answered' WHERE state = 'running'")
        connection.commit()
    await gateway.start()
    await emulator.wait(chat_id=CHAT, contains="third")
    shown = [text for text in await texts(emulator) if text in ("second", "third")]
    assert shown == ["second", "third"]
    assert rows(gateway, "SELECT count(*) FROM conversation_inbound WHERE route_reason = ''") == [(0,)]
