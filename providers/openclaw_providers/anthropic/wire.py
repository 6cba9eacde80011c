"""The gateway's requests and events to and from the Messages API; pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

from openclaw_kernel.api import (
    AssistantMessage,
    Completed,
    Image,
    Message,
    ModelEvent,
    ModelRequest,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ThinkingLevel,
    ToolCall,
    ToolResultMessage,
    ToolSpec,
    Usage,
    UserMessage,
    UserPart,
)
from openclaw_kernel.api.remote import file_text, parse_arguments

Block = dict[str, Any]
ThinkingStyle = Literal["adaptive", "budget"]

_ID: Final = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")
_BUDGET_MODELS: Final = re.compile(r"claude-3|-4-[015]|-4-2025")
_STOP_REASONS: Final[dict[str, Literal["stop", "length", "tool_calls", "refusal"]]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "refusal",
}
_BUDGETS: Final[dict[ThinkingLevel, int]] = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384}
_EFFORTS: Final[dict[ThinkingLevel, str]] = {"minimal": "low", "low": "low", "medium": "medium", "high": "high"}
#: A reasoning block the API encrypts comes back as a `Thinking` without text, its signature marked like this.
_REDACTED: Final = "redacted:"
_CACHE: Final = {"type": "ephemeral"}


def style_of(model: str) -> ThinkingStyle:
    """Judge by a model's id how it is told to think."""
    return "budget" if _BUDGET_MODELS.search(model) else "adaptive"


def parameters(request: ModelRequest, *, provider: str, style: ThinkingStyle | None, limit: int, caching: bool) -> dict[str, Any]:
    """Return the arguments of `messages.create` for one request, streaming.

    `style` is None for a model that cannot think; `limit` is the most tokens of the answer, which the API demands.
    """
    made: dict[str, Any] = {"model": request.model, "max_tokens": limit, "stream": True}
    made["messages"] = messages(request, provider=provider)
    if request.system.strip():
        made["system"] = [{"type": "text", "text": request.system}]
    if request.tools:
        made["tools"] = [_tool(tool) for tool in request.tools]
        if request.tool_choice == "none":
            made["tool_choice"] = {"type": "none"}
    if style is not None and request.thinking is not None:
        made.update(_thinking(request.thinking, style, limit))
    if caching:
        _mark_for_cache(made)
    return made


def _thinking(level: ThinkingLevel, style: ThinkingStyle, limit: int) -> dict[str, Any]:
    if level == "off":
        # The newest models always think; the least effort is what comes nearest.
        return _effort("low") if style == "adaptive" else {}
    if style == "adaptive":
        return {"thinking": {"type": "adaptive", "display": "summarized"}, **_effort(_EFFORTS[level])}
    budget = _BUDGETS[level]
    # The budget is part of the limit: what is left has to hold the answer.
    total = limit if limit > 2 * budget else limit + budget
    return {"thinking": {"type": "enabled", "budget_tokens": budget}, "max_tokens": total}


def _effort(effort: str) -> dict[str, Any]:
    # Older SDKs do not know the parameter, and pass on what they do not know this way alone.
    return {"extra_body": {"output_config": {"effort": effort}}}


def _mark_for_cache(made: dict[str, Any]) -> None:
    if "system" in made:
        made["system"][-1]["cache_control"] = _CACHE
    made["messages"][-1]["content"][-1]["cache_control"] = _CACHE


def messages(request: ModelRequest, *, provider: str) -> list[dict[str, Any]]:
    """Return the conversation in the API's form: roles that alternate, results first, no empty block."""
    made: list[dict[str, Any]] = []
    for message in request.messages:
        role, blocks = _blocks(message, provider=provider, model=request.model)
        if not blocks:
            continue
        if made and made[-1]["role"] == role:
            made[-1]["content"].extend(blocks)
        else:
            made.append({"role": role, "content": blocks})
    if not made or made[0]["role"] != "user":
        made.insert(0, {"role": "user", "content": [{"type": "text", "text": "(the conversation began earlier)"}]})
    return made


def _blocks(message: Message, *, provider: str, model: str) -> tuple[str, list[Block]]:
    if isinstance(message, UserMessage):
        blocks = [block for part in message.content if (block := _user_block(part)) is not None]
        return "user", blocks or [{"type": "text", "text": "(an empty message)"}]
    if isinstance(message, ToolResultMessage):
        return "user", [_result(message)]
    return "assistant", list(_assistant_blocks(message, provider=provider, model=model))


def _user_block(part: UserPart) -> Block | None:
    if isinstance(part, Image):
        return {"type": "image", "source": {"type": "base64", "media_type": part.mime_type, "data": part.data}}
    text = part.text if isinstance(part, Text) else file_text(part)
    return {"type": "text", "text": text} if text.strip() else None


