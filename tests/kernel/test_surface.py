"""Methods, events and routes of plugins come, change and go with them, for the clients that are connected and for new ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from openclaw_config.models import Config
from openclaw_kernel.api.config import NotApplied, ReloadOutcome
from openclaw_kernel.testing import CallFailed, RunningGateway, StartGateway
from tests.kernel.host.distributions import Distributions

BELL = """
from aiohttp import web

class Settings(BaseModel):
    word: str = "one"
    writes: bool = False

class Methods:
    def __init__(self, word):
        self.word = word

    @rpc("bell.ring", scope=Scope.READ, result=str)
    async def ring(self, call):
        '''Ring.'''
        return self.word

class Writing:
    @rpc("bell.cast", scope=Scope.WRITE, result=str)
    async def cast(self, call):
        '''Write, and not say what a repetition does.'''
        return ""

class ThePlugin:
    settings = Settings

    def __init__(self, context):
        self.settings = context.settings(Settings)

    @hookimpl
    def openclaw_register_methods(self, registrar):
        registrar.add_methods(Methods(self.settings.word))
        registrar.add_events([EventSpec(name="bell.rang", scope=Scope.READ, doc="It rang.")])
        if self.settings.writes:
            registrar.add_methods(Writing())

    @hookimpl
    def openclaw_register_routes(self, registrar):
        registrar.add_route(HttpRoute(method="GET", path="/bell/{name}", handler=self.serve))

    async def serve(self, request):
        return web.Response(text=f"{self.settings.word} {request.match_info['name']}")
"""

pytestmark = pytest.mark.payloads_not_judged("the plugin is this test's own", "bell.ring")


@pytest.fixture
def bell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugin is installed."""
    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    installed = Distributions(tmp_path / "site")
    installed.add("bell", BELL)
    yield
    installed.forget()


async def apply(gateway: RunningGateway, *, enabled: bool = True, **settings: Any) -> None:
    """Bring the plugin's section about."""
    document = gateway.app.host.current().config.model_dump(by_alias=True)
    document["plugins"]["entries"] = {"bell": {"enabled": enabled, "config": settings}}
    prepared = await gateway.app.host.prepare(Config.model_validate(document), {"bell": ReloadOutcome.UNIT})
    await prepared.commit()


async def get(gateway: RunningGateway, path: str) -> tuple[int, str]:
    """Status and text of a page."""
    async with aiohttp.ClientSession() as session, session.get(f"{gateway.url}{path}") as answer:
        return answer.status, await answer.text()


@pytest.mark.usefixtures("bell")
async def test_what_a_plugin_offers_is_replaced_with_it(openclaw_gateway: StartGateway) -> None:
    async with openclaw_gateway({}) as gateway:
        assert await gateway.call("bell.ring") == "one"
        assert await get(gateway, "/bell/x") == (200, "one x")

        await apply(gateway, word="two")

        assert await gateway.call("bell.ring") == "two"
        assert await get(gateway, "/bell/x") == (200, "two x")
        changed = await gateway.event("plugins.changed")
        assert changed["plugins"]["bell"] == "started"


@pytest.mark.usefixtures("bell")
async def test_what_a_plugin_offers_goes_with_it_and_comes_back(openclaw_gateway: StartGateway) -> None:
    async with openclaw_gateway({}) as gateway:
        await apply(gateway, enabled=False)

        with pytest.raises(CallFailed, match=r"unknown method: bell\.ring"):
            await gateway.call("bell.ring")
        assert (await get(gateway, "/bell/x"))[0] == 404
        assert "bell.ring" not in gateway.app.wire.registry.advertised
        with pytest.raises(LookupError, match="not declared"):
            gateway.app.facts.events.scope("bell.rang")

        await apply(gateway, word="three")

        assert await gateway.call("bell.ring") == "three"
        assert (await get(gateway, "/bell/x"))[1] == "three x"
        assert gateway.app.facts.events.scope("bell.rang") == "operator.read"
        async with aiohttp.ClientSession() as session, session.post(f"{gateway.url}/bell/x") as answer:
            assert answer.status == 405


@pytest.mark.usefixtures("bell")
async def test_a_method_that_cannot_be_offered_is_refused_with_everything_as_it_was(openclaw_gateway: StartGateway) -> None:
    async with openclaw_gateway({}) as gateway:
        with pytest.raises(NotApplied, match=r"method 'bell\.cast' of plugin 'bell' writes and does not say"):
            await apply(gateway, word="two", writes=True)

        assert await gateway.call("bell.ring") == "one"
        with pytest.raises(CallFailed, match=r"unknown method: bell\.cast"):
            await gateway.call("bell.cast")
