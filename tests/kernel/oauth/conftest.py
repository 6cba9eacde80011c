"""The authorization server of these tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.emulators.oauth_control import AuthorizationProcess


@pytest.fixture
async def server() -> AsyncIterator[AuthorizationProcess]:
    async with AuthorizationProcess() as running:
        yield running