def _result(message: ToolResultMessage) -> Block:
    block: Block = {"type": "tool_result", "tool_use_id": _call_id(message.call_id)}
    if message.text.strip():
        block["content"] = message.text
    if message.is_error:
        block["is_error"] = True
    return block


def _assistant_blocks(message: AssistantMessage, *, provider: str, model: str) -> Iterator[Block]:
    # A signature is good only where it was made: for this provider and this model.
    own = message.provider == provider and _is_same_model(message.model, model)
    for part in message.content:
        match part:
            case Text() if part.text.strip():
                yield {"type": "text", "text": part.text}
            case ToolCall():
                yield {"type": "tool_use", "id": _call_id(part.id), "name": part.name, "input": part.arguments}
            case Thinking(signature=str() as signature) if own:
                yield _thinking_block(part.text, signature)


def _is_same_model(answered: str | None, asked: str) -> bool:
    """Tell whether an answer's model is the one asked now; an id may come back with its date."""
    return answered is None or answered.startswith(asked) or asked.startswith(answered)


def _thinking_block(text: str, signature: str) -> Block:
    if signature.startswith(_REDACTED):
        return {"type": "redacted_thinking", "data": signature.removeprefix(_REDACTED)}
    return {"type": "thinking", "thinking": text, "signature": signature}


def _call_id(identity: str) -> str:
    """Return an id the API takes, the same for a call and its result; a transcript may hold another provider's."""
    if _ID.match(identity):
        return identity
    return "toolu_" + hashlib.sha256(identity.encode()).hexdigest()[:24]


def _tool(tool: ToolSpec) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "input_schema": tool.parameters}


class _OpenBlock:
    def __init__(self, start: Any) -> None:
        self.kind: str = start.type
        self.id: str = getattr(start, "id", "")
        self.name: str = getattr(start, "name", "")
        self.text = getattr(start, "thinking", "") if self.kind == "thinking" else ""
        self.signature = _REDACTED + start.data if self.kind == "redacted_thinking" else ""


class Reader:
    """Turns the events of one stream into the gateway's."""

    def __init__(self, model: str) -> None:
        self.has_begun = False
        """Whether the server has sent anything at all."""
        self._asked = model
        self._model = model
        self._blocks: dict[int, _OpenBlock] = {}
        self._stop_reason: str | None = None
        self._counts: dict[str, int] = {}
        self._ended = False

    def read(self, event: Any) -> Iterator[ModelEvent]:
        """Take one event of the SDK; yield what it brought."""
        self.has_begun = True
        match event.type:
            case "message_start":
                self._model = event.message.model or self._model
                self._count(event.message.usage)
            case "content_block_start":
                self._blocks[event.index] = _OpenBlock(event.content_block)
                first = getattr(event.content_block, "text", "")
                if first:
                    yield TextDelta(first)
            case "content_block_delta":
                yield from self._delta(self._blocks[event.index], event.delta)
            case "message_delta":
                self._stop_reason = event.delta.stop_reason or self._stop_reason
                self._count(event.usage)
            case "message_stop":
                self._ended = True

    def _delta(self, block: _OpenBlock, delta: Any) -> Iterator[ModelEvent]:
        match delta.type:
            case "text_delta":
                yield TextDelta(delta.text)
            case "thinking_delta":
                block.text += delta.thinking
                yield ThinkingDelta(delta.thinking)
            case "signature_delta":
                block.signature += delta.signature
            case "input_json_delta":
                block.text += delta.partial_json

    def _count(self, usage: Any) -> None:
        """Keep the newest of each count: the last event of a stream repeats some of them, and not all."""
        names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        for name in names:
            value = getattr(usage, name, None)
            if value is not None:
                self._counts[name] = value

    def finish(self) -> Completed | None:
        """Return the last event, or None where the stream ended before the answer did."""
        if not self._ended:
            return None
        reason = _STOP_REASONS.get(self._stop_reason or "", "stop")
        return Completed(
            stop_reason=reason,
            tool_calls=tuple(self._calls()) if reason == "tool_calls" else (),
            thinking=tuple(
                Thinking(block.text, block.signature or None)
                for block in self._ordered()
                if block.kind in ("thinking", "redacted_thinking")
            ),
            usage=Usage(
                input_tokens=self._counts.get("input_tokens", 0),
                output_tokens=self._counts.get("output_tokens", 0),
                cache_read_tokens=self._counts.get("cache_read_input_tokens", 0),
                cache_write_tokens=self._counts.get("cache_creation_input_tokens", 0),
            ),
            model=self._model if self._model != self._asked else None,
        )

    def _calls(self) -> Iterator[ToolCall]:
        for block in self._ordered():
            if block.kind == "tool_use":
                yield ToolCall(block.id, block.name, parse_arguments(block.text))

    def _ordered(self) -> Sequence[_OpenBlock]:
        return [self._blocks[index] for index in sorted(self._blocks)]
