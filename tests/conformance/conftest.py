"""A Telegram bot for the methods that need a channel."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.conformance.method_calls import CHAT
from tests.emulators.telegram_control import TelegramEmulator


@pytest_asyncio.fixture
async def telegram() -> AsyncIterator[TelegramEmulator]:
    """An emulator of the Bot API that knows the chat."""
    async with TelegramEmulator() as emulator:
        await emulator.open_chat(CHAT)
        yield emulator
