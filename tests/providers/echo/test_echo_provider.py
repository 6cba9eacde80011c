from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from openclaw_kernel.api import (
    AssistantMessage,
    ModelEvent,
    Provider,
    ProviderErrorKind,
    Thinking,
    ToolCall,
    ToolResultMessage,
    Usage,
)
from openclaw_providers.echo.plugin import EchoPlugin
from openclaw_providers.echo.settings import EchoSettings
from tests.providers.support import Context, ask, fail, load, request


def echo(tmp_path: Path, **settings: Any) -> Provider:
    return load(EchoPlugin, Context({"echo": settings}, tmp_path))["echo"]


async def test_the_last_text_is_repeated_word_by_word(tmp_path: Path) -> None:
    answer = await ask(echo(tmp_path), request("one  two\nthree", model="echo"))
    assert answer.text == "one  two\nthree"
    assert len(answer.events) == 4
    assert answer.completed.stop_reason == "stop"
    assert answer.completed.usage == Usage(input_tokens=3, output_tokens=3)


async def test_each_configured_entry_is_a_provider_of_its_own(tmp_path: Path) -> None:
    providers = load(EchoPlugin, Context({"echo": {}, "parrot": {"api": "echo", "reply": "hello"}}, tmp_path))
    assert (await ask(providers["parrot"], request("x", model="echo"))).text == "hello"
    assert [model.ref for model in providers["parrot"].models()] == ["parrot/echo"]


async def test_a_message_can_ask_for_a_tool_and_its_result_is_repeated(tmp_path: Path) -> None:
    provider = echo(tmp_path)
    answer = await ask(provider, request('look\n!tool weather {"city": "Paris"}', model="echo"))
    assert answer.text == "look"
    assert answer.completed.stop_reason == "tool_calls"
    assert answer.completed.tool_calls == (ToolCall("echo_1", "weather", {"city": "Paris"}),)
    result = ToolResultMessage(call_id="echo_1", name="weather", text="rain")
    assert (
        await ask(provider, request("x", AssistantMessage(content=answer.completed.tool_calls), result, model="echo"))
    ).text == "weather: rain"


async def test_settings_can_ask_for_a_tool_that_is_called_once(tmp_path: Path) -> None:
    provider = echo(tmp_path, tool={"name": "fetch", "arguments": {"url": "x"}})
    called = (await ask(provider, request("hi", model="echo"))).completed.tool_calls
    assert called[0].name == "fetch"
    result = ToolResultMessage(call_id="echo_1", name="fetch", text="page")
    assert (await ask(provider, request("hi", AssistantMessage(content=called), result, model="echo"))).completed.tool_calls == ()


@pytest.mark.parametrize("kind", list(ProviderErrorKind))
async def test_a_message_can_ask_for_every_kind_of_failure(tmp_path: Path, kind: ProviderErrorKind) -> None:
    error, text = await fail(echo(tmp_path, retryAfter=3), request(f"one two three\n!fail {kind} 2", model="echo"))
    assert error.kind is kind
    assert (error.provider, error.model, error.retry_after) == ("echo", "echo", 3)
    assert text == "one two"


async def test_settings_can_make_every_call_fail(tmp_path: Path) -> None:
    error, text = await fail(echo(tmp_path, fail="overloaded"), request("one", model="echo"))
    assert (error.kind, text) == (ProviderErrorKind.OVERLOADED, "")


async def test_thinking_comes_before_the_answer(tmp_path: Path) -> None:
    answer = await ask(echo(tmp_path), request("!think hm\nyes", model="echo"))
    assert [type(event).__name__ for event in answer.events] == ["ThinkingDelta", "TextDelta", "Completed"]
    assert answer.completed.thinking == (Thinking("hm"),)


async def test_a_prompt_past_the_context_window_is_too_long(tmp_path: Path) -> None:
    error, _ = await fail(echo(tmp_path, contextWindow=16), request("word " * 17, model="echo"))
    assert error.kind is ProviderErrorKind.CONTEXT_LENGTH


async def test_a_hanging_answer_ends_when_its_reader_is_cancelled(tmp_path: Path) -> None:
    stream: AsyncIterator[ModelEvent] = echo(tmp_path).stream(request("one\n!hang", model="echo"))
    await anext(stream)
    waiting = asyncio.ensure_future(anext(stream))
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_slow_answer_waits_before_each_word(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await ask(echo(tmp_path), request("!slow 20\na b c", model="echo"))
    assert loop.time() - began >= 0.06


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="delay_ms"):
        EchoSettings.model_validate({"delay_ms": 3})
