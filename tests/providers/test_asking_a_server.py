"""What is the same of every provider that asks a server, by its SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio

from openclaw_kernel.api import ModelEvent, Provider, ProviderErrorKind, TextDelta, ToolSpec
from openclaw_providers.anthropic.plugin import AnthropicPlugin
from openclaw_providers.openai.plugin import OpenAIPlugin
from tests.emulators.model_control import API_KEY, EmulatorProcess
from tests.providers.support import Context, ask, fail, load, request

pytestmark = pytest.mark.asyncio(loop_scope="module")

WEATHER = ToolSpec(name="weather", description="Tells the weather", parameters={"type": "object"})


@dataclass(frozen=True)
class Kind:
    """One of the plugins and the place of its calls."""

    id: Literal["openai", "anthropic"]
    plugin: Any
    model: str
    path: str
    endpoint: str
    overloaded: int
    """The status that says so."""

    def provider(self, url: str, state: Path, **settings: Any) -> Provider:
        entry = {"baseUrl": url + self.path, "apiKey": API_KEY, **settings}
        return load(self.plugin, Context({self.id: entry}, state))[self.id]


KINDS = (
    Kind("openai", OpenAIPlugin, "gpt-4o-mini", "/v1", "/chat/completions", 503),
    Kind("anthropic", AnthropicPlugin, "claude-haiku-4-5", "", "/v1/messages", 529),
)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.id)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def process(kind: Kind) -> AsyncIterator[EmulatorProcess]:
    async with EmulatorProcess(kind.id) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def server(process: EmulatorProcess) -> EmulatorProcess:
    await process.reset()
    return process


@pytest_asyncio.fixture(loop_scope="module")
async def provider(kind: Kind, server: EmulatorProcess, tmp_path: Path) -> AsyncIterator[Provider]:
    made = kind.provider(server.url, tmp_path, headers={"X-Team": "secret-team"})
    yield made
    await made.stop()


async def test_arguments_that_are_no_json_are_kept_whole(kind: Kind, server: EmulatorProcess, provider: Provider) -> None:
    await server.script([{"tool_calls": [{"name": "weather", "arguments": '{"city": '}]}])
    answer = await ask(provider, request("x", model=kind.model, tools=(WEATHER,)))
    assert answer.completed.tool_calls[0].arguments == {"unparsed_arguments": '{"city": '}


async def test_a_rate_limit_says_when_it_resets(kind: Kind, server: EmulatorProcess, provider: Provider) -> None:
    await server.script([{"error": {"status": 429, "retry_after": 3}}])
    error, _ = await fail(provider, request("x", model=kind.model))
    assert (error.kind, error.retry_after) == (ProviderErrorKind.RATE_LIMIT, 3.0)


async def test_a_prompt_past_the_context_is_too_long(kind: Kind, server: EmulatorProcess, provider: Provider) -> None:
    await server.configure(context_tokens=10)
    error, _ = await fail(provider, request("word " * 50, model=kind.model))
    assert error.kind is ProviderErrorKind.CONTEXT_LENGTH


async def test_an_error_inside_the_stream_keeps_what_came_before(kind: Kind, server: EmulatorProcess, provider: Provider) -> None:
    await server.script([{"text": "one two three", "error": {"status": kind.overloaded, "after_chunks": 2}}])
    error, text = await fail(provider, request("x", model=kind.model))
    assert error.kind is ProviderErrorKind.OVERLOADED
    assert text == "one two"


async def test_a_dropped_stream_is_a_network_error(kind: Kind, server: EmulatorProcess, provider: Provider) -> None:
    await server.script([{"text": "one two three", "drop_after_chunks": 1}])
    error, text = await fail(provider, request("x", model=kind.model))
    assert (error.kind, text) == (ProviderErrorKind.NETWORK, "one")


async def test_a_server_that_is_not_there_is_a_network_error_with_its_url(kind: Kind, tmp_path: Path) -> None:
    provider = kind.provider("http://127.0.0.1:1", tmp_path)
    error, _ = await fail(provider, request("x", model=kind.model))
    assert error.kind is ProviderErrorKind.NETWORK
    assert f"http://127.0.0.1:1{kind.path}" in error.message
    assert f"models.providers.{kind.id}.baseUrl" in error.message
    await provider.stop()


@pytest.mark.parametrize("turn", [{"hang": True}, {"text": "one two", "hang_after_chunks": 1}])
async def test_silence_past_the_limit_is_a_timeout(kind: Kind, server: EmulatorProcess, tmp_path: Path, turn: dict[str, Any]) -> None:
    provider = kind.provider(server.url, tmp_path, timeoutSeconds=0.2)
    await server.script([turn])
    error, _ = await fail(provider, request("x", model=kind.model))
    assert error.kind is ProviderErrorKind.TIMEOUT
    assert f"models.providers.{kind.id}.timeoutSeconds" in error.message
    await provider.stop()


async def test_closing_the_stream_ends_the_call_at_the_server(kind: Kind, server: EmulatorProcess, provider: Provider) -> None:
    await server.script([{"text": "one two", "hang_after_chunks": 1}])
    stream: AsyncIterator[ModelEvent] = provider.stream(request("x", model=kind.model))
    assert await anext(stream) == TextDelta("one")
    waiting = asyncio.ensure_future(anext(stream))
    await server.requests(count=1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(await server.requests(count=1, outcome="disconnected")) == 1


async def test_an_error_page_does_not_become_the_message(kind: Kind, server: EmulatorProcess, provider: Provider) -> None:
    page = "<!doctype html>\n<title>502 Bad Gateway</title>\n" + "<p>nginx</p>\n" * 20_000
    await server.script([{"raw": {"status": 502, "headers": {"content-type": "text/html"}, "body": page}}])
    error, _ = await fail(provider, request("x", model=kind.model))
    assert error.kind is ProviderErrorKind.UNAVAILABLE
    assert "502" in error.message
    assert len(error.message) < 200
    assert "\n" not in error.message


async def test_a_key_that_the_server_repeats_is_not_passed_on(kind: Kind, server: EmulatorProcess, provider: Provider) -> None:
    await server.script([{"error": {"status": 401, "message": f"the key {API_KEY} of secret-team is wrong"}}])
    error, _ = await fail(provider, request("x", model=kind.model))
    assert API_KEY not in error.message
    assert "secret-team" not in error.message


async def test_credentials_do_not_follow_a_redirect(kind: Kind, server: EmulatorProcess, provider: Provider) -> None:
    async with EmulatorProcess(kind.id) as elsewhere:
        place = f"{elsewhere.url}{kind.path}{kind.endpoint}"
        await server.script([{"raw": {"status": 307, "headers": {"location": place}}}])
        error, _ = await fail(provider, request("x", model=kind.model))
        assert await elsewhere.requests() == []
    assert f"models.providers.{kind.id}.baseUrl" in error.message
    assert place in error.message
