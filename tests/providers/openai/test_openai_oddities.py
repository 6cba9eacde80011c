"""Servers and proxies that answer something else than the API's own form."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from openclaw_kernel.api import Provider, ProviderErrorKind
from openclaw_providers.openai.plugin import OpenAIPlugin
from tests.emulators.model_control import API_KEY, EmulatorProcess
from tests.providers.support import Context, ask, fail, load, request

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "gpt-4o-mini"
STREAM = {"content-type": "text/event-stream"}
CHUNK = '{"id":"1","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def process() -> AsyncIterator[EmulatorProcess]:
    async with EmulatorProcess("openai") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def server(process: EmulatorProcess) -> EmulatorProcess:
    await process.reset()
    return process


@pytest_asyncio.fixture(loop_scope="module")
async def provider(server: EmulatorProcess, tmp_path: Path) -> AsyncIterator[Provider]:
    context = Context({"openai": {"baseUrl": server.openai_url, "apiKey": API_KEY, "headers": {"X-Team": "secret-team"}}}, tmp_path)
    made = load(OpenAIPlugin, context)["openai"]
    yield made
    await made.stop()


@pytest.mark.parametrize(
    "body",
    [
        "data: {broken\n\n",
        'data: {"object":"error","message":"out of memory"}\n\n',
        'data: {"model":"m","choices":null,"usage":{"prompt_tokens":"many"}}\n\n',
        'data: {"model":"m","choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"x","arguments":{"a":1}}}]}}]}\n\n',
        'data: "text"\n\n',
    ],
)
async def test_a_stream_of_another_form_is_a_typed_error(server: EmulatorProcess, provider: Provider, body: str) -> None:
    await server.script([{"raw": {"headers": STREAM, "body": body}}])
    error, _ = await fail(provider, request("x", model=MODEL))
    assert error.kind is ProviderErrorKind.UNAVAILABLE
    assert server.openai_url in error.message
    assert "models.providers.openai.baseUrl" in error.message


async def test_a_server_that_answers_with_a_page_is_told_by_where_to_look(server: EmulatorProcess, provider: Provider) -> None:
    page = "<!doctype html><title>Router login</title>" + "<p>hello</p>" * 2000
    await server.script([{"raw": {"headers": {"content-type": "text/html"}, "body": page}}])
    error, _ = await fail(provider, request("x", model=MODEL))
    assert "models.providers.openai.baseUrl" in error.message


async def test_a_password_in_the_url_is_not_passed_on(tmp_path: Path) -> None:
    entry = {"baseUrl": "http://bob:hunter22@127.0.0.1:1/v1", "models": []}
    context = Context({"vllm": entry}, tmp_path)
    provider = load(OpenAIPlugin, context)["vllm"]
    error, _ = await fail(provider, request("x", model=MODEL))
    assert "hunter22" not in error.message
    assert "127.0.0.1:1" in error.message
    assert "hunter22" not in (provider.problem() or "")
    await provider.stop()


async def test_an_answer_is_over_when_it_says_so(server: EmulatorProcess, provider: Provider) -> None:
    await server.script([{"raw": {"headers": STREAM, "body": f"data: {CHUNK}\n\ndata: [DONE]\n\n", "hang": True}}])
    began = time.monotonic()
    assert (await ask(provider, request("x", model=MODEL))).text == "hi"
    assert time.monotonic() - began < 5


async def test_a_server_without_a_model_is_asked_again(server: EmulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openclaw_providers.openai.runtime._LIST_AGAIN_SECONDS", 0.02)
    await server.configure(api_keys=None, models=[])
    context = Context({"ollama": {"baseUrl": server.openai_url}}, tmp_path)
    made: Any = load(OpenAIPlugin, context)["ollama"]
    await made.start()
    await server.requests(count=2)
    assert "has no model; load one there" in (made.problem() or "")
    await server.configure(api_keys=None, models=["llama3.2"])
    await context.tasks[0]
    assert [model.id for model in made.models()] == ["llama3.2"]
    assert made.problem() is None
    await made.stop()
