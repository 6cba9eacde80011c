"""The emulator is believed only because the vendor's own SDK talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
import pytest_asyncio
from anthropic import AsyncAnthropic

from tests.emulators.model_control import API_KEY, EmulatorProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "claude-haiku-4-5"
WEATHER: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def process() -> AsyncIterator[EmulatorProcess]:
    async with EmulatorProcess("anthropic") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def server(process: EmulatorProcess) -> EmulatorProcess:
    await process.reset()
    return process


@pytest_asyncio.fixture(loop_scope="module")
async def client(server: EmulatorProcess) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(api_key=API_KEY, base_url=server.url, max_retries=0, timeout=10) as sdk:
        yield sdk


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def called(*identities: str) -> dict[str, Any]:
    blocks = [{"type": "tool_use", "id": name, "name": "weather", "input": {}} for name in identities]
    return {"role": "assistant", "content": blocks}


def result(identity: str) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": identity, "content": "rain"}


async def ask(client: AsyncAnthropic, messages: Any, **more: Any) -> anthropic.types.Message:
    message: anthropic.types.Message = await client.messages.create(**{"model": MODEL, "max_tokens": 64, "messages": messages, **more})
    return message


async def test_without_a_script_the_capital_of_france_is_paris(client: AsyncAnthropic) -> None:
    answer = await ask(client, [user("What is the capital of France?")])
    assert [block.text for block in answer.content if block.type == "text"] == ["Paris"]
    assert answer.stop_reason == "end_turn"


async def test_a_stream_has_every_event_in_the_real_order(server: EmulatorProcess, client: AsyncAnthropic) -> None:
    await server.script([{"thinking": "hm", "text": "It is", "tool_calls": [{"name": "weather", "arguments": {"city": "Paris"}}]}])
    stream = await client.messages.create(
        model=MODEL, max_tokens=64, messages=[{"role": "user", "content": "x"}], tools=[WEATHER], stream=True
    )
    kinds = [event.type async for event in stream]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 3


async def test_the_sdk_puts_a_streamed_message_together(server: EmulatorProcess, client: AsyncAnthropic) -> None:
    await server.script(
        [
            {
                "thinking": "hm",
                "text": "It is",
                "tool_calls": [{"name": "weather", "arguments": {"city": "Paris"}}],
                "input_tokens": 11,
                "output_tokens": 22,
            }
        ]
    )
    async with client.messages.stream(model=MODEL, max_tokens=64, messages=[{"role": "user", "content": "x"}], tools=[WEATHER]) as stream:
        message = await stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    assert message.content[2].type == "tool_use"
    assert message.content[2].input == {"city": "Paris"}
    assert (message.usage.input_tokens, message.usage.output_tokens) == (11, 22)
    assert message.stop_reason == "tool_use"


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([], "at least one message is required"),
        ([{"role": "tool", "content": "x"}], "Input should be 'user' or 'assistant'"),
        ([user("")], "user messages must have non-empty content"),
        ([user([])], "user messages must have non-empty content"),
        ([user("  ")], "non-whitespace text"),
        ([user([{"type": "text", "text": ""}])], "text content blocks must be non-empty"),
        ([user("x"), {"role": "assistant", "content": ""}, user("y")], "all messages must have non-empty content"),
        ([user("x"), {"role": "assistant", "content": "y "}], "trailing whitespace"),
        ([user("x"), called("t1")], "`tool_use` ids were found without `tool_result` blocks"),
        ([user("x"), called("t1"), user("y")], "`tool_use` ids were found without `tool_result` blocks"),
        ([user("x"), called("t1", "t2"), user([result("t1")])], "immediately after: t2"),
        (
            [user("x"), called("t1"), user([{"type": "text", "text": "y"}, result("t1")])],
            "`tool_use` ids were found without `tool_result` blocks",
        ),
        ([user("x"), user([result("t1")])], "unexpected `tool_use_id` found"),
        ([user("x"), called("t1"), user([result("t1"), result("t1")])], "single result"),
        ([user("x"), called("t1", "t1"), user([result("t1")])], "must be unique"),
        ([user("x"), called("bad id"), user([result("bad id")])], "should match pattern"),
        ([user([called("t1")["content"][0]])], "can only be in `assistant` messages"),
    ],
)
async def test_messages_the_real_server_refuses_are_refused(client: AsyncAnthropic, messages: Any, told: str) -> None:
    with pytest.raises(anthropic.BadRequestError, match=told):
        await ask(client, messages)


async def test_a_paired_tool_call_over_split_user_messages_is_taken(client: AsyncAnthropic) -> None:
    answer = await ask(client, [user("x"), called("t1", "t2"), user([result("t1")]), user([result("t2")])])
    assert [block.text for block in answer.content if block.type == "text"] == ["rain"]


async def test_parameters_the_real_server_refuses_are_refused(client: AsyncAnthropic) -> None:
    for more, told in (
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"max_tokens": 0}, "greater than or equal to 1"),
        ({"extra_body": {"sing": True}}, "sing: Extra inputs are not permitted"),
        ({"system": [{"type": "text", "text": ""}]}, "text content blocks must be non-empty"),
        ({"tools": [WEATHER, WEATHER]}, "Tool names must be unique"),
        ({"tools": [{"name": "a b", "input_schema": {"type": "object"}}]}, "String should match pattern"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, "must be greater than `thinking.budget_tokens`"),
        ({"extra_headers": {"anthropic-version": anthropic.omit}}, "anthropic-version: header is required"),
    ):
        with pytest.raises(anthropic.BadRequestError, match=told):
            await ask(client, [user("x")], **more)


async def test_a_system_message_is_taken_under_the_new_version_alone(client: AsyncAnthropic) -> None:
    messages = [{"role": "system", "content": "x"}, user("y")]
    assert (await ask(client, messages)).stop_reason == "end_turn"
    with pytest.raises(anthropic.BadRequestError, match="top-level `system` parameter"):
        await ask(client, messages, extra_headers={"anthropic-version": "2023-06-01"})


async def test_the_newest_models_refuse_an_assistant_message_at_the_end(client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="does not support assistant message prefill"):
        await ask(client, [user("x"), {"role": "assistant", "content": "y"}], model="claude-opus-4-6")


async def test_a_prompt_past_the_context_is_too_long(server: EmulatorProcess, client: AsyncAnthropic) -> None:
    await server.configure(context_tokens=10)
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long: 63 tokens > 10 maximum"):
        await ask(client, [user("word " * 50)])


async def test_tokens_are_counted_and_models_listed(client: AsyncAnthropic) -> None:
    counted = await client.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": "word " * 50}])
    assert counted.input_tokens == 63
    assert MODEL in [model.id async for model in client.models.list()]


async def test_a_wrong_key_and_an_unknown_model_have_their_types(server: EmulatorProcess, client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="not_found_error"):
        await ask(client, [user("x")], model="claude-99")
    async with AsyncAnthropic(api_key="sk-wrong", base_url=server.url, max_retries=0) as stranger:
        with pytest.raises(anthropic.AuthenticationError, match="authentication_error"):
            await ask(stranger, [user("x")])


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, "rate_limit_error"), (500, "api_error"), (529, "overloaded_error"), (403, "permission_error")],
)
async def test_scripted_errors_carry_the_vendors_type(server: EmulatorProcess, client: AsyncAnthropic, status: int, kind: str) -> None:
    await server.script([{"error": {"status": status, "retry_after": 7}}])
    with pytest.raises(anthropic.APIStatusError, match=kind) as caught:
        await ask(client, [user("x")])
    assert caught.value.status_code == status
    assert caught.value.response.headers["retry-after"] == "7"


async def test_an_overload_in_the_middle_of_a_stream_is_raised_by_the_sdk(server: EmulatorProcess, client: AsyncAnthropic) -> None:
    await server.script([{"text": "one two three", "error": {"status": 529, "after_chunks": 1}}])
    stream = await client.messages.create(model=MODEL, max_tokens=64, messages=[{"role": "user", "content": "x"}], stream=True)
    with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
        [event async for event in stream]
