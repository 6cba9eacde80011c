"""The messages of a conversation as the model and the transcript see them.

The JSON form (`to_json`, `message_from_json`) is what the store keeps and what `chat.history` returns: roles `user`,
`assistant` and `toolResult`; content parts `text`, `thinking`, `toolCall`, `image`, `file`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeAlias


@dataclass(frozen=True, slots=True)
class Text:
    """What is said."""

    text: str

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        return {"type": "text", "text": self.text}


@dataclass(frozen=True, slots=True)
class Thinking:
    """The model's reasoning; `signature` is the provider's opaque proof that lets it be sent back."""

    text: str
    signature: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        return {
            "type": "thinking",
            "thinking": self.text,
            **({"thinkingSignature": self.signature} if self.signature else {}),
        }


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model asks for; `arguments` is a JSON object."""

    id: str
    name: str
    arguments: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        return {"type": "toolCall", "id": self.id, "name": self.name, "arguments": self.arguments}


@dataclass(frozen=True, slots=True)
class Image:
    """A picture, base64."""

    mime_type: str
    data: str
    file_name: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        return {"type": "image", "mimeType": self.mime_type, "data": self.data, "fileName": self.file_name}


@dataclass(frozen=True, slots=True)
class File:
    """A file that is not a picture: its name and, where it is text, what it says."""

    mime_type: str
    file_name: str
    text: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        return {
            "type": "file",
            "mimeType": self.mime_type,
            "fileName": self.file_name,
            **({"text": self.text} if self.text is not None else {}),
        }


UserPart: TypeAlias = Text | Image | File
AssistantPart: TypeAlias = Text | Thinking | ToolCall


@dataclass(frozen=True, slots=True, kw_only=True)
class UserMessage:
    """What a person said. `timestamp_ms` is Unix milliseconds."""

    content: tuple[UserPart, ...]
    timestamp_ms: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    """Further JSON facts (sender, channel); kept in the transcript, not sent to the model."""
    role: Literal["user"] = "user"

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        return {
            **self.extra,
            "role": self.role,
            "content": [part.to_json() for part in self.content],
            "timestamp": self.timestamp_ms,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantMessage:
    """What the model said, with the calls it asked for."""

    content: tuple[AssistantPart, ...]
    timestamp_ms: int = 0
    provider: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    usage: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    role: Literal["assistant"] = "assistant"

    @property
    def text(self) -> str:
        """All visible text."""
        return "".join(part.text for part in self.content if isinstance(part, Text))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls the model asked for."""
        return tuple(part for part in self.content if isinstance(part, ToolCall))

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        wire: dict[str, Any] = {
            **self.extra,
            "role": self.role,
            "content": [part.to_json() for part in self.content],
            "timestamp": self.timestamp_ms,
        }
        named = {"provider": self.provider, "model": self.model, "stopReason": self.stop_reason, "usage": self.usage}
        wire.update({key: value for key, value in named.items() if value is not None})
        return wire


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResultMessage:
    """What a call returned; `call_id` is the call's."""

    call_id: str
    name: str
    text: str
    is_error: bool = False
    timestamp_ms: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    role: Literal["toolResult"] = "toolResult"

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        return {
            **self.extra,
            "role": self.role,
            "toolCallId": self.call_id,
            "toolName": self.name,
            "content": [{"type": "text", "text": self.text}],
            "isError": self.is_error,
            "timestamp": self.timestamp_ms,
        }


Message: TypeAlias = UserMessage | AssistantMessage | ToolResultMessage


class PairedMessages(tuple[Message, ...]):
    """Messages in which every tool call has exactly one result, among those right behind it, and every result its call.

    There is no other way to one than through this check: `ValueError` names the first message that breaks it.
    """

    __slots__ = ()

    def __new__(cls, messages: Iterable[Message] = ()) -> Self:
        made = super().__new__(cls, messages)
        waiting: set[str] = set()
        for position, message in enumerate(made):
            if isinstance(message, ToolResultMessage):
                if message.call_id not in waiting:
                    raise ValueError(f"message {position}: the result of {message.call_id!r} has no call before it that waits for one")
                waiting.discard(message.call_id)
                continue
            if waiting:
                raise ValueError(f"message {position}: the call {min(waiting)!r} before it has no result")
            if isinstance(message, AssistantMessage):
                calls = [call.id for call in message.tool_calls]
                waiting = set(calls)
                if len(waiting) != len(calls):
                    raise ValueError(f"message {position}: two of its calls have one id")
        if waiting:
            raise ValueError(f"message {len(made) - 1}: the call {min(waiting)!r} has no result")
        return made


def message_from_json(wire: dict[str, Any]) -> Message:
    """Read back what `to_json` wrote; raise `ValueError` for a role or part that is unknown."""
    extra = {key: value for key, value in wire.items() if key not in _KNOWN}
    parts = [_part_from_json(part) for part in wire["content"]]
    role = wire["role"]
    timestamp = int(wire.get("timestamp", 0))
    if role == "user":
        return UserMessage(content=tuple(p for p in parts if isinstance(p, Text | Image | File)), timestamp_ms=timestamp, extra=extra)
    if role == "assistant":
        return AssistantMessage(
            content=tuple(p for p in parts if isinstance(p, Text | Thinking | ToolCall)),
            timestamp_ms=timestamp,
            provider=wire.get("provider"),
            model=wire.get("model"),
            stop_reason=wire.get("stopReason"),
            usage=wire.get("usage"),
            extra=extra,
        )
    if role == "toolResult":
        text = "".join(p.text for p in parts if isinstance(p, Text))
        return ToolResultMessage(
            call_id=wire["toolCallId"],
            name=wire["toolName"],
            text=text,
            is_error=bool(wire.get("isError")),
            timestamp_ms=timestamp,
            extra=extra,
        )
    message = f"transcript message has the unknown role {role!r}"
    raise ValueError(message)


_KNOWN = frozenset({"role", "content", "timestamp", "provider", "model", "stopReason", "usage", "toolCallId", "toolName", "isError"})


def _part_from_json(wire: dict[str, Any]) -> UserPart | AssistantPart:
    match wire["type"]:
        case "text":
            return Text(wire["text"])
        case "thinking":
            return Thinking(wire["thinking"], wire.get("thinkingSignature"))
        case "toolCall":
            return ToolCall(wire["id"], wire["name"], wire["arguments"])
        case "image":
            return Image(wire["mimeType"], wire["data"], wire.get("fileName", ""))
        case "file":
            return File(wire["mimeType"], wire["fileName"], wire.get("text"))
        case unknown:
            message = f"transcript part has the unknown type {unknown!r}"
            raise ValueError(message)
