"""The fixtures for plugin authors work as their documentation says."""

from __future__ import annotations

from typing import Any

import pytest

from openclaw_kernel.api import Gateway, PluginState
from openclaw_kernel.testing import CallFailed, FakeClock, StartGateway

ECHO: dict[str, Any] = {"models": {"providers": {"echo": {}}}}


def test_a_fake_clock_moves_only_when_told(fake_clock: FakeClock) -> None:
    before = fake_clock.now_ms()
    fake_clock.advance(1.5)
    assert fake_clock.now_ms() - before == 1500


async def test_a_gateway_in_this_process_answers(openclaw_gateway: StartGateway) -> None:
    async with openclaw_gateway(ECHO) as gateway:
        assert "hello" in await gateway.ask("hello")
        assert gateway.plugin("echo").state is PluginState.STARTED
        assert gateway.service(Gateway).url == gateway.url
        assert gateway.transcript[0]["event"] == "connect.challenge"


async def test_a_method_that_fails_says_so(openclaw_gateway: StartGateway) -> None:
    async with openclaw_gateway(ECHO) as gateway:
        with pytest.raises(CallFailed, match=r"no\.such\.method"):
            await gateway.call("no.such.method")
        with pytest.raises(LookupError, match="no plugin 'missing' is installed"):
            gateway.plugin("missing")


async def test_two_gateways_run_beside_each_other(openclaw_gateway: StartGateway) -> None:
    async with openclaw_gateway(ECHO) as first, openclaw_gateway(ECHO) as second:
        assert first.url != second.url
        assert first.home != second.home
        assert "one" in await first.ask("one")
        assert "two" in await second.ask("two")
