from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from openclaw_kernel.api import (
    AssistantMessage,
    Image,
    Provider,
    ProviderError,
    ProviderErrorKind,
    Secret,
    Text,
    TextDelta,
    ThinkingDelta,
    ToolCall,
    ToolResultMessage,
    ToolSpec,
    Usage,
    UserMessage,
)
from openclaw_providers.openai.plugin import OpenAIPlugin
from tests.emulators.model_control import API_KEY, EmulatorProcess
from tests.providers.support import Context, ask, fail, load, request, said

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "gpt-4o-mini"
WEATHER = ToolSpec(
    name="weather",
    description="Tells the weather",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}},
)


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
    made = openai(server, tmp_path)
    yield made
    await made.stop()


def openai(server: EmulatorProcess, tmp_path: Path, identity: str = "openai", **settings: Any) -> Provider:
    entry = {"baseUrl": server.openai_url, "apiKey": API_KEY, **settings}
    return load(OpenAIPlugin, Context({identity: entry}, tmp_path))[identity]


class Logged(logging.Handler):
    """Sets an event with the first record."""

    def __init__(self) -> None:
        super().__init__()
        self.event = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.event.set()


async def test_an_answer_is_streamed_piece_by_piece_with_its_usage(server: EmulatorProcess, provider: Provider) -> None:
    await server.script([{"text": "It is Paris", "input_tokens": 100, "output_tokens": 3, "cached_tokens": 60}])
    answer = await ask(provider, request("What is the capital of France?", model=MODEL, system="Be brief"))
    assert [event.text for event in answer.events[:-1] if isinstance(event, TextDelta)] == ["It", " is", " Paris"]
    assert answer.completed.stop_reason == "stop"
    assert answer.completed.usage == Usage(input_tokens=40, output_tokens=3, cache_read_tokens=60)
    assert answer.completed.model is None
    sent = (await server.requests())[0]
    assert sent["body"]["messages"][0] == {"role": "system", "content": "Be brief"}
    assert sent["headers"]["authorization"] == f"Bearer {API_KEY}"


async def test_a_whole_tool_round_is_taken_by_the_server(server: EmulatorProcess, provider: Provider) -> None:
    calls = [{"name": "weather", "arguments": {"city": "Paris"}}, {"name": "weather", "arguments": {"city": "Rome"}}]
    await server.script([{"text": "I look", "tool_calls": calls}])
    first = await ask(provider, request("weather?", model=MODEL, tools=(WEATHER,)))
    assert first.text == "I look"
    assert first.completed.stop_reason == "tool_calls"
    assert [call.arguments for call in first.completed.tool_calls] == [{"city": "Paris"}, {"city": "Rome"}]
    results = [ToolResultMessage(call_id=call.id, name=call.name, text="rain") for call in first.completed.tool_calls]
    said_so = AssistantMessage(content=(Text("I look"), *first.completed.tool_calls))
    second = await ask(provider, request("weather?", said_so, *results, model=MODEL, tools=(WEATHER,)))
    assert second.text == "rain"


async def test_ids_of_another_provider_and_empty_answers_are_made_to_fit(provider: Provider) -> None:
    odd = ToolCall("toolu:" + "x" * 80, "weather", {})
    asked = request(
        "x",
        AssistantMessage(content=()),
        "y",
        AssistantMessage(content=(odd,)),
        ToolResultMessage(call_id=odd.id, name="weather", text=""),
        said("thanks"),
        model=MODEL,
    )
    assert (await ask(provider, asked)).text == "thanks"


async def test_a_picture_is_sent_as_a_data_url(server: EmulatorProcess, provider: Provider) -> None:
    message = UserMessage(content=(Text("what is it"), Image("image/png", "aGk=")))
    await ask(provider, request(message, model=MODEL))
    content = (await server.requests())[0]["body"]["messages"][0]["content"]
    assert content[1] == {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}


