"""P10: whatever was recorded, wherever it was cut, whoever answered: what is projected is a request that each provider takes.

A random conversation is a stream of recorded messages with everything that goes wrong: turns cut at any point, calls without
results, results without calls, ids used twice, empty and blank texts, reasoning of another provider, aborts. Every prefix of it
goes through the store's JSON, the pairing, the ceiling of tokens and each provider's own form, and is judged by the schema of
the provider's SDK and by the server's rules that a schema cannot say (as the emulators enforce them).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from pydantic import TypeAdapter

from openclaw_kernel.api import (
    AssistantMessage,
    File,
    Image,
    Message,
    ModelRequest,
    Text,
    Thinking,
    ToolCall,
    ToolResultMessage,
    ToolSpec,
    UserMessage,
    message_from_json,
)
from openclaw_plugins.agents.history import PairedTranscript, fit_history
from openclaw_plugins.conversation import writable
from openclaw_providers.anthropic import wire as anthropic_wire
from openclaw_providers.claude_cli.command import input_line, mark_of
from openclaw_providers.local import wire as local_wire
from openclaw_providers.local.settings import LocalSettings
from openclaw_providers.openai import wire as openai_wire
from openclaw_providers.openai.settings import server_of
from tests.emulators import anthropic_checks
from tests.emulators.model_common import Settings
from tests.emulators.openai import OpenAIEmulator

MODEL: Final = "a-model"
TOOLS: Final = tuple(ToolSpec(name=name, description="does it", parameters={"type": "object"}) for name in ("look", "write"))
PROVIDERS: Final = ("anthropic", "openai", "local", "claude-cli")

# --- what may have been recorded ----------------------------------------------------------------------------------------

words = st.sampled_from(["", " ", "\n", "hello", "Ümlaut ✓", "<|im_end|>", "a" * 400, "line\nline", "\u200b", "NO_REPLY"])
call_ids = st.sampled_from(["call_1", "call_1", "call_2", "toolu_01A", "id with spaces", "é", "x" * 90, ""])
arguments = st.dictionaries(st.sampled_from(["path", "n", ""]), st.none() | st.integers() | words | st.lists(words, max_size=2), max_size=2)
pictures = st.builds(Image, st.sampled_from(["image/png", "image/jpeg"]), st.just("aGk="), words)
files = st.builds(File, st.just("text/plain"), words, st.none() | words)
users = st.builds(UserMessage, content=st.lists(st.builds(Text, words) | pictures | files, max_size=3).map(tuple), timestamp_ms=st.just(1))
thoughts = st.builds(Thinking, words, st.none() | st.sampled_from(["proof", "redacted:abc"]))
calls = st.builds(ToolCall, call_ids, st.sampled_from(["look", "write", "gone"]), arguments)
answers = st.builds(
    AssistantMessage,
    content=st.lists(thoughts | st.builds(Text, words) | calls, max_size=4).map(tuple),
    provider=st.sampled_from([*PROVIDERS, None]),
    model=st.sampled_from([MODEL, "another", None]),
    stop_reason=st.sampled_from(["stop", "tool_calls", "aborted", "error", None]),
)
results = st.builds(ToolResultMessage, call_id=call_ids, name=st.sampled_from(["look", "write"]), text=words, is_error=st.booleans())


@st.composite
def honest_rounds(draw: st.DrawFn) -> list[Message]:
    """A round as a good run records it: calls, and their results in any order, some of them missing."""
    answer = draw(answers)
    found: list[Message] = [answer]
    found += [
        ToolResultMessage(call_id=call.id, name=call.name, text=draw(words), is_error=draw(st.booleans()))
        for call in draw(st.permutations(answer.tool_calls))
        if draw(st.integers(0, 9))
    ]
    return found


streams = st.lists(
    st.one_of(
        users.map(lambda one: [one]), honest_rounds(), honest_rounds(), answers.map(lambda one: [one]), results.map(lambda one: [one])
    ),
    max_size=12,
).map(lambda parts: [message for part in parts for message in part])


# --- what it becomes ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """What the model that is asked next can do."""

    tools: bool
    images: bool
    ceiling: int


models = st.builds(Model, st.booleans(), st.booleans(), st.sampled_from([0, 100, 1_000, 100_000]))


def projected(stream: list[Message], question: UserMessage, model: Model) -> tuple[Message, ...]:
    """The messages of a request after this stream: stored, read back, paired, fitted."""
    read = [message_from_json(orjson.loads(writable.encoded(message.to_json()))) for message in (*stream, question)]
    return fit_history(PairedTranscript(read, tools=model.tools, images=model.images).messages(), model.ceiling)


def request_of(messages: tuple[Message, ...], *, tools: bool, system: str) -> ModelRequest:
    """A whole request."""
    return ModelRequest(
        model=MODEL,
        system=system,
        messages=messages,
        tools=TOOLS if tools else (),
        agent_id="main",
        session_key="agent:main:main",
        session_id="1",
        run_id="1",
        workspace=Path("/nowhere"),
    )


@functools.cache
def schema_of(params: Any) -> Draft202012Validator:
    """What the SDK says a request is."""
    return Draft202012Validator(TypeAdapter(params).json_schema())


def wrong_by_schema(params: Any, body: Mapping[str, Any]) -> list[str]:
    """How a request differs from the SDK's types."""
    return [f"{error.json_path}: {error.message[:200]}" for error in schema_of(params).iter_errors(json.loads(json.dumps(body)))]


