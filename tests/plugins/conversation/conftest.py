from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.plugins.conversation.harness import Harness, running


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    """The plugin, started on an empty database."""
    async with running(tmp_path) as started:
        yield started