async def test_reasoning_that_a_server_shows_is_thinking(server: EmulatorProcess, provider: Provider) -> None:
    await server.script([{"thinking": "hm", "text": "yes"}])
    answer = await ask(provider, request("x", model=MODEL))
    assert answer.events[0] == ThinkingDelta("hm")
    assert [block.text for block in answer.completed.thinking] == ["hm"]


async def test_an_answer_cut_by_its_limit_says_so(server: EmulatorProcess, provider: Provider) -> None:
    await server.script([{"text": "one", "finish": "length"}])
    answer = await ask(provider, request("x", model=MODEL, max_output_tokens=1))
    assert answer.completed.stop_reason == "length"
    assert (await server.requests())[0]["body"]["max_completion_tokens"] == 1


async def test_a_reasoning_model_is_told_the_effort(server: EmulatorProcess, tmp_path: Path) -> None:
    provider = openai(server, tmp_path, models=[{"id": "gpt-5", "reasoning": True}, {"id": MODEL}])
    await ask(provider, request("x", model="gpt-5", thinking="high"))
    await ask(provider, request("x", model="gpt-5", thinking="off"))
    await ask(provider, request("x", model=MODEL, thinking="high"))
    efforts = [item["body"].get("reasoning_effort") for item in await server.requests()]
    assert efforts == ["high", None, None]
    await provider.stop()


@pytest.mark.parametrize(
    ("status", "more", "kind"),
    [
        (400, {}, ProviderErrorKind.BAD_REQUEST),
        (400, {"code": "context_length_exceeded"}, ProviderErrorKind.CONTEXT_LENGTH),
        (400, {"code": "content_policy_violation"}, ProviderErrorKind.REFUSAL),
        (401, {}, ProviderErrorKind.AUTH),
        (402, {}, ProviderErrorKind.AUTH),
        (403, {}, ProviderErrorKind.AUTH),
        (404, {}, ProviderErrorKind.NOT_FOUND),
        (429, {"code": "insufficient_quota"}, ProviderErrorKind.AUTH),
        (500, {}, ProviderErrorKind.UNAVAILABLE),
        (502, {}, ProviderErrorKind.UNAVAILABLE),
        (503, {}, ProviderErrorKind.OVERLOADED),
    ],
)
async def test_each_error_has_its_kind_and_is_tried_once(
    server: EmulatorProcess, provider: Provider, status: int, more: dict[str, Any], kind: ProviderErrorKind
) -> None:
    await server.script([{"error": {"status": status, **more}}])
    error, _ = await fail(provider, request("x", model=MODEL))
    assert error.kind is kind
    assert (error.provider, error.model) == ("openai", MODEL)
    assert len(await server.requests()) == 1


async def test_a_missing_key_names_the_place_and_the_cure(tmp_path: Path) -> None:
    providers = load(OpenAIPlugin, Context({"openai": {}, "openrouter": {}, "mine": {}}, tmp_path))
    told = "models.providers.openai.apiKey is not set; set it to ${env:OPENAI_API_KEY} and export OPENAI_API_KEY"
    assert providers["openai"].problem() == told
    error, _ = await fail(providers["openai"], request("x", model=MODEL))
    assert (error.kind, error.message) == (ProviderErrorKind.AUTH, told)
    assert "OPENROUTER_API_KEY" in (providers["openrouter"].problem() or "")
    assert "models.providers.mine.baseUrl is not set" in (providers["mine"].problem() or "")


