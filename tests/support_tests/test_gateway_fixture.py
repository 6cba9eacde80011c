"""The fixture runs the real gateway, and a gateway that starts, runs or ends badly fails the test."""

from __future__ import annotations

import os
import signal

import aiohttp
import pytest

from tests.support.gateway import GatewayFailed, Line, RunningGateway, StartGateway, merge


async def test_a_gateway_answers_and_ends_well(gateway: RunningGateway) -> None:
    async with gateway.connect() as client:
        assert (await client.request("health"))["ok"] is True
    async with aiohttp.ClientSession() as http, http.get(f"{gateway.url}/readyz") as answer:
        assert answer.status == 200
    await gateway.stop()
    assert gateway.process.returncode == 0


async def test_a_gateway_that_cannot_start_fails_with_what_it_said(start_gateway: StartGateway) -> None:
    with pytest.raises(GatewayFailed, match=r"(?s)ended with 78.*gateway\.prot"):
        await start_gateway({"gateway": {"prot": 1}})


async def test_a_gateway_started_again_is_found_where_it_was(gateway: RunningGateway) -> None:
    before = gateway.url
    await gateway.kill()
    await gateway.start()
    assert gateway.url == before
    async with gateway.connect() as client:
        assert client.hello["protocol"] == 4


async def test_a_gateway_that_died_is_not_taken_for_one_that_ended_well(gateway: RunningGateway) -> None:
    os.kill(gateway.process.pid, signal.SIGKILL)
    assert await gateway.wait_ended() == -signal.SIGKILL


async def test_an_error_in_the_log_fails_the_test_unless_it_was_expected(gateway: RunningGateway) -> None:
    gateway.lines.append(Line("stderr", '{"level": "error", "message": "boom"}', {"level": "error", "message": "boom"}))
    with pytest.raises(GatewayFailed, match="boom"):
        gateway.assert_no_errors()
    gateway.expect_log("boom")
    gateway.assert_no_errors()


@pytest.mark.parametrize(
    "text",
    [
        "Traceback (most recent call last):",
        "x.py:1: ResourceWarning: unclosed <socket.socket>",
        "RuntimeWarning: coroutine 'f' was never awaited",
        "Task was destroyed but it is pending!",
        "Task exception was never retrieved",
        "Unclosed client session",
    ],
)
def test_what_python_says_of_a_leak_is_an_error(text: str) -> None:
    assert Line("stderr", text).is_error
    assert not Line("stderr", "all is well", {"level": "info"}).is_error


def test_configs_are_merged_and_none_removes() -> None:
    assert merge({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": None, "e": 3}, "d": [2]}) == {"a": {"c": 2, "e": 3}, "d": [2]}
