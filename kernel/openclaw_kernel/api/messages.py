"""What channels bring in and carry out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

AttachmentKind = Literal["image", "audio", "video", "file"]
PeerKind = Literal["direct", "group", "channel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A place on a channel to which a message goes or from which it came."""

    channel: str
    """Channel id, e.g. `telegram`."""
    account_id: str
    """Account of the channel; `default` where the channel has only one."""
    peer_kind: PeerKind
    peer_id: str
    """The platform's immutable id of the person, group or channel."""
    thread_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A file that came with or goes with a message, whole in memory; channels enforce size limits before reading."""

    kind: AttachmentKind
    mime_type: str
    file_name: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundMessage:
    """One message from a platform. (channel, account, message id) is the key by which a repeat is recognised."""

    target: Target
    message_id: str
    """The provider's id, unique within the account (include the chat id where the platform numbers per chat)."""
    sender_id: str
    """The platform's immutable id of the sender; names are for display only."""
    sender_name: str = ""
    text: str = ""
    attachments: tuple[Attachment, ...] = ()
    reply_to_id: str | None = None
    timestamp_ms: int = 0
    mentioned: bool = False
    """True where the message addresses the agent (mention, reply to it, or direct chat)."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further JSON facts a routing or admission policy may want (guild, roles)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundMessage:
    """One message to send. `outbox_id` is stable over attempts: use it where the platform takes an idempotency key."""

    target: Target
    outbox_id: str
    text: str = ""
    """Markdown (CommonMark); the channel renders and splits it for its platform."""
    attachments: tuple[Attachment, ...] = ()
    reply_to_id: str | None = None
    run_id: str | None = None
    """The run whose answer this is; a channel with an open draft for it turns the draft into the answer."""
    silent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What the platform said of a sent message: its ids, first part first."""

    message_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A sign of life of a running turn, for typing indicators and draft streaming; loss is harmless."""

    target: Target
    run_id: str
    phase: Literal["started", "text", "tool", "ended"]
    text: str = ""
    """For `text` the whole answer so far; for `tool` the tool's label."""
