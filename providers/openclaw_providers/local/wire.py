"""Between the gateway's messages and the worker's lines; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from openclaw_kernel.api import (
    AssistantMessage,
    Completed,
    File,
    Image,
    Message,
    ModelRequest,
    ProviderErrorKind,
    Text,
    ToolResultMessage,
    Usage,
    UserMessage,
)
from openclaw_providers.local.settings import LocalSettings

ChatMessage: TypeAlias = dict[str, str]

# With these turns before the conversation the bundled model answers questions in English and knows what it is; with the
# sentence alone it begins one answer in four in another language.
PRIMER: Final[tuple[tuple[str, str], ...]] = (
    ("Hello!", "Hello! How can I help you today?"),
    ("Who are you?", "I am a small AI assistant that runs on this computer."),
    ("Why is the sky blue?", "The sky is blue because of Rayleigh scattering of sunlight."),
    ("Thanks", "You're welcome!"),
)

_CONTROL_TOKEN: Final = re.compile(r"<\|(\w+)\|>")
_TOOL_RESULT_CHARACTERS: Final = 2000
_KINDS: Final[dict[str, ProviderErrorKind]] = {
    "context_too_long": ProviderErrorKind.CONTEXT_LENGTH,
    "bad_request": ProviderErrorKind.BAD_REQUEST,
    "busy": ProviderErrorKind.OVERLOADED,
    "model_missing": ProviderErrorKind.NOT_FOUND,
    "model_unreadable": ProviderErrorKind.NOT_FOUND,
}


def head(settings: LocalSettings, system: str) -> list[ChatMessage]:
    """Return what stands before the conversation; the same for every compact request, so that it is computed once."""
    if settings.system_prompt == "full":
        return [{"role": "system", "content": _plain(system)}] if system.strip() else []
    messages = [{"role": "system", "content": settings.compact_prompt}]
    for question, answer in PRIMER:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages


def conversation(settings: LocalSettings, messages: Sequence[Message]) -> list[ChatMessage]:
    """Return the conversation as text, roles alternating and beginning with the user."""
    merged: list[ChatMessage] = []
    for message in messages:
        text = _plain(_text_of(message))
        role = "assistant" if isinstance(message, AssistantMessage) else "user"
        if not text:
            continue
        if merged and merged[-1]["role"] == role:
            merged[-1]["content"] += "\n\n" + text
        elif merged or role == "user":
            merged.append({"role": role, "content": text})
    if settings.system_prompt == "compact":
        return _last_turns(merged, settings.history_turns)
    return merged


def shorten(messages: Sequence[ChatMessage], *, prompt_tokens: int, context_tokens: int) -> list[ChatMessage] | None:
    """Drop the oldest turns of a conversation that was too long, by the sizes the engine told.

    At least one turn goes, the last question stays; None where nothing is left to drop.
    """
    starts = [index for index, message in enumerate(messages) if message["role"] == "user"][1:]
    if not starts:
        return None
    total = sum(len(message["content"]) for message in messages)
    wanted = total - total * context_tokens * 4 // (max(prompt_tokens, 1) * 5)
    dropped = 0
    for previous, start in zip([0, *starts], starts, strict=False):
        dropped += sum(len(message["content"]) for message in messages[previous:start])
        if dropped >= wanted:
            return list(messages[start:])
    return list(messages[starts[-1] :])


def generate_line(identity: str, settings: LocalSettings, messages: Sequence[ChatMessage], *, max_tokens: int) -> dict[str, Any]:
    """Return the worker's `generate` request."""
    return {
        "op": "generate",
        "id": identity,
        "messages": list(messages),
        "maxTokens": max_tokens,
        "temperature": settings.temperature,
        "topP": settings.top_p,
        "repeatPenalty": settings.repeat_penalty,
        "seed": settings.seed,
        "stop": settings.stop,
    }


def answer_tokens(settings: LocalSettings, request: ModelRequest) -> int:
    """Return the ceiling of the answer."""
    return request.max_output_tokens or settings.max_output_tokens


def completed(event: Mapping[str, Any]) -> Completed:
    """Translate the worker's `done`."""
    stop: Literal["stop", "length"] = "length" if event["stop"] == "length" else "stop"
    usage = Usage(
        input_tokens=event["inputTokens"],
        output_tokens=event["outputTokens"],
        cache_read_tokens=event["cachedTokens"],
        cost_usd=0.0,
    )
    return Completed(stop_reason=stop, usage=usage)


def error_kind(code: str) -> ProviderErrorKind:
    """Translate a code of the worker's `error` or `failed`."""
    return _KINDS.get(code, ProviderErrorKind.UNAVAILABLE)


def _last_turns(messages: list[ChatMessage], turns: int) -> list[ChatMessage]:
    """Keep at most `turns` questions. The cut moves in steps, so that most prompts begin as the one before did."""
    starts = [index for index, message in enumerate(messages) if message["role"] == "user"]
    surplus = len(starts) - turns
    if surplus <= 0:
        return messages
    step = max(turns // 2, 1)
    return messages[starts[min(-(-surplus // step) * step, len(starts) - 1)] :]


def _plain(text: str) -> str:
    """Take the meaning from control tokens in what people and documents say: they would end the turn they stand in."""
    return _CONTROL_TOKEN.sub(r"< |\1| >", text).strip()


def _text_of(message: Message) -> str:
    match message:
        case UserMessage():
            return "\n".join(_text_of_part(part) for part in message.content)
        case AssistantMessage():
            return message.text
        case ToolResultMessage():
            return f"Result of {message.name}: {message.text[:_TOOL_RESULT_CHARACTERS]}"


def _text_of_part(part: Text | Image | File) -> str:
    match part:
        case Text():
            return part.text
        case Image():
            return f"[picture {part.file_name}]".replace(" ]", "]")
        case File():
            return f"[file {part.file_name}]\n{part.text or ''}".strip()
