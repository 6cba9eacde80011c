"""What an echo provider does with a message: the directives a text may carry, read without I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from openclaw_kernel.api import Message, ProviderErrorKind, Text, ToolResultMessage, UserMessage
from openclaw_providers.echo.settings import EchoSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do in one call. `delay_ms` is waited before each word."""

    text: str = ""
    thinking: str = ""
    delay_ms: int = 0
    fail: ProviderErrorKind | None = None
    fail_after_words: int = 0
    retry_after: float | None = None
    hang: bool = False
    tool: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)


def plan(messages: Sequence[Message], settings: EchoSettings) -> Plan:
    """Decide by the last message.

    Lines that begin with `!` are directives, the rest is the answer: `!slow MS`, `!fail KIND [WORDS]`, `!hang`,
    `!think TEXT`, `!tool NAME {JSON}`. A tool's result is answered with `NAME: RESULT` and leads to no further call.
    """
    last = messages[-1] if messages else UserMessage(content=())
    made = Plan(delay_ms=settings.delay_ms, fail=settings.fail, retry_after=settings.retry_after)
    if isinstance(last, ToolResultMessage):
        return replace(made, text=f"{last.name}: {last.text}")
    said: list[str] = []
    for line in text_of(last).split("\n"):
        changed = _directed(made, line)
        if changed is None:
            said.append(line)
        else:
            made = changed
    if settings.tool is not None and made.tool is None:
        made = replace(made, tool=settings.tool.name, arguments=settings.tool.arguments)
    answer = settings.reply if settings.reply is not None else "\n".join(said).strip()
    return replace(made, text=answer)


def text_of(message: Message) -> str:
    """Return the visible text of a message."""
    if isinstance(message, ToolResultMessage):
        return message.text
    return "\n".join(part.text for part in message.content if isinstance(part, Text))


def pieces(text: str) -> list[str]:
    """Cut a text into words, spaces kept, so that joining them gives the text again."""
    words = text.split(" ")
    return [word if index == 0 else f" {word}" for index, word in enumerate(words) if word or index]


def count_words(messages: Sequence[Message]) -> int:
    """Return the number of words: what this model has for tokens."""
    return sum(len(text_of(message).split()) for message in messages)


def _directed(made: Plan, line: str) -> Plan | None:
    word, _, rest = line.partition(" ")
    match word:
        case "!slow" if rest.isdecimal():
            return replace(made, delay_ms=int(rest))
        case "!fail":
            return _failing(made, rest.split())
        case "!hang":
            return replace(made, hang=True)
        case "!think":
            return replace(made, thinking=rest)
        case "!tool" if rest:
            name, _, arguments = rest.partition(" ")
            return replace(made, tool=name, arguments=_arguments(arguments))
    return None


def _failing(made: Plan, words: list[str]) -> Plan | None:
    if not words or words[0] not in [kind.value for kind in ProviderErrorKind]:
        return None
    after = int(words[1]) if len(words) > 1 and words[1].isdecimal() else 0
    return replace(made, fail=ProviderErrorKind(words[0]), fail_after_words=after)


def _arguments(text: str) -> dict[str, Any]:
    try:
        read = json.loads(text or "{}")
    except ValueError:
        return {"input": text}
    return read if isinstance(read, dict) else {"input": text}