async def test_a_key_of_the_environment_is_not_sent_to_a_server_that_needs_none(
    server: EmulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-precious")
    await server.configure(api_keys=None)
    provider = load(OpenAIPlugin, Context({"ollama": {"baseUrl": server.openai_url}}, tmp_path))["ollama"]
    assert (await ask(provider, request("What is the capital of France?", model=MODEL))).text == "Paris"
    assert "sk-precious" not in str(await server.requests())
    await provider.stop()


async def test_models_that_the_config_does_not_name_are_listed_by_the_server(server: EmulatorProcess, tmp_path: Path) -> None:
    await server.configure(api_keys=None, models=["llama3.2", "nomic-embed-text-embedding"])
    context = Context({"ollama": {"baseUrl": server.openai_url}}, tmp_path)
    provider = load(OpenAIPlugin, context)["ollama"]
    assert "has not listed its models yet" in (provider.problem() or "")
    await provider.start()
    await context.tasks[0]
    assert provider.problem() is None
    assert [(model.ref, model.input_price) for model in provider.models()] == [("ollama/llama3.2", 0.0)]
    await provider.stop()


@pytest.mark.parametrize(
    ("url", "key", "told"),
    [
        ("http://127.0.0.1:1/v1", None, "no list of models from http://127.0.0.1:1/v1"),
        (None, "wrong", "answered 401: Incorrect API key"),
    ],
)
async def test_a_server_that_does_not_list_its_models_is_a_problem_with_its_reason(
    server: EmulatorProcess, tmp_path: Path, url: str | None, key: str | None, told: str
) -> None:
    entry = {"api": "openai-completions", "baseUrl": url or server.openai_url, **({"apiKey": key} if key else {})}
    context = Context({"mine": entry}, tmp_path)
    provider = load(OpenAIPlugin, context)["mine"]
    logged = Logged()
    context.logger = logging.getLogger(f"tests.providers.{tmp_path.name}")
    context.logger.setLevel(logging.INFO)
    context.logger.addHandler(logged)
    await provider.start()
    async with asyncio.timeout(5):
        await logged.event.wait()
    assert told in (provider.problem() or "")
    assert "or name them in models.providers.mine.models" in (provider.problem() or "")
    await provider.stop()
    await asyncio.wait(context.tasks)


async def test_configured_models_carry_their_facts_and_prices(server: EmulatorProcess, tmp_path: Path) -> None:
    model = {
        "id": "m",
        "name": "M",
        "input": ["text", "image"],
        "contextWindow": 1000,
        "maxTokens": 100,
        "cost": {"input": 1.5, "output": 6},
    }
    provider = openai(server, tmp_path, "openrouter", models=[model])
    (info,) = provider.models()
    assert (info.name, info.images, info.context_window, info.max_output_tokens) == ("M", True, 1000, 100)
    assert (info.input_price, info.output_price, info.cache_read_price) == (1.5, 6.0, None)


async def test_openai_without_a_list_offers_a_default_model(tmp_path: Path) -> None:
    provider = load(OpenAIPlugin, Context({"openai": {"apiKey": "x"}}, tmp_path))["openai"]
    assert provider.models()[0].ref == "openai/gpt-5.4-mini"
    assert provider.problem() is None


async def test_a_server_that_states_the_cost_is_asked_for_it(server: EmulatorProcess, tmp_path: Path) -> None:
    provider = openai(server, tmp_path, "openrouter", models=[{"id": MODEL}])
    # The emulator is OpenAI's server, which does not know the argument; what counts is that it was asked.
    with pytest.raises(ProviderError, match="usage"):
        await ask(provider, request("hello there", model=MODEL, tools=(WEATHER,)))
    body = (await server.requests())[0]["body"]
    assert body["usage"] == {"include": True}
    assert [message["role"] for message in body["messages"]] == ["user"]
    assert [tool["function"]["name"] for tool in body["tools"]] == ["weather"]
    await provider.stop()


async def test_a_header_may_be_a_secret(server: EmulatorProcess, tmp_path: Path) -> None:
    provider = openai(server, tmp_path, headers={"X-Team": Secret("blue-team"), "X-Plain": "green"})
    await ask(provider, request("hello there", model=MODEL))
    headers = (await server.requests())[-1]["headers"]
    assert (headers["x-team"], headers["x-plain"]) == ("blue-team", "green")
    await provider.stop()
