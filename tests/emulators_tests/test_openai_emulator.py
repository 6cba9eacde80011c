"""The emulator is believed only because the vendor's own SDK talks to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from tests.emulators.model_control import API_KEY, EmulatorProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

WEATHER: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def process() -> AsyncIterator[EmulatorProcess]:
    async with EmulatorProcess("openai") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def server(process: EmulatorProcess) -> EmulatorProcess:
    await process.reset()
    return process


@pytest_asyncio.fixture(loop_scope="module")
async def client(server: EmulatorProcess) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key=API_KEY, base_url=server.openai_url, max_retries=0, timeout=10) as sdk:
        yield sdk


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def called(*identities: str) -> Any:
    calls = [{"id": name, "type": "function", "function": {"name": "weather", "arguments": "{}"}} for name in identities]
    return {"role": "assistant", "content": None, "tool_calls": calls}


async def read_until_error(stream: Any, kind: type[Exception]) -> str:
    text = ""
    try:
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
    except kind:
        return text
    raise AssertionError(f"the stream ended without {kind.__name__}")


async def test_without_a_script_the_capital_of_france_is_paris(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="gpt-4o-mini", messages=user("What is the capital of France?"))
    assert answer.choices[0].message.content == "Paris"
    assert answer.choices[0].finish_reason == "stop"


async def test_without_a_script_the_last_text_is_repeated_in_a_stream_with_usage(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="gpt-4o-mini", messages=user("one two three"), stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert pieces == ["one", " two", " three"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens > 0


async def test_a_stream_without_usage_asked_for_carries_none(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="gpt-4o-mini", messages=user("hi"), stream=True)
    assert all(chunk.usage is None for chunk in [chunk async for chunk in stream])


async def test_scripted_turns_are_taken_in_order_and_tool_arguments_come_in_fragments(server: EmulatorProcess, client: AsyncOpenAI) -> None:
    await server.script([{"tool_calls": [{"name": "weather", "arguments": {"city": "Paris"}}]}, {"text": "It rains"}])
    stream = await client.chat.completions.create(model="gpt-4o-mini", messages=user("weather?"), tools=[WEATHER], stream=True)
    fragments: list[str] = []
    finish = None
    async for chunk in stream:
        calls = chunk.choices[0].delta.tool_calls or []
        fragments += [call.function.arguments or "" for call in calls if call.function]
        finish = chunk.choices[0].finish_reason or finish
    assert len(fragments) > 2
    assert json.loads("".join(fragments)) == {"city": "Paris"}
    assert finish == "tool_calls"
    answer = await client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[*user("weather?"), called("call_1"), {"role": "tool", "tool_call_id": "call_1", "content": "rain"}],
    )
    assert answer.choices[0].message.content == "It rains"
    assert await server.turns_left() == 0


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([], "empty array"),
        ([{"role": "robot", "content": "x"}], "Supported values"),
        ([{"role": "user", "content": None}], "expected a string, got null"),
        ([{"role": "user", "content": []}], "empty array"),
        ([*user("x"), called("call_1")], "did not have response messages: call_1"),
        ([*user("x"), called("call_1"), *user("y")], "did not have response messages: call_1"),
        (
            [*user("x"), {"role": "tool", "tool_call_id": "call_1", "content": "r"}],
            "must be a response to a preceeding",
        ),
        (
            [*user("x"), called("call_1"), {"role": "tool", "tool_call_id": "call_2", "content": "r"}],
            "not found in 'tool_calls'",
        ),
        ([*user("x"), {"role": "assistant", "content": "y", "tool_calls": []}, *user("z")], "empty array"),
    ],
)
async def test_messages_the_real_server_refuses_are_refused(client: AsyncOpenAI, messages: Any, told: str) -> None:
    with pytest.raises(openai.BadRequestError, match=told):
        await client.chat.completions.create(model="gpt-4o-mini", messages=messages)


async def test_parameters_the_real_server_refuses_are_refused(client: AsyncOpenAI) -> None:
    create = client.chat.completions.create
    with pytest.raises(openai.BadRequestError, match="Unrecognized request argument supplied: sing"):
        await create(model="gpt-4o-mini", messages=user("x"), extra_body={"sing": True})
    with pytest.raises(openai.BadRequestError, match="only allowed when 'stream' is enabled"):
        await create(model="gpt-4o-mini", messages=user("x"), extra_body={"stream_options": {"include_usage": True}})
    with pytest.raises(openai.BadRequestError, match="Use 'max_completion_tokens' instead"):
        await create(model="gpt-5", messages=user("x"), max_tokens=5)
    with pytest.raises(openai.BadRequestError, match="empty array"):
        await create(model="gpt-4o-mini", messages=user("x"), tools=[])


async def test_a_prompt_past_the_context_is_context_length_exceeded(server: EmulatorProcess, client: AsyncOpenAI) -> None:
    await server.configure(context_tokens=10)
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="gpt-4o-mini", messages=user("word " * 50))
    assert caught.value.code == "context_length_exceeded"


async def test_a_wrong_key_and_an_unknown_model_have_their_codes(server: EmulatorProcess, client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="gpt-99", messages=user("x"))
    assert missing.value.code == "model_not_found"
    async with AsyncOpenAI(api_key="sk-wrong", base_url=server.openai_url, max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as denied:
            await stranger.models.list()
    assert denied.value.code == "invalid_api_key"
    assert "gpt-4o-mini" in [model.id async for model in client.models.list()]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(500, openai.InternalServerError), (503, openai.InternalServerError), (403, openai.PermissionDeniedError)],
)
async def test_scripted_errors_reach_the_sdk_as_its_own_types(
    server: EmulatorProcess, client: AsyncOpenAI, status: int, kind: type[openai.APIStatusError]
) -> None:
    await server.script([{"error": {"status": status}}])
    with pytest.raises(kind) as caught:
        await client.chat.completions.create(model="gpt-4o-mini", messages=user("x"))
    assert caught.value.status_code == status


async def test_a_rate_limit_says_when_it_resets(server: EmulatorProcess, client: AsyncOpenAI) -> None:
    await server.script([{"error": {"status": 429, "retry_after": 7}}])
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(model="gpt-4o-mini", messages=user("x"))
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.response.headers["x-ratelimit-reset-requests"] == "7s"


async def test_a_dropped_stream_is_a_network_error_after_its_chunks(server: EmulatorProcess, client: AsyncOpenAI) -> None:
    await server.script([{"text": "one two three", "drop_after_chunks": 2}])
    stream = await client.chat.completions.create(model="gpt-4o-mini", messages=user("x"), stream=True)
    assert await read_until_error(stream, openai.APIConnectionError) == "one two"


async def test_an_error_in_the_middle_of_a_stream_is_raised_by_the_sdk(server: EmulatorProcess, client: AsyncOpenAI) -> None:
    await server.script([{"text": "one two three", "error": {"status": 503, "after_chunks": 1}}])
    stream = await client.chat.completions.create(model="gpt-4o-mini", messages=user("x"), stream=True)
    with pytest.raises(openai.APIError, match="overloaded"):
        [chunk async for chunk in stream]


async def test_a_client_that_goes_away_from_a_hanging_answer_is_recorded(server: EmulatorProcess, client: AsyncOpenAI) -> None:
    await server.script([{"hang": True}])
    asking = asyncio.ensure_future(client.chat.completions.create(model="gpt-4o-mini", messages=user("x")))
    await server.requests(count=1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    requests = await server.requests(count=1, outcome="disconnected")
    assert requests[0]["body"]["messages"] == user("x")
    assert requests[0]["headers"]["authorization"] == f"Bearer {API_KEY}"
