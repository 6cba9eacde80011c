"""From a client's params to a request: attachments, thinking levels, places; pure."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Sequence
from typing import Final, cast

from openclaw_kernel.api import Attachment, AttachmentKind, InvalidRequest, PeerKind, Target, ThinkingLevel
from openclaw_plugins.conversation.ledger import DEFAULT_ACCOUNT, picture_type
from openclaw_plugins.conversation.wire import AttachmentParams

MOST_FILES: Final = 100
MOST_BYTES: Final = 20 << 20
MOST_IMAGE_BYTES: Final = 6 << 20
_DATA_URL: Final = re.compile(r"data:(?P<mime>[\w.+-]+/[\w.+-]+)?(?:;[\w=.+-]+)*;base64,")
_LEVELS: Final[dict[str, ThinkingLevel]] = {
    "off": "off",
    "none": "off",
    "minimal": "minimal",
    "low": "low",
    "on": "low",
    "medium": "medium",
    "adaptive": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
    "ultra": "high",
}
_PEER_KINDS: Final[dict[str, PeerKind]] = {
    "direct": "direct",
    "dm": "direct",
    "user": "direct",
    "group": "group",
    "channel": "channel",
}


def thinking_level(raw: str | None) -> ThinkingLevel | None:
    """Return the level that a word of the protocol stands for; raise `InvalidRequest` for another word."""
    word = (raw or "").strip().lower()
    if not word:
        return None
    level = _LEVELS.get(word)
    if level is None:
        raise InvalidRequest(f"thinking: there is no level {raw!r}; use one of off, minimal, low, medium, high")
    return level


def attachments_of(items: Sequence[AttachmentParams]) -> tuple[Attachment, ...]:
    """Decode the files of a request; raise `InvalidRequest` for one that is not base64 or over a limit."""
    if len(items) > MOST_FILES:
        raise InvalidRequest(f"attachments: {len(items)} files; send at most {MOST_FILES} with a message")
    found = tuple(_attachment(index, item) for index, item in enumerate(items))
    total = sum(len(item.content) for item in found)
    if total > MOST_BYTES:
        raise InvalidRequest(f"attachments: {total} bytes in all; send at most {MOST_BYTES}")
    return found


def decode_base64(key: str, text: str) -> bytes:
    """Return the bytes; raise `InvalidRequest` naming the key."""
    try:
        return b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{key}: is no base64; encode the file's bytes") from None


def target_of(*, channel: str, to: str, account_id: str | None, thread_id: str | None, peer_kind: PeerKind | None = None) -> Target:
    """Return the place that `to` names: an id, with its kind (`group:-100`) or channel (`telegram:42`) before it or not."""
    rest = to.strip()
    prefix, colon, tail = rest.partition(":")
    if colon and prefix.lower() == channel:
        rest = tail
        prefix, colon, tail = rest.partition(":")
    named = _PEER_KINDS.get(prefix.lower()) if colon else None
    if named is not None:
        rest = tail
    if not rest:
        raise InvalidRequest(f"to: {to!r} names nobody; give the id of a person, group or channel")
    return Target(
        channel=channel,
        account_id=account_id or DEFAULT_ACCOUNT,
        peer_kind=named or peer_kind or "direct",
        peer_id=rest,
        thread_id=thread_id or None,
    )


def _attachment(index: int, item: AttachmentParams) -> Attachment:
    key = f"attachments.{index}.content"
    content, mime = item.content, item.mime_type or ""
    if not isinstance(content, str) or not content:
        raise InvalidRequest(f"{key}: must be the file as base64, found {type(content).__name__}")
    url = _DATA_URL.match(content)
    if url is not None:
        content = content[url.end() :]
        mime = mime or url["mime"] or ""
    data = decode_base64(key, content)
    kind = _kind(item.type, mime)
    if kind == "image" and len(data) > MOST_IMAGE_BYTES:
        raise InvalidRequest(f"{key}: the image has {len(data)} bytes; send at most {MOST_IMAGE_BYTES}")
    return Attachment(
        kind=kind,
        mime_type=mime or picture_type(data) or "application/octet-stream",
        file_name=item.file_name or f"attachment-{index + 1}",
        content=data,
    )


def _kind(named: str | None, mime: str) -> AttachmentKind:
    family = mime.partition("/")[0]
    for word in (family, (named or "").lower()):
        if word in ("image", "audio", "video"):
            return cast("AttachmentKind", word)
    return "file"
