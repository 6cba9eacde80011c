"""One gateway, the real model on this machine, and the same question through every way in."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.emulators.telegram_control import TelegramEmulator
from tests.support.gateway import RunningGateway, StartGateway
from tests.support.ws_client import is_chat

pytestmark = [pytest.mark.requires("xllamacpp"), pytest.mark.timeout(180)]

QUESTION = "What is the capital of France?"
ANSWER = "Paris"
CHAT = 42
ANSWER_SECONDS = 50.0
SESSIONS = {"agent:main:telegram:direct:42", "agent:main:terminal", "agent:main:program"}


@pytest_asyncio.fixture
async def telegram() -> AsyncIterator[TelegramEmulator]:
    async with TelegramEmulator() as emulator:
        yield emulator


async def test_telegram_terminal_and_protocol_get_the_same_answer(telegram: TelegramEmulator, start_gateway: StartGateway) -> None:
    bot = {"botToken": telegram.token, "apiRoot": telegram.api_root, "allowFrom": [CHAT], "pollTimeoutSeconds": 5}
    gateway = await start_gateway(
        {
            "models": {"providers": {"echo": None, "local": {}}},
            "channels": {"telegram": bot},
            "session": {"dmScope": "per-channel-peer"},
        }
    )
    by_terminal, by_protocol, _ = await asyncio.gather(ask_terminal(gateway), ask_protocol(gateway), ask_telegram(telegram))
    assert ANSWER in by_terminal
    # A model that takes the likeliest word each time says the same thing to everybody.
    assert by_protocol == by_terminal
    (message,) = await telegram.wait(chat_id=CHAT, contains=by_terminal, timeout=ANSWER_SECONDS)
    assert message["text"].strip() == by_terminal
    async with gateway.connect() as client:
        rows = (await client.request("sessions.list", {}))["sessions"]
        assert {row["key"] for row in rows} == SESSIONS
        costs = await client.request("usage.cost", {"days": 1})
    assert costs["totals"]["output"] > 0


async def ask_telegram(telegram: TelegramEmulator) -> None:
    """Ask as a person with the app, and wait for the first words of the answer."""
    await telegram.user_message(QUESTION, chat_id=CHAT)
    await telegram.wait(chat_id=CHAT, contains=ANSWER, timeout=ANSWER_SECONDS)


async def ask_terminal(gateway: RunningGateway) -> str:
    """Ask as a person at the terminal; what the command prints."""
    command = ["-m", "openclaw_kernel", "chat", "--home", str(gateway.home), "--session", "agent:main:terminal", "-m", QUESTION]
    environment = {"PATH": os.environ["PATH"], "HOME": str(gateway.home)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, err) == (0, b"")
    return out.decode().strip()


async def ask_protocol(gateway: RunningGateway) -> str:
    """Ask as a program; the text of the final event."""
    async with gateway.connect() as client:
        await client.request("chat.send", {"sessionKey": "agent:main:program", "message": QUESTION, "idempotencyKey": "ask"})
        final = await client.expect_event(is_chat("final", run="ask"), deadline=ANSWER_SECONDS)
    return str(final["payload"]["message"]["content"][0]["text"]).strip()
