"""The bundled providers through the real plugin host: discovered, configured, started, asked, aborted, stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from openclaw_kernel.api import Completed, PluginState, ProviderError, ProviderErrorKind, TextDelta
from openclaw_kernel.host.discovery import Discovery, discover
from tests.emulators.model_control import API_KEY, EmulatorProcess
from tests.kernel.host.hosting import Hosting, make_hosting
from tests.providers.support import Answer, request
from tests.support.requirements import find_claude

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUESTION = "What is the capital of France?"
IDS = ("echo", "openai", "anthropic", "claude-cli")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def openai_server() -> AsyncIterator[EmulatorProcess]:
    async with EmulatorProcess("openai") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def anthropic_server() -> AsyncIterator[EmulatorProcess]:
    async with EmulatorProcess("anthropic") as running:
        yield running


def hosted(home: Path, providers: dict[str, Any]) -> Hosting:
    found = discover()
    own = tuple(plugin for plugin in found.plugins if plugin.id in IDS)
    config = {"plugins": {"callTimeoutSeconds": 10}, "channels": {}, "models": {"providers": providers}}
    return make_hosting(home, config, discovery=Discovery(plugins=own))


async def read(hosting: Hosting, provider: str, model: str, text: str = QUESTION) -> Answer:
    answer = Answer()
    async for event in hosting.host.providers.stream(provider, request(text, model=model)):
        answer.events.append(event)
    return answer


async def test_each_provider_answers_through_the_host(
    tmp_path: Path, openai_server: EmulatorProcess, anthropic_server: EmulatorProcess
) -> None:
    hosting = hosted(
        tmp_path,
        {
            "echo": {},
            "mine": {"api": "openai-completions", "baseUrl": openai_server.openai_url, "apiKey": API_KEY},
            "anthropic": {"baseUrl": anthropic_server.url, "apiKey": API_KEY},
        },
    )
    await hosting.run()
    try:
        assert {hosting.state(plugin) for plugin in ("echo", "openai", "anthropic")} == {PluginState.STARTED}
        assert hosting.state("claude-cli") is PluginState.DISABLED
        assert (await read(hosting, "echo", "echo")).text == QUESTION
        assert (await read(hosting, "mine", "gpt-4o-mini")).text == "Paris"
        answer = await read(hosting, "anthropic", "claude-haiku-4-5")
        assert isinstance(answer.completed, Completed)
        assert answer.text == "Paris"
    finally:
        assert await hosting.stop() == []


async def test_a_failure_and_a_fault_of_the_settings_reach_the_caller_in_words(tmp_path: Path, openai_server: EmulatorProcess) -> None:
    hosting = hosted(tmp_path, {"openai": {"baseUrl": openai_server.openai_url, "apiKey": "wrong"}, "anthropic": {}})
    await hosting.run()
    try:
        with pytest.raises(ProviderError) as caught:
            await read(hosting, "openai", "gpt-4o-mini")
        assert caught.value.kind is ProviderErrorKind.AUTH
        problem = hosting.host.providers.problem("anthropic")
        assert problem is not None
        assert problem.startswith("models.providers.anthropic.apiKey is not set")
    finally:
        assert await hosting.stop() == []


async def test_an_abort_reaches_the_server_and_leaves_nothing_behind(tmp_path: Path, anthropic_server: EmulatorProcess) -> None:
    await anthropic_server.reset()
    await anthropic_server.script([{"text": "one two", "hang_after_chunks": 1}])
    hosting = hosted(tmp_path, {"anthropic": {"baseUrl": anthropic_server.url, "apiKey": API_KEY}})
    await hosting.run()
    try:
        stream = hosting.host.providers.stream("anthropic", request("x", model="claude-haiku-4-5"))
        assert await anext(stream) == TextDelta("one")
        waiting = asyncio.ensure_future(anext(stream))
        await anthropic_server.requests(count=1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await anthropic_server.requests(count=1, outcome="disconnected")
    finally:
        assert await hosting.stop() == []


@pytest.mark.requires("claude")
async def test_the_command_line_agent_resumes_over_a_restart_of_the_gateway(tmp_path: Path, anthropic_server: EmulatorProcess) -> None:
    await anthropic_server.reset()
    settings = {"command": str(find_claude()), "apiKey": API_KEY, "baseUrl": anthropic_server.url}
    for said, heard in (("a", ["a"]), ("b", ["a", "a", "b"])):
        hosting = hosted(tmp_path, {"claude-cli": settings})
        await hosting.run()
        try:
            answer = await read(hosting, "claude-cli", "claude-haiku-4-5", said)
            assert answer.text == said
        finally:
            assert await hosting.stop() == []
        messages = (await anthropic_server.requests())[-1]["body"]["messages"]
        assert [_text(message["content"]) for message in messages] == heard


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)
