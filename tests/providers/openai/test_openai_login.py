"""A provider with a login in place of a key: its token is the bearer, and is refreshed when the server takes it no more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from openclaw_config.oauth import OAuthClient
from openclaw_kernel.api import Logins, Provider, ProviderErrorKind
from openclaw_kernel.audit.trail import AuditTrail
from openclaw_kernel.oauth.broker import LoginDesk
from openclaw_kernel.oauth.login import log_in
from openclaw_kernel.oauth.tokens import TokenStore
from openclaw_kernel.store.sqlite import SqliteStore
from openclaw_providers.openai.plugin import OpenAIPlugin
from tests.emulators.model_control import EmulatorProcess
from tests.emulators.oauth_control import AuthorizationProcess
from tests.providers.support import Context, ask, fail, load, request

MODEL = "gpt-4o-mini"


class LoginContext(Context):
    """With the service that has the tokens."""

    desk: LoginDesk

    def service(self, kind: type[Any]) -> Any:
        assert kind is Logins
        return self.desk


class Bench:
    """A provider `acme`, its model server and its authorization server."""

    def __init__(self, emulator: EmulatorProcess, server: AuthorizationProcess, home: Path, **entry: Any) -> None:
        self.models = emulator
        self.server = server
        self.home = home
        section = server.section()
        self.client = OAuthClient.model_validate(section)
        self.store = SqliteStore(home / "state.sqlite3")
        settings = {"api": "openai-completions", "baseUrl": emulator.openai_url, "oauth": section, **entry}
        self.context = LoginContext({"acme": settings}, home)
        now = lambda: time.time_ns() // 1_000_000  # noqa: E731
        self.context.desk = LoginDesk(home, self.store, AuditTrail(self.store, home=home, now_ms=now), now_ms=now)
        self.provider: Provider = load(OpenAIPlugin, self.context)["acme"]

    async def log_in(self) -> str:
        found = await asyncio.to_thread(log_in, self.client, lambda _: None)
        TokenStore(self.home, "acme", self.client).save(found)
        await self.models.configure(api_keys=await self.server.access_tokens())
        return found.access.unwrap()

    async def sent(self) -> list[str]:
        return [entry["headers"].get("authorization", "") for entry in await self.models.requests()]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with EmulatorProcess("openai") as models, AuthorizationProcess() as server:
        await server.configure(approved=True)
        made = Bench(models, server, tmp_path, models=[{"id": MODEL}])
        await made.store.open({})
        yield made
        await made.provider.stop()
        await made.context.desk.close()
        await made.store.close()


async def test_the_token_of_the_login_is_the_bearer(bench: Bench) -> None:
    access = await bench.log_in()
    assert bench.provider.problem() is None
    await bench.models.script([{"text": "hello"}])
    assert (await ask(bench.provider, request("hi", model=MODEL))).text == "hello"
    assert await bench.sent() == [f"Bearer {access}"]


async def test_without_a_login_the_provider_says_what_to_do(bench: Bench) -> None:
    told = "provider 'acme' is not logged in; run openclaw-kernel auth login acme"
    assert bench.provider.problem() == told
    failed, _ = await fail(bench.provider, request("hi", model=MODEL))
    assert (failed.kind, failed.message) == (ProviderErrorKind.AUTH, told)
    assert await bench.sent() == []


async def test_a_token_that_the_server_refuses_is_refreshed_and_the_call_made_once_more(bench: Bench) -> None:
    access = await bench.log_in()
    await bench.models.configure(api_keys=["another"])
    # The one that the authorization server gives next is taken.
    asked = asyncio.ensure_future(ask(bench.provider, request("hi", model=MODEL)))
    await bench.models.requests(count=1, outcome="refused")
    failed = await asyncio.wait_for(asyncio.gather(asked, return_exceptions=True), 20)
    first, second = await bench.sent()
    assert first == f"Bearer {access}"
    assert [second] == [f"Bearer {token}" for token in await bench.server.access_tokens()]
    (error,) = failed
    assert "check the login and the account" in str(error)
    assert access not in str(error)
    assert second.removeprefix("Bearer ") not in str(error)
    await bench.models.configure(api_keys=await bench.server.access_tokens())
    await bench.models.script([{"text": "hello"}])
    assert (await ask(bench.provider, request("hi", model=MODEL))).text == "hello"


async def test_the_models_are_listed_with_the_token(tmp_path: Path) -> None:
    async with EmulatorProcess("openai") as models, AuthorizationProcess() as server:
        await server.configure(approved=True)
        bench = Bench(models, server, tmp_path)
        await bench.store.open({})
        access = await bench.log_in()
        await bench.provider.start()
        (listed,) = await models.requests(count=1)
        assert (listed["path"], listed["headers"]["authorization"]) == ("/v1/models", f"Bearer {access}")
        await bench.provider.stop()
        await bench.context.desk.close()
        await bench.store.close()
