"""Waits for the programs that a test started: what was given up in the test ends while the loop that follows it still runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

# What a busy machine takes to end a killed process and all below it.
DEADLINE = 30.0


@pytest.fixture
async def ended_children() -> AsyncIterator[None]:
    """A call gives up waiting for what it killed after a second; a loop that closes before asyncio saw the end never hears of it."""
    before = _ids() | _followers()
    yield
    async with asyncio.timeout(DEADLINE):
        while (_ids() | _followers()) - before:  # noqa: ASYNC110 - asyncio tells nobody
            await asyncio.sleep(0.005)
    # What the last follower told the loop is heard.
    await asyncio.sleep(0)


def _ids() -> set[str]:
    """The children of this process, the ended ones that nobody has waited for among them; none where the system does not tell."""
    return {one for task in Path("/proc/self/task").glob("*/children") for one in _read(task).split()}


def _read(children: Path) -> str:
    try:
        return children.read_text()
    except OSError:
        # The thread is gone.
        return ""


def _followers() -> set[str]:
    """The threads in which asyncio (before Python 3.12) waits for the end of a child each."""
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("asyncio-waitpid-")}
