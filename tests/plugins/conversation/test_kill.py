"""A real gateway, a bot, and kill -9: whatever was accepted ends once, and no answer comes twice."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import pytest

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


async def test_killed_in_a_turn_the_one_is_told_and_the_others_are_answered(
    emulator: TelegramEmulator, start_gateway: StartGateway
) -> None:
    gateway = await start_gateway(config(emulator, CHAT))
    await emulator.user_message("!slow 100\n" + "word " * 300, chat_id=CHAT)
    await emulator.wait(chat_id=CHAT, contains="word word")
    last = await emulator.user_message("second", chat_id=CHAT)
    await emulator.user_message("third", chat_id=CHAT)
    await emulator.wait(confirmed=last["update_id"])
    await gateway.kill()
    await gateway.start()
    await emulator.wait(chat_id=CHAT, contains="third")
    assert await settled(gateway, 3) == {"answered": 2, "dead_lettered": 1}
    shown = await texts(emulator)
    assert len([text for text in shown if "interrupted" in text]) == 1
    assert [shown.count(text) for text in ("second", "third")] == [1, 1]
    await gateway.kill()
    await gateway.start()
    assert await settled(gateway, 3) == {"answered": 2, "dead_lettered": 1}
    assert await texts(emulator) == shown


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
