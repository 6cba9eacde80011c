"""What the program says, line by line, as the gateway's events; pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from openclaw_kernel.api import (
    Completed,
    ModelEvent,
    ProviderErrorKind,
    TextDelta,
    ThinkingDelta,
    ToolStep,
    Usage,
)
from openclaw_kernel.api.remote import kind_of_status

_STOP_REASONS: Final[dict[str, Literal["stop", "length", "refusal"]]] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
}
#: What the program says where no status came, in the order in which it is judged.
_BY_WORDS: Final[tuple[tuple[re.Pattern[str], ProviderErrorKind], ...]] = tuple(
    (re.compile(pattern, re.IGNORECASE), kind)
    for pattern, kind in (
        (r"not logged in|/login|invalid api key|oauth token|credit balance", ProviderErrorKind.AUTH),
        (r"prompt is too long|prompt_too_long|context (?:limit|window)", ProviderErrorKind.CONTEXT_LENGTH),
        (r"usage limit|rate.?limit|limit reached", ProviderErrorKind.RATE_LIMIT),
        (r"overloaded", ProviderErrorKind.OVERLOADED),
        (r"timed out|timeout", ProviderErrorKind.TIMEOUT),
        (r"connection|ECONN|ENOTFOUND|EAI_AGAIN|socket|network", ProviderErrorKind.NETWORK),
        (r"selected model", ProviderErrorKind.NOT_FOUND),
    )
)
_UNKNOWN_CONVERSATION: Final = "No conversation found with session ID"


class Failure(Exception):
    """The program said that the turn failed."""

    def __init__(self, kind: ProviderErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class UnknownConversation(Exception):
    """The program has no conversation of the id it should resume."""


def parse(line: bytes) -> dict[str, Any] | None:
    """Read one line; None for what is no JSON object."""
    try:
        read = json.loads(line)
    except ValueError:
        return None
    return read if isinstance(read, dict) else None


class Reader:
    """Turns the lines of one turn into events; `completed` is set by the line that ends it."""

    def __init__(self, model: str) -> None:
        self._asked = model
        self._model = model
        self._streamed: set[str] = set()
        self._message = ""
        self._spoken = False
        self._said = False
        self._tools: dict[str, str] = {}
        self.completed: Completed | None = None

    def read(self, line: Mapping[str, Any]) -> Iterator[ModelEvent]:
        """Take one line. Raise `Failure` where it says that the turn failed, `UnknownConversation` for its resume."""
        # What a sub-agent says is part of the tool step that started it.
        if line.get("parent_tool_use_id") is not None:
            return
        match line.get("type"):
            case "stream_event":
                yield from self._stream_event(line["event"])
            case "assistant":
                yield from self._assistant(line)
            case "user":
                yield from self._results(line["message"].get("content"))
            case "result":
                self._result(line)

    def _stream_event(self, event: Mapping[str, Any]) -> Iterator[ModelEvent]:
        match event.get("type"):
            case "message_start":
                self._message = event["message"].get("id", "")
                self._spoken = False
            case "content_block_delta":
                delta = event["delta"]
                if delta.get("type") == "text_delta" and delta["text"]:
                    self._streamed.add(self._message)
                    yield self._text(delta["text"])
                elif delta.get("type") == "thinking_delta" and delta["thinking"]:
                    yield ThinkingDelta(delta["thinking"])

    def _text(self, text: str) -> TextDelta:
        """Part the text of one message from that of the one before a tool ran."""
        apart = self._said and not self._spoken
        self._said = self._spoken = True
        return TextDelta(f"\n\n{text}" if apart else text)

    def _assistant(self, line: Mapping[str, Any]) -> Iterator[ModelEvent]:
        message = line["message"]
        # An error comes first as a message of nobody's, then in the result, where it is read.
        if line.get("is_api_error_message") or message.get("model") == "<synthetic>":
            return
        self._model = message.get("model") or self._model
        for block in message.get("content") or []:
            if block.get("type") == "tool_use":
                self._tools[block["id"]] = block["name"]
                yield ToolStep(block["id"], block["name"], "start", arguments=block.get("input") or {})
            elif block.get("type") == "text" and block["text"] and message.get("id", "") not in self._streamed:
                self._spoken = False
                yield self._text(block["text"])

    def _results(self, content: Any) -> Iterator[ModelEvent]:
        for block in content if isinstance(content, list) else []:
            if block.get("type") == "tool_result":
                identity = block["tool_use_id"]
                name = self._tools.get(identity, "tool")
                text = _result_text(block.get("content"))
                yield ToolStep(identity, name, "result", result=text, is_error=bool(block.get("is_error")))

    def _result(self, line: Mapping[str, Any]) -> None:
        told = line.get("result") or "; ".join(str(error) for error in line.get("errors") or [])
        if line.get("is_error"):
            if _UNKNOWN_CONVERSATION in told:
                raise UnknownConversation
            raise failure_of(line.get("api_error_status"), f"{line.get('terminal_reason', '')} {told}".strip())
        self.completed = Completed(
            stop_reason=_STOP_REASONS.get(line.get("stop_reason") or "", "stop"),
            usage=_usage(line),
            model=self._model if self._model != self._asked else None,
        )


def failure_of(status: object, told: str) -> Failure:
    """Judge a failure by the API's status where there is one, else by the program's words."""
    by_words = next((kind for pattern, kind in _BY_WORDS if pattern.search(told)), None)
    message = told or "said no more than that it failed"
    if not isinstance(status, int):
        return Failure(by_words or ProviderErrorKind.UNAVAILABLE, message)
    if (kind := kind_of_status(status)) is not None:
        return Failure(kind, message)
    is_length = by_words is ProviderErrorKind.CONTEXT_LENGTH
    return Failure(ProviderErrorKind.CONTEXT_LENGTH if is_length else ProviderErrorKind.BAD_REQUEST, message)


def _result_text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(block.get("text", "") for block in content if isinstance(block, dict))
    return content if isinstance(content, str) else ""


def _usage(line: Mapping[str, Any]) -> Usage:
    usage = line.get("usage") or {}
    return Usage(
        input_tokens=usage.get("input_tokens") or 0,
        output_tokens=usage.get("output_tokens") or 0,
        cache_read_tokens=usage.get("cache_read_input_tokens") or 0,
        cache_write_tokens=usage.get("cache_creation_input_tokens") or 0,
        cost_usd=_cost(line),
    )


def _cost(line: Mapping[str, Any]) -> float | None:
    """Return the cost of this turn: the total of a resumed conversation counts the turns before it too."""
    models = line.get("model_usage_since_last_result")
    if isinstance(models, dict):
        return float(sum(model.get("costUSD") or 0 for model in models.values()))
    total = line.get("total_cost_usd")
    return float(total) if isinstance(total, int | float) else None