def judged_by_openai(request: ModelRequest) -> None:
    body = openai_wire.parameters(request, server_of("openai"), reasoning=False, usage=True)
    assert not wrong_by_schema(CompletionCreateParamsStreaming, body)
    found = [fault.body for fault in OpenAIEmulator(Settings(models=[MODEL])).faults(body)]
    assert not found, body["messages"]


def judged_by_anthropic(request: ModelRequest) -> None:
    body = anthropic_wire.parameters(request, provider="anthropic", style=None, limit=1000, caching=True)
    assert not wrong_by_schema(MessageCreateParamsStreaming, body)
    found = [fault.body for fault in anthropic_checks.faults(body, version="2023-06-01", counting=False)]
    assert not found, body["messages"]


def judged_by_local(request: ModelRequest) -> None:
    for prompt in ("full", "compact"):
        made = local_wire.conversation(LocalSettings.model_validate({"systemPrompt": prompt}), request.messages)
        assert all(message["content"].strip() for message in made)
        assert [message["role"] for message in made] == [("user", "assistant")[number % 2] for number in range(len(made))]
        assert not any("<|im_end|>" in message["content"] for message in made)


def judged_by_claude_cli(request: ModelRequest) -> None:
    line = orjson.loads(input_line(request.messages, None, provider="claude-cli"))
    assert line["type"] == "user"
    assert line["message"]["role"] == "user"
    assert line["message"]["content"]
    assert all(part["type"] != "text" or part["text"].strip() for part in line["message"]["content"])
    assert mark_of(request.messages)


JUDGES: Final = {
    "openai": judged_by_openai,
    "anthropic": judged_by_anthropic,
    "local": judged_by_local,
    "claude-cli": judged_by_claude_cli,
}


@settings(max_examples=120, deadline=None)
@given(
    stream=streams,
    cut=st.integers(0, 40),
    question=users,
    model=models,
    system=st.sampled_from(["", "Be kind."]),
)
@pytest.mark.parametrize("provider", JUDGES)
def test_any_prefix_becomes_a_request_that_the_provider_takes(  # noqa: PLR0917 - Hypothesis names them all
    provider: str, stream: list[Message], cut: int, question: UserMessage, model: Model, system: str
) -> None:
    messages = projected(stream[:cut], question, model)
    assert messages
    JUDGES[provider](request_of(messages, tools=model.tools, system=system))


@settings(max_examples=120, deadline=None)
@given(stream=streams, ceiling=st.sampled_from([0, 100, 100_000]))
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_turn_that_goes_on_after_a_crash_is_taken_as_well(provider: str, stream: list[Message], ceiling: int) -> None:
    """A resumed turn ends in recorded results instead of a question; those of calls that were cut off are closed."""
    question = UserMessage(content=(Text("go on"),))
    call = AssistantMessage(content=(ToolCall("again", "look", {}), ToolCall("cut", "write", {})))
    result = ToolResultMessage(call_id="again", name="look", text="seen")
    messages = fit_history(PairedTranscript([*stream, question, call, result]).messages(), ceiling)
    JUDGES[provider](request_of(messages, tools=True, system="Be kind."))


def test_the_judges_see_an_unpaired_call() -> None:
    """What the builder excludes is what they refuse."""
    torn = (UserMessage(content=(Text("hi"),)), AssistantMessage(content=(ToolCall("a", "look", {}),)), UserMessage(content=(Text("so"),)))
    with pytest.raises(ValueError, match="has no result"):
        request_of(torn, tools=True, system="")
    request = request_of((), tools=True, system="")
    object.__setattr__(request, "messages", torn)
    for provider in ("openai", "anthropic"):
        with pytest.raises(AssertionError):
            JUDGES[provider](request)
