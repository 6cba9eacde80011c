"""Servers and proxies that answer something else than the API's own form."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from openclaw_kernel.api import Provider, ProviderErrorKind
from openclaw_providers.anthropic.plugin import AnthropicPlugin
from tests.emulators.model_control import API_KEY, EmulatorProcess
from tests.providers.support import Context, fail, load, request

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "claude-haiku-4-5"
STREAM = {"content-type": "text/event-stream"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def process() -> AsyncIterator[EmulatorProcess]:
    async with EmulatorProcess("anthropic") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def server(process: EmulatorProcess) -> EmulatorProcess:
    await process.reset()
    return process


@pytest_asyncio.fixture(loop_scope="module")
async def provider(server: EmulatorProcess, tmp_path: Path) -> AsyncIterator[Provider]:
    entry = {"baseUrl": server.url, "apiKey": API_KEY, "headers": {"X-Team": "secret-team"}}
    made = load(AnthropicPlugin, Context({"anthropic": entry}, tmp_path))["anthropic"]
    yield made
    await made.stop()


@pytest.mark.parametrize(
    "body",
    [
        "event: content_block_delta\ndata: {broken\n\n",
        'event: content_block_delta\ndata: {"type":"content_block_delta","index":7,"delta":{"type":"text_delta","text":"x"}}\n\n',
        'event: message_start\ndata: {"type":"message_start"}\n\n',
        "",
        "<html>welcome</html>",
    ],
)
async def test_a_stream_of_another_form_is_a_typed_error(server: EmulatorProcess, provider: Provider, body: str) -> None:
    await server.script([{"raw": {"headers": STREAM, "body": body}}])
    error, _ = await fail(provider, request("x", model=MODEL))
    assert error.kind is ProviderErrorKind.UNAVAILABLE
    assert server.url in error.message
    assert "models.providers.anthropic.baseUrl" in error.message


async def test_an_error_page_does_not_become_the_message(server: EmulatorProcess, provider: Provider) -> None:
    page = "<!doctype html>\n<title>502 Bad Gateway</title>\n" + "<p>nginx</p>\n" * 20_000
    await server.script([{"raw": {"status": 502, "headers": {"content-type": "text/html"}, "body": page}}])
    error, _ = await fail(provider, request("x", model=MODEL))
    assert error.kind is ProviderErrorKind.UNAVAILABLE
    assert "a page, '502 Bad Gateway'" in error.message
    assert len(error.message) < 200


async def test_a_key_that_the_server_repeats_is_not_passed_on(server: EmulatorProcess, provider: Provider) -> None:
    await server.script([{"error": {"status": 401, "message": f"the key {API_KEY} of secret-team is wrong"}}])
    error, _ = await fail(provider, request("x", model=MODEL))
    assert API_KEY not in error.message
    assert "secret-team" not in error.message


async def test_credentials_do_not_follow_a_redirect(server: EmulatorProcess, provider: Provider) -> None:
    async with EmulatorProcess("anthropic") as elsewhere:
        place = f"{elsewhere.url}/v1/messages"
        await server.script([{"raw": {"status": 307, "headers": {"location": place}}}])
        error, _ = await fail(provider, request("x", model=MODEL))
        assert await elsewhere.requests() == []
    assert "models.providers.anthropic.baseUrl" in error.message
    assert place in error.message
