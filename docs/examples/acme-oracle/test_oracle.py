"""Asks a real server on this machine, through a gateway that runs in this process."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from openclaw_kernel.api import ModelRequest, ProviderError, ProviderErrorKind, Providers, Text, TextDelta, UserMessage
from openclaw_kernel.testing import RunningGateway, StartGateway


async def speak(request: web.Request) -> web.StreamResponse:
    asked = await request.text()
    if asked == "pieces":
        answer = web.StreamResponse()
        await answer.prepare(request)
        for byte in "γνῶθι".encode():
            await answer.write(bytes([byte]))
        return answer
    if asked == "too much":
        return web.Response(status=429, text=f"no more, {request.headers['Authorization']}", headers={"Retry-After": "2"})
    return web.Response(text="" if asked == "silence" else f"know thyself, not {asked}")


@pytest.fixture
async def url() -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_post("/", speak)
    async with TestServer(application) as server:
        yield str(server.make_url("/"))


def config(url: str) -> dict[str, object]:
    return {"models": {"providers": {"oracle": {"baseUrl": url, "apiKey": "drachma"}}}}


async def ask(gateway: RunningGateway, text: str) -> str:
    asked = ModelRequest(
        model="pythia",
        system="",
        messages=(UserMessage(content=(Text(text),), timestamp_ms=1),),
        agent_id="main",
        session_key="agent:main:main",
        session_id="one",
        run_id="one",
        workspace=gateway.home,
    )
    stream = gateway.service(Providers).stream("oracle", asked)
    return "".join([event.text async for event in stream if isinstance(event, TextDelta)])


async def test_it_says_what_the_server_says(openclaw_gateway: StartGateway, url: str) -> None:
    async with openclaw_gateway(config(url)) as gateway:
        assert await gateway.ask("others") == "know thyself, not others"


async def test_a_character_that_comes_in_pieces_is_whole(openclaw_gateway: StartGateway, url: str) -> None:
    async with openclaw_gateway(config(url)) as gateway:
        assert await ask(gateway, "pieces") == "γνῶθι"


async def test_a_limit_says_when_it_ends_and_repeats_no_key(openclaw_gateway: StartGateway, url: str) -> None:
    async with openclaw_gateway(config(url)) as gateway:
        with pytest.raises(ProviderError) as found:
            await ask(gateway, "too much")
    error = found.value
    assert (error.kind, error.retry_after) == (ProviderErrorKind.RATE_LIMIT, 2.0)
    assert error.message == "the oracle answered 429: no more, Bearer <secret>"


async def test_silence_is_no_answer(openclaw_gateway: StartGateway, url: str) -> None:
    async with openclaw_gateway(config(url)) as gateway:
        with pytest.raises(ProviderError, match=r"check that models\.providers\.oracle\.baseUrl is where an oracle speaks"):
            await ask(gateway, "silence")


async def test_a_server_that_is_gone_is_named(openclaw_gateway: StartGateway) -> None:
    async with openclaw_gateway(config("http://127.0.0.1:1/")) as gateway:
        with pytest.raises(ProviderError, match=r"no connection to http://127\.0\.0\.1:1/ .*check models\.providers\.oracle\.baseUrl"):
            await ask(gateway, "others")
