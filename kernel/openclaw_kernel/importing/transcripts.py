"""From the reference's transcript events to our messages: the branch that is in force, each message in our form. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from openclaw_kernel.api.transcript import message_from_json

_MOST_EVENTS: Final = 500_000
_LATEST_MS: Final = 1 << 53
"""Later than that no clock tells; JSON can also say infinity."""


def messages_of(events: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Return the messages of the branch that is in force, oldest first, and how many entries of it are none of ours."""
    kept: dict[str, Mapping[str, Any]] = {}
    order: list[Mapping[str, Any]] = []
    last: str | None = None
    for number, event in enumerate(events):
        if number >= _MOST_EVENTS:
            break
        if event.get("type") == "session":
            continue
        order.append(event)
        name = event.get("id")
        if isinstance(name, str):
            kept[name] = event
            last = name
    path = _branch(kept, last) if last is not None and all("parentId" in event for event in order) else order
    found, left = [], 0
    for event in path:
        message = _message(event)
        if message is not None:
            found.append(message)
        elif event.get("type") in {"message", "custom_message", "compaction", "branch_summary"}:
            left += 1
    return found, left


def _branch(events: Mapping[str, Mapping[str, Any]], leaf: str | None) -> list[Mapping[str, Any]]:
    """From the newest entry back to the root: what was rewound lies on other branches."""
    path: list[Mapping[str, Any]] = []
    seen: set[str] = set()
    while leaf is not None and leaf in events and leaf not in seen:
        seen.add(leaf)
        path.append(events[leaf])
        parent = events[leaf].get("parentId")
        leaf = parent if isinstance(parent, str) else None
    return path[::-1]


def _message(event: Mapping[str, Any]) -> dict[str, Any] | None:
    wire = event.get("message")
    if event.get("type") != "message" or not isinstance(wire, Mapping):
        return None
    role = wire.get("role")
    ours: dict[str, Any] = {"role": role, "content": list(_parts(wire.get("content"))), "timestamp": time_ms(event, wire)}
    if role == "assistant":
        ours |= {key: wire[key] for key in ("provider", "model", "stopReason") if isinstance(wire.get(key), str)}
    elif role == "toolResult":
        ours |= {
            "toolCallId": str(wire.get("toolCallId", "")),
            "toolName": str(wire.get("toolName", "")),
            "isError": bool(wire.get("isError")),
        }
    elif role != "user":
        return None
    try:
        return message_from_json(ours).to_json()
    except (ValueError, KeyError, TypeError):
        return None


def _parts(content: Any) -> Iterator[dict[str, Any]]:
    if isinstance(content, str):
        yield {"type": "text", "text": content}
        return
    for part in content if isinstance(content, list) else []:
        if not isinstance(part, Mapping):
            continue
        match part.get("type"):
            case "text" if isinstance(part.get("text"), str):
                yield {"type": "text", "text": part["text"]}
            case "thinking" if isinstance(part.get("thinking"), str):
                # The provider's proof is bound to the account of then.
                yield {"type": "thinking", "thinking": part["thinking"]}
            case "toolCall" if isinstance(part.get("id"), str) and isinstance(part.get("arguments"), Mapping):
                yield {"type": "toolCall", "id": part["id"], "name": str(part.get("name", "")), "arguments": dict(part["arguments"])}
            case "image" if isinstance(part.get("data"), str) and isinstance(part.get("mimeType"), str):
                yield {"type": "image", "mimeType": part["mimeType"], "data": part["data"], "fileName": ""}


def time_ms(*sources: Mapping[str, Any]) -> int:
    """The time of an entry: milliseconds, or ISO 8601; 0 where none is told."""
    for source in reversed(sources):
        value = source.get("timestamp")
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LATEST_MS:
            return int(value)
        if isinstance(value, str):
            try:
                return int(datetime.fromisoformat(value).timestamp() * 1000)
            except ValueError:
                continue
    return 0
