"""The gateway's requests and events to and from the chat completions API; pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

from openclaw_kernel.api import (
    Completed,
    File,
    Image,
    Message,
    ModelEvent,
    ModelRequest,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
    ToolResultMessage,
    ToolSpec,
    Usage,
    UserMessage,
    UserPart,
)
from openclaw_kernel.api.remote import file_text, parse_arguments
from openclaw_providers.openai.settings import Server

_ID: Final = re.compile(r"^[a-zA-Z0-9_-]{1,40}$")
_STOP_REASONS: Final[dict[str, Literal["stop", "length", "tool_calls", "refusal"]]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "refusal",
}


def parameters(request: ModelRequest, server: Server, *, reasoning: bool, usage: bool) -> dict[str, Any]:
    """Return the arguments of `chat.completions.create` for one request, streaming."""
    made: dict[str, Any] = {"model": request.model, "messages": messages(request), "stream": True}
    if usage:
        made["stream_options"] = {"include_usage": True}
    if request.tools:
        made["tools"] = [_tool(tool) for tool in request.tools]
        if request.tool_choice == "none":
            made["tool_choice"] = "none"
    if request.max_output_tokens is not None:
        made[server.output_limit] = request.max_output_tokens
    # Not every reasoning model can do without: "off" leaves it at its default.
    if reasoning and request.thinking not in (None, "off"):
        made["reasoning_effort"] = request.thinking
    if server.states_cost:
        made["extra_body"] = {"usage": {"include": True}}
    return made


def messages(request: ModelRequest) -> list[dict[str, Any]]:
    """Return the conversation in the API's form; an assistant's message without text and calls is left out."""
    made: list[dict[str, Any]] = [{"role": "system", "content": request.system}] if request.system else []
    for message in request.messages:
        made.extend(_message(message))
    return made


def _message(message: Message) -> Iterator[dict[str, Any]]:
    if isinstance(message, UserMessage):
        yield {"role": "user", "content": _user_content(message.content)}
    elif isinstance(message, ToolResultMessage):
        yield {"role": "tool", "tool_call_id": _call_id(message.call_id), "content": message.text}
    elif message.tool_calls:
        calls = [_call(call) for call in message.tool_calls]
        yield {"role": "assistant", "content": message.text or None, "tool_calls": calls}
    elif message.text:
        yield {"role": "assistant", "content": message.text}


def _user_content(parts: Sequence[UserPart]) -> str | list[dict[str, Any]]:
    if not any(isinstance(part, Image) for part in parts):
        return "\n".join(_text(part) for part in parts)
    return [_user_part(part) for part in parts]


def _user_part(part: UserPart) -> dict[str, Any]:
    if isinstance(part, Image):
        return {"type": "image_url", "image_url": {"url": f"data:{part.mime_type};base64,{part.data}"}}
    return {"type": "text", "text": _text(part)}


def _text(part: UserPart) -> str:
    match part:
        case Text():
            return part.text
        case File():
            return file_text(part)
        case Image():
            return f"[picture {part.file_name}]"


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)}
    return {"id": _call_id(call.id), "type": "function", "function": function}


def _call_id(identity: str) -> str:
    """Return an id the API takes, the same for a call and its result; a transcript may hold another provider's."""
    if _ID.match(identity):
        return identity
    return "call_" + hashlib.sha256(identity.encode()).hexdigest()[:24]


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


class _PartialCall:
    def __init__(self, identity: str) -> None:
        self.id = identity
        self.name = ""
        self.arguments = ""

    def finish(self, position: int) -> ToolCall:
        return ToolCall(self.id or f"call_{position}", self.name, parse_arguments(self.arguments))


class Reader:
    """Turns the chunks of one stream into events."""

    def __init__(self, model: str) -> None:
        self.has_begun = False
        """Whether the server has sent a piece of an answer at all."""
        self._asked = model
        self._model = model
        self._calls: list[_PartialCall] = []
        self._by_index: dict[int, _PartialCall] = {}
        self._finish: str | None = None
        self._thinking: list[str] = []
        self._refused = False
        self._usage = Usage()

    def read(self, chunk: Any) -> Iterator[ModelEvent]:
        """Take one chunk of the SDK; yield what it brought."""
        self.has_begun = self.has_begun or chunk.choices is not None
        self._model = chunk.model or self._model
        if chunk.usage is not None:
            self._usage = _usage(chunk.usage)
        # A server may end with a chunk of usage alone.
        for choice in (chunk.choices or [])[:1]:
            yield from self._delta(choice.delta)
            self._finish = choice.finish_reason or self._finish

    def _delta(self, delta: Any) -> Iterator[ModelEvent]:
        if delta is None:
            return
        # Two names for the same: DeepSeek's and vLLM's, and OpenRouter's.
        thought = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None)
        if isinstance(thought, str) and thought:
            self._thinking.append(thought)
            yield ThinkingDelta(thought)
        if delta.content:
            yield TextDelta(delta.content)
        if getattr(delta, "refusal", None):
            self._refused = True
            yield TextDelta(delta.refusal)
        for call in delta.tool_calls or []:
            self._take_call(call)

    def _take_call(self, delta: Any) -> None:
        index = delta.index if delta.index is not None else 0
        call = self._by_index.get(index)
        # Some servers send whole calls, all of index 0: only the id tells them apart.
        if call is None or (delta.id and call.id and delta.id != call.id):
            call = _PartialCall(delta.id or "")
            self._by_index[index] = call
            self._calls.append(call)
        call.id = call.id or delta.id or ""
        if delta.function is not None:
            call.name = call.name or delta.function.name or ""
            call.arguments += delta.function.arguments or ""

    def finish(self) -> Completed | None:
        """Return the last event, or None where the stream ended before the answer did."""
        if self._finish is None:
            return None
        calls = tuple(call.finish(position) for position, call in enumerate(self._calls) if call.name)
        reason = _STOP_REASONS.get(self._finish, "stop")
        if reason in ("stop", "tool_calls"):
            # Ollama and others end a turn with calls in it with "stop".
            reason = "tool_calls" if calls else "refusal" if self._refused else "stop"
        return Completed(
            stop_reason=reason,
            tool_calls=calls if reason == "tool_calls" else (),
            thinking=(Thinking("".join(self._thinking)),) if self._thinking else (),
            usage=self._usage,
            model=self._model if self._model != self._asked else None,
        )


def _usage(usage: Any) -> Usage:
    details = getattr(usage, "prompt_tokens_details", None)
    cached = getattr(details, "cached_tokens", None) or 0
    cost = getattr(usage, "cost", None)
    return Usage(
        input_tokens=max(0, (usage.prompt_tokens or 0) - cached),
        output_tokens=usage.completion_tokens or 0,
        cache_read_tokens=cached,
        cost_usd=float(cost) if isinstance(cost, int | float) else None,
    )
