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
