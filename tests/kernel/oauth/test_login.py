"""A login against a server that keeps to the standard, and one that does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from openclaw_config.oauth import OAuthClient
from openclaw_kernel.oauth.flow import DeviceCode, OAuthFailed, Tokens
from openclaw_kernel.oauth.login import log_in
from tests.emulators.oauth_control import AuthorizationProcess


class Waiting:
    """A clock that moves as far as it is asked to sleep: no test waits for real."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        # The server has a clock of its own; this much satisfies it.
        time.sleep(min(seconds, 0.06))
        self.slept.append(round(seconds, 2))
        self.now += seconds

    def clock(self) -> float:
        return self.now


def nobody(_code: DeviceCode) -> None:
    """Nobody looks."""


async def login(server: AuthorizationProcess, show: Callable[[DeviceCode], None] = nobody, **section: Any) -> tuple[Tokens, Waiting]:
    waiting = Waiting()
    client = OAuthClient.model_validate(server.section(**section))
    tokens = await asyncio.to_thread(log_in, client, show, sleep=waiting.sleep, clock=waiting.clock, answer_seconds=0.5)
    return tokens, waiting


async def refused(server: AuthorizationProcess, **section: Any) -> OAuthFailed:
    with pytest.raises(OAuthFailed) as failed:
        await login(server, **section)
    return failed.value


async def test_the_person_confirms_and_the_token_comes(server: AuthorizationProcess) -> None:
    shown: list[DeviceCode] = []
    loop = asyncio.get_running_loop()

    def show(code: DeviceCode) -> None:
        shown.append(code)
        asyncio.run_coroutine_threadsafe(server.approve(), loop).result(10)

    tokens, _ = await login(server, show, scopes=["models", "offline_access"])
    assert [tokens.access.unwrap()] == await server.access_tokens()
    assert tokens.refresh is not None
    assert shown[0].verification_uri == f"{server.url}/activate"
    began, *polled = await server.requests()
    assert began["form"]["scope"] == "models offline_access"
    assert all("code" not in request["url"] and "secret" not in request["url"] for request in [began, *polled])


async def test_pending_and_slow_down_are_heeded(server: AuthorizationProcess) -> None:
    await server.configure(approved=True)
    await server.script("pending", "slow_down", "pending", "slow_down")
    _, waiting = await login(server)
    assert waiting.slept == [0.05, 0.05, 5.05, 5.05, 10.05]


async def test_a_server_that_hangs_fails_or_breaks_off_is_asked_again_less_often(server: AuthorizationProcess) -> None:
    await server.configure(approved=True)
    await server.script("hang", "error", "half", "pending")
    tokens, waiting = await login(server)
    assert [tokens.access.unwrap()] == await server.access_tokens()
    assert waiting.slept == [0.05, 0.1, 0.2, 0.4, 0.05]


@pytest.mark.parametrize(
    ("script", "code", "told"),
    [
        (["pending", "denied"], "access_denied", "the login was refused by the person who was asked"),
        (["expired"], "expired_token", "nobody confirmed the code in time; begin the login again"),
        (["odd"], "odd-answer", "is no JSON object; check the addresses in the section oauth"),
        (["huge"], "odd-answer", "is longer than 65536 bytes"),
        (["device:error"], "unavailable", "answered 503; try again later"),
        (["device:hang"], "unreachable", "(no answer in time)"),
        (["device:half"], "unreachable", "no answer from 127.0.0.1"),
        (["device:odd"], "odd-answer", "is no JSON object"),
    ],
)
async def test_what_ends_a_login_is_named(server: AuthorizationProcess, script: list[str], code: str, told: str) -> None:
    await server.script(*script)
    failed = await refused(server)
    assert failed.code == code
    assert told in str(failed)


async def test_no_redirect_is_followed_with_a_credential(server: AuthorizationProcess) -> None:
    for script in (["redirect"], ["device:redirect"]):
        await server.script(*script)
        assert (await refused(server)).code == "odd-answer"
    assert not [request for request in await server.requests() if request["path"] == "/elsewhere"]


async def test_a_code_that_nobody_confirms_ends_the_login_in_its_time(server: AuthorizationProcess) -> None:
    await server.configure(interval=30, code_seconds=100)
    await server.script("pending", "pending", "pending")
    assert (await refused(server)).code == "expired_token"


async def test_a_client_that_the_server_does_not_know_is_told_so(server: AuthorizationProcess) -> None:
    assert "check clientId and clientSecret" in str(await refused(server, clientId="somebody"))
    await server.configure(client_secret="value-of-the-client", approved=True)
    assert "check clientId and clientSecret" in str(await refused(server, clientSecret="wrong-value"))
    await login(server, clientSecret="value-of-the-client")


async def test_a_server_that_is_not_there_is_named(server: AuthorizationProcess) -> None:
    section = server.section()
    await server.kill()
    with pytest.raises(OAuthFailed, match=rf"no answer from 127.0.0.1:{server.port} \(connection refused\)"):
        await asyncio.to_thread(log_in, OAuthClient.model_validate(section), lambda _: None)
