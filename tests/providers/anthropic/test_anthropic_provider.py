from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from openclaw_kernel.api import (
    AssistantMessage,
    AssistantPart,
    Image,
    Provider,
    ProviderErrorKind,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
    ToolResultMessage,
    ToolSpec,
    Usage,
    UserMessage,
)
from openclaw_providers.anthropic.plugin import AnthropicPlugin
from tests.emulators.model_control import API_KEY, EmulatorProcess
from tests.providers.support import Context, ask, fail, load, request, said

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "claude-haiku-4-5"
NEW_MODEL = "claude-sonnet-5-5"
WEATHER = ToolSpec(
    name="weather",
    description="Tells the weather",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}},
)


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
    made = claude(server, tmp_path)
    yield made
    await made.stop()


def claude(server: EmulatorProcess, tmp_path: Path, **settings: Any) -> Provider:
    entry = {"baseUrl": server.url, "apiKey": API_KEY, **settings}
    return load(AnthropicPlugin, Context({"anthropic": entry}, tmp_path))["anthropic"]


async def body(server: EmulatorProcess, index: int = -1) -> dict[str, Any]:
    sent: dict[str, Any] = (await server.requests())[index]["body"]
    return sent


async def test_an_answer_is_streamed_piece_by_piece_with_its_usage(server: EmulatorProcess, provider: Provider) -> None:
    await server.script([{"text": "It is Paris", "input_tokens": 40, "output_tokens": 3, "cached_tokens": 60}])
    answer = await ask(provider, request("What is the capital of France?", model=MODEL, system="Be brief"))
    assert [event.text for event in answer.events[:-1] if isinstance(event, TextDelta)] == ["It", " is", " Paris"]
    assert answer.completed.stop_reason == "stop"
    assert answer.completed.usage == Usage(input_tokens=40, output_tokens=3, cache_read_tokens=60)
    assert answer.completed.model is None
    assert (await body(server))["system"][0]["text"] == "Be brief"


async def test_a_whole_tool_round_is_taken_by_the_server(server: EmulatorProcess, provider: Provider) -> None:
    calls = [{"name": "weather", "arguments": {"city": "Paris"}}, {"name": "weather", "arguments": {"city": "Rome"}}]
    await server.script([{"thinking": "hm", "text": "I look", "tool_calls": calls}])
    first = await ask(provider, request("weather?", model=MODEL, tools=(WEATHER,)))
    assert first.events[0] == ThinkingDelta("hm")
    assert first.text == "I look"
    assert first.completed.stop_reason == "tool_calls"
    assert [call.arguments for call in first.completed.tool_calls] == [{"city": "Paris"}, {"city": "Rome"}]
    (thought,) = first.completed.thinking
    assert thought.signature
    content: tuple[AssistantPart, ...] = (thought, Text("I look"), *first.completed.tool_calls)
    said_so = AssistantMessage(content=content, provider="anthropic", model=MODEL)
    results = [ToolResultMessage(call_id=call.id, name=call.name, text="rain") for call in first.completed.tool_calls]
    second = await ask(provider, request("weather?", said_so, *results, model=MODEL, tools=(WEATHER,), thinking="low"))
    assert second.text == "rainrain"
    sent = await body(server)
    assert sent["messages"][1]["content"][0] == {"type": "thinking", "thinking": "hm", "signature": thought.signature}
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user"]


async def test_reasoning_of_another_provider_or_model_is_not_sent_back(server: EmulatorProcess, provider: Provider) -> None:
    call = ToolCall("t1", "weather", {})
    for origin, model in (("other", MODEL), ("anthropic", "claude-opus-5-5")):
        message = AssistantMessage(content=(Thinking("hm", "sig"), call), provider=origin, model=model)
        result = ToolResultMessage(call_id="t1", name="weather", text="rain")
        await ask(provider, request("x", message, result, model=MODEL, tools=(WEATHER,)))
        assert [block["type"] for block in (await body(server))["messages"][1]["content"]] == ["tool_use"]


async def test_reasoning_that_is_encrypted_is_sent_back_as_it_came(server: EmulatorProcess, provider: Provider) -> None:
    thought = Thinking("", "redacted:c2VjcmV0")
    message = AssistantMessage(content=(thought, Text("y")), provider="anthropic", model=f"{MODEL}-20251001")
    await ask(provider, request("x", message, "z", model=MODEL))
    sent = await body(server)
    assert sent["messages"][1]["content"][0] == {"type": "redacted_thinking", "data": "c2VjcmV0"}


async def test_a_transcript_that_does_not_fit_the_api_is_made_to_fit(server: EmulatorProcess, provider: Provider) -> None:
    odd = ToolCall("call:" + "x" * 80, "weather", {})
    asked = request(
        AssistantMessage(content=(Text("I greet you "),)),
        "x",
        AssistantMessage(content=(Text("  "),)),
        "y",
        AssistantMessage(content=(odd,)),
        ToolResultMessage(call_id=odd.id, name="weather", text="", is_error=True),
        said("  "),
        model=MODEL,
        tools=(WEATHER,),
    )
    assert (await ask(provider, asked)).text == "(an empty message)"
    assert (await body(server))["messages"][0]["role"] == "user"


