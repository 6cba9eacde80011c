"""The emulator of the Bot API, and a context with the channel's section pointed at it."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.channels.telegram.standing import StandingContext
from tests.emulators.telegram_control import REPOSITORY, TelegramEmulator

BOTS = itertools.count(5001)


@pytest.fixture(scope="session")
def emulator_port() -> Iterator[int]:
    """One process for all tests; each has a bot of its own in it."""
    command = [sys.executable, "-m", "tests.emulators.telegram", "--port", "0", "--until-stdin-closes"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield int(json.loads(process.stdout.readline())["port"])
        process.terminate()


@pytest_asyncio.fixture
async def emulator(emulator_port: int) -> AsyncIterator[TelegramEmulator]:
    async with TelegramEmulator(tokens=(f"{next(BOTS)}:TEST",), attach=emulator_port) as attached:
        yield attached


@pytest_asyncio.fixture
async def context(emulator: TelegramEmulator) -> StandingContext:
    return StandingContext({"botToken": emulator.token, "apiRoot": emulator.api_root, "pollTimeoutSeconds": 5})
