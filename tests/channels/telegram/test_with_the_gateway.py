"""A Telegram bot on the running gateway: from a person's message to the answer, commands, hints and faults."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from tests.emulators.telegram_control import TelegramEmulator
from tests.support.gateway import StartGateway

CHAT = 42


def section(emulator: TelegramEmulator, **more: Any) -> Mapping[str, Any]:
    telegram = {"botToken": emulator.token, "apiRoot": emulator.api_root, "allowFrom": [CHAT], "pollTimeoutSeconds": 5, **more}
    return {"channels": {"telegram": telegram}}


async def test_a_person_gets_an_answer(emulator: TelegramEmulator, start_gateway: StartGateway) -> None:
    await start_gateway(section(emulator))
    sent = await emulator.user_message("hello there", chat_id=CHAT)
    (message,) = await emulator.wait(chat_id=CHAT, contains="hello there")
    assert message["from_bot"]
    await emulator.wait(confirmed=sent["update_id"])
    assert (await emulator.stats())["concurrent_polls_max"] == 1


async def test_a_slow_answer_is_shown_as_it_grows_and_is_one_message(emulator: TelegramEmulator, start_gateway: StartGateway) -> None:
    await start_gateway(section(emulator))
    words = " ".join(f"word{number}" for number in range(30))
    await emulator.user_message(f"!slow 100\n{words} **end**", chat_id=CHAT)
    (draft,) = await emulator.wait(chat_id=CHAT, contains="word5")
    assert "end" not in draft["text"]
    (answer,) = await emulator.wait(chat_id=CHAT, contains=f"{words} end")
    assert answer["message_id"] == draft["message_id"]
    assert [entity["type"] for entity in answer["entities"]] == ["bold"]
    assert len(answer["edits"]) >= 2
    assert (await emulator.stats())["accepted"]["sendChatAction"] >= 1


async def test_stop_ends_a_running_answer(emulator: TelegramEmulator, start_gateway: StartGateway) -> None:
    await start_gateway(section(emulator))
    await emulator.user_message("!slow 200\n" + "word " * 200, chat_id=CHAT)
    await emulator.wait(chat_id=CHAT, contains="word word")
    await emulator.user_message("/stop", chat_id=CHAT)
    messages = await emulator.wait(chat_id=CHAT, count=2)
    assert len(messages[0]["text"].split()) < 100
    await emulator.user_message("and now something else", chat_id=CHAT)
    await emulator.wait(chat_id=CHAT, contains="something else")


async def test_a_photo_reaches_the_agent(emulator: TelegramEmulator, start_gateway: StartGateway) -> None:
    await start_gateway(section(emulator))
    await emulator.user_message(chat_id=CHAT, caption="what is this", photo=b"\xff\xd8\xff\xe0 not a whole jpeg")
    await emulator.wait(chat_id=CHAT, contains="what is this")
    assert (await emulator.stats())["accepted"]["file"] == 1


async def test_the_commands_are_in_the_menu_and_answered(emulator: TelegramEmulator, start_gateway: StartGateway) -> None:
    await start_gateway(section(emulator))
    await emulator.wait(accepted="setMyCommands")
    names = {command["command"] for command in (await emulator.stats())["commands"]}
    assert {"new", "stop", "status", "model", "help"} <= names
    await emulator.user_message("/help", chat_id=CHAT)
    await emulator.wait(chat_id=CHAT, contains="/status")


async def test_a_stranger_gets_one_hint_and_nothing_more(emulator: TelegramEmulator, start_gateway: StartGateway) -> None:
    await start_gateway(section(emulator))
    for text in ("who are you", "hello?", "/status"):
        await emulator.user_message(text, chat_id=666)
    await emulator.user_message("a friend", chat_id=CHAT)
    await emulator.wait(chat_id=CHAT, contains="a friend")
    (hint,) = await emulator.wait(chat_id=666, count=1)
    assert "666" in hint["text"]


async def test_a_repeated_update_is_answered_once(emulator: TelegramEmulator, start_gateway: StartGateway) -> None:
    await start_gateway(section(emulator))
    sent = await emulator.user_message("only once", chat_id=CHAT)
    await emulator.wait(chat_id=CHAT, contains="only once")
    await emulator.repeat(sent["update_id"])
    await emulator.user_message("the next", chat_id=CHAT)
    messages = await emulator.wait(chat_id=CHAT, contains="the next")
    assert sum("only once" in message["text"] for message in messages) == 1


async def test_a_wrong_token_is_one_line_and_the_rest_runs(emulator: TelegramEmulator, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(section(emulator, botToken="999:WRONG"))
    gateway.expect_log(r"channels\.telegram\.botToken")
    line = await gateway.wait_line(r"channels\.telegram\.botToken")
    assert "copy the bot's current token from @BotFather" in line.text
    async with gateway.connect() as client:
        status = await client.request("channels.status", {})
    (account,) = status["channelAccounts"]["telegram"]
    assert "channels.telegram.botToken" in account["lastError"]
    assert all("999:WRONG" not in line.text for line in gateway.lines)


async def test_a_webhook_comes_through_the_gateways_listener(emulator: TelegramEmulator, start_gateway: StartGateway) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = section(emulator, webhookUrl=f"http://127.0.0.1:{port}/telegram-webhook")
    await start_gateway({**config, "gateway": {"port": port}})
    await emulator.user_message("by webhook", chat_id=CHAT)
    await emulator.wait(chat_id=CHAT, contains="by webhook", webhook_deliveries=1)
    assert (await emulator.stats())["polls"] == 0
