"""A plugin that fails in an RPC method or a route is an error to its caller; the gateway answers all others."""

from __future__ import annotations

import aiohttp
import pytest

from openclaw_kernel.api import PluginState
from openclaw_kernel.testing import CallFailed, RunningGateway, StartGateway
from tests.kernel.host.distributions import GOOD, Distributions

BAD = """
from aiohttp import web

class Methods:
    @rpc("bad.exit", scope=Scope.READ, result=str)
    def exit(self, call):
        '''Misbehave.'''
        sys.exit(3)

    @rpc("bad.later", scope=Scope.READ, result=str)
    async def later(self, call):
        '''Misbehave.'''
        await asyncio.sleep(0)
        sys.exit(3)

    @rpc("bad.raise", scope=Scope.READ, result=str)
    def fail(self, call):
        '''Misbehave.'''
        raise ValueError("boom")

    @rpc("bad.block", scope=Scope.READ, result=str)
    def block(self, call):
        '''Misbehave.'''
        time.sleep(60)

    @rpc("bad.block-later", scope=Scope.READ, result=str)
    async def block_later(self, call):
        '''Misbehave.'''
        await asyncio.sleep(0)
        while True:
            pass

    @rpc("bad.refuse", scope=Scope.READ, result=str)
    async def refuse(self, call):
        '''Misbehave.'''
        raise InvalidRequest("thing: is not there; name another")

async def route(request):
    if request.query["do"] == "exit":
        sys.exit(3)
    time.sleep(60)

class ThePlugin:
    settings = None

    def __init__(self, context):
        self.context = context

    @hookimpl
    def openclaw_register_methods(self, registrar):
        registrar.add_methods(Methods())

    @hookimpl
    def openclaw_register_routes(self, registrar):
        registrar.add_route(HttpRoute(method="GET", path="/bad", handler=route))
"""

CONFIG = {
    "models": {"providers": {"echo": {}}},
    "channels": {"good": {}},
    "plugins": {"callTimeoutSeconds": 0.5},
}


@pytest.fixture
def bad(distributions: Distributions) -> Distributions:
    distributions.add("bad", BAD)
    distributions.add("good", GOOD, kind="channel")
    return distributions


async def check_all_others(gateway: RunningGateway) -> None:
    assert (await gateway.call("health"))["ok"] is True
    assert "hello" in await gateway.ask("hello")
    assert gateway.plugin("good").state is PluginState.STARTED


@pytest.mark.parametrize("method", ["bad.exit", "bad.later", "bad.raise", "bad.block", "bad.block-later"])
async def test_a_method_that_fails_is_an_error_of_its_plugin(method: str, bad: Distributions, openclaw_gateway: StartGateway) -> None:
    async with openclaw_gateway(CONFIG) as gateway:
        with pytest.raises(CallFailed, match="plugin bad failed") as failed:
            await gateway.call(method)
        assert failed.value.error["code"] == "UNAVAILABLE"
        await check_all_others(gateway)


async def test_what_a_method_says_itself_reaches_its_caller(bad: Distributions, openclaw_gateway: StartGateway) -> None:
    async with openclaw_gateway(CONFIG) as gateway:
        with pytest.raises(CallFailed, match="INVALID_REQUEST: thing: is not there; name another"):
            await gateway.call("bad.refuse")


@pytest.mark.parametrize("what", ["exit", "block"])
async def test_a_route_that_fails_is_a_500(what: str, bad: Distributions, openclaw_gateway: StartGateway) -> None:
    async with openclaw_gateway(CONFIG) as gateway, aiohttp.ClientSession() as session:
        async with session.get(f"{gateway.url}/bad?do={what}") as response:
            assert response.status == 500
        await check_all_others(gateway)
