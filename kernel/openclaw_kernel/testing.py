"""Fixtures for the tests of plugin authors; pytest finds them by itself where openclaw-kernel is installed."""

from __future__ import annotations

import pytest


class FakeClock:
    """Unix milliseconds that move only when they are told to."""

    def __init__(self, start_ms: int = 1_750_000_000_000) -> None:
        self.milliseconds = start_ms

    def now_ms(self) -> int:
        """Return the time, as `PluginContext.now_ms` does."""
        return self.milliseconds

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.milliseconds += round(seconds * 1000)


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock for what takes `now_ms`."""
    return FakeClock()