async def test_a_picture_is_sent_as_base64(server: EmulatorProcess, provider: Provider) -> None:
    await ask(provider, request(UserMessage(content=(Image("image/png", "aGk="), Text("?"))), model=MODEL))
    source = (await body(server))["messages"][0]["content"][0]["source"]
    assert source == {"type": "base64", "media_type": "image/png", "data": "aGk="}


async def test_the_answers_limit_is_the_requests_or_the_settings(server: EmulatorProcess, tmp_path: Path) -> None:
    provider = claude(server, tmp_path, maxOutputTokens=500)
    await ask(provider, request("x", model=MODEL))
    assert (await body(server))["max_tokens"] == 500
    await ask(provider, request("x", model=MODEL, max_output_tokens=7))
    assert (await body(server))["max_tokens"] == 7
    await provider.stop()


async def test_each_generation_of_models_is_told_to_think_in_its_own_way(server: EmulatorProcess, provider: Provider) -> None:
    await ask(provider, request("x", model=MODEL, thinking="high"))
    old = await body(server)
    assert old["thinking"] == {"type": "enabled", "budget_tokens": 16384}
    assert old["max_tokens"] == 8192 + 16384
    await ask(provider, request("x", model=NEW_MODEL, thinking="high"))
    new = await body(server)
    assert new["thinking"]["type"] == "adaptive"
    assert new["output_config"] == {"effort": "high"}
    await ask(provider, request("x", model=MODEL, thinking="off"))
    assert "thinking" not in await body(server)


async def test_the_prompt_is_marked_for_the_cache_unless_told_not_to(server: EmulatorProcess, tmp_path: Path) -> None:
    for caching in (True, False):
        provider = claude(server, tmp_path, promptCaching=caching)
        await ask(provider, request("x", "y", model=MODEL, system="s"))
        sent = await body(server)
        assert ("cache_control" in sent["system"][-1]) is caching
        assert ("cache_control" in sent["messages"][-1]["content"][-1]) is caching
        await provider.stop()


@pytest.mark.parametrize(("finish", "reason"), [("max_tokens", "length"), ("refusal", "refusal"), ("end_turn", "stop")])
async def test_how_an_answer_ended_is_told(server: EmulatorProcess, provider: Provider, finish: str, reason: str) -> None:
    await server.script([{"text": "one", "finish": finish}])
    assert (await ask(provider, request("x", model=MODEL))).completed.stop_reason == reason


@pytest.mark.parametrize(
    ("status", "more", "kind"),
    [
        (400, {}, ProviderErrorKind.BAD_REQUEST),
        (400, {"message": "Your credit balance is too low to access the API."}, ProviderErrorKind.AUTH),
        (401, {}, ProviderErrorKind.AUTH),
        (403, {}, ProviderErrorKind.AUTH),
        (404, {}, ProviderErrorKind.NOT_FOUND),
        (413, {}, ProviderErrorKind.CONTEXT_LENGTH),
        (500, {}, ProviderErrorKind.UNAVAILABLE),
        (502, {"type": "proxy_says_no"}, ProviderErrorKind.UNAVAILABLE),
        (503, {"type": "proxy_says_no"}, ProviderErrorKind.OVERLOADED),
        (504, {}, ProviderErrorKind.TIMEOUT),
        (529, {}, ProviderErrorKind.OVERLOADED),
    ],
)
async def test_each_error_has_its_kind_and_is_tried_once(
    server: EmulatorProcess, provider: Provider, status: int, more: dict[str, Any], kind: ProviderErrorKind
) -> None:
    await server.script([{"error": {"status": status, **more}}])
    error, _ = await fail(provider, request("x", model=MODEL))
    assert error.kind is kind
    assert (error.provider, error.model) == ("anthropic", MODEL)
    assert len(await server.requests()) == 1


async def test_a_wrong_key_names_its_place(server: EmulatorProcess, tmp_path: Path) -> None:
    provider = claude(server, tmp_path, apiKey="wrong")
    error, _ = await fail(provider, request("x", model=MODEL))
    assert error.kind is ProviderErrorKind.AUTH
    assert "models.providers.anthropic.apiKey" in error.message
    assert "wrong" not in error.message
    await provider.stop()


async def test_a_missing_key_names_the_place_and_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "not-for-you")
    provider = load(AnthropicPlugin, Context({"anthropic": {}}, tmp_path))["anthropic"]
    told = "models.providers.anthropic.apiKey is not set; set it to ${env:ANTHROPIC_API_KEY}"
    assert (provider.problem() or "").startswith(told)
    error, _ = await fail(provider, request("x", model=MODEL))
    assert error.kind is ProviderErrorKind.AUTH


async def test_known_models_have_prices_and_configured_ones_replace_them(
    server: EmulatorProcess, provider: Provider, tmp_path: Path
) -> None:
    first = provider.models()[0]
    assert (first.ref, first.input_price, first.cache_read_price) == ("anthropic/claude-sonnet-5-5", 2.0, 0.2)
    own = claude(server, tmp_path, models=[{"id": MODEL, "contextWindow": 1000}])
    assert [(model.id, model.context_window) for model in own.models()] == [(MODEL, 1000)]
