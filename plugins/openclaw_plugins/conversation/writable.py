"""What others hand over, made fit to be written: text that is Unicode, JSON that an encoder takes.

Platforms, models and tools send halves of surrogate pairs, numbers of any size and nesting of any depth. One of them must
not make a message impossible to store, to show or to send on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from openclaw_kernel.api import Attachment, InboundMessage, Target

DEEPEST: Final = 100
_LARGEST: Final = (1 << 63) - 1


def text(raw: str) -> str:
    """Return the text with surrogate pairs joined and lone halves replaced."""
    try:
        raw.encode()
    except UnicodeEncodeError:
        return raw.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return raw


def value(raw: Any, depth: int = 0) -> Any:
    """Return the value as JSON can hold it: what it cannot becomes its text."""
    match raw:
        case str():
            return text(raw)
        case None | bool():
            return raw
        case int():
            return raw if abs(raw) <= _LARGEST else _large(raw)
        case float():
            return raw if math.isfinite(raw) else None
        case Mapping() if depth < DEEPEST:
            return {text(str(key)): value(item, depth + 1) for key, item in raw.items()}
        case list() | tuple() if depth < DEEPEST:
            return [value(item, depth + 1) for item in raw]
    return text(str(type(raw).__name__ if depth >= DEEPEST else raw))


def _large(number: int) -> float | str:
    try:
        return float(number)
    except OverflowError:
        return "a number too large to be written"


def encoded(wire: Mapping[str, Any]) -> bytes:
    """Return the JSON of an object, cleaned only where the encoder does not take it as it is."""
    try:
        return orjson.dumps(wire)
    except TypeError:
        return orjson.dumps(value(wire))


def message(raw: InboundMessage) -> InboundMessage:
    """Return what a platform sent with every text cleaned."""
    place = raw.target
    return replace(
        raw,
        target=Target(
            channel=text(place.channel),
            account_id=text(place.account_id),
            peer_kind=place.peer_kind,
            peer_id=text(place.peer_id),
            thread_id=None if place.thread_id is None else text(place.thread_id),
        ),
        message_id=text(raw.message_id),
        sender_id=text(raw.sender_id),
        sender_name=text(raw.sender_name),
        text=text(raw.text),
        attachments=tuple(_attachment(item) for item in raw.attachments),
        reply_to_id=None if raw.reply_to_id is None else text(raw.reply_to_id),
        extra=value(raw.extra),
    )


def _attachment(item: Attachment) -> Attachment:
    return replace(item, mime_type=text(item.mime_type), file_name=text(item.file_name))
