"""The emulator of the Bot API, and a context with the channel's section pointed at it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.channels.telegram.standing import StandingContext
from tests.emulators.telegram_control import TelegramEmulator


@pytest_asyncio.fixture
async def emulator() -> AsyncIterator[TelegramEmulator]:
    async with TelegramEmulator() as started:
        yield started


@pytest_asyncio.fixture
async def context(emulator: TelegramEmulator) -> StandingContext:
    return StandingContext({"botToken": emulator.token, "apiRoot": emulator.api_root, "pollTimeoutSeconds": 5})
