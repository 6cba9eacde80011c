"""A place to write to, as clients name it."""

from __future__ import annotations

from typing import Final

from openclaw_kernel.api import PeerKind, Target

_KINDS: Final[dict[str, PeerKind]] = {"direct": "direct", "group": "group", "channel": "channel"}


def target_of(channel: str, to: str, *, account_id: str | None, thread_id: str | float | None) -> Target:
    """Return the place: `to` is an id, or `group:ID`, `channel:ID`, `direct:ID`; a bare id is a person's."""
    prefix, colon, rest = to.partition(":")
    kind = _KINDS.get(prefix) if colon else None
    return Target(
        channel=channel.strip().lower(),
        account_id=account_id or "default",
        peer_kind=kind or "direct",
        peer_id=rest if kind else to,
        thread_id=None if thread_id is None else str(thread_id),
    )
