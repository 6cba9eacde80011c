"""Sizes and clocks of the wire. Sizes are bytes, times seconds unless the name says otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PROTOCOL_VERSION: Final = 4
PROBE_PROTOCOL_VERSION: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The protocol's numbers; tests shrink them, nobody else does."""

    payload_before_hello: int = 65_536
    max_payload: int = 26_214_400
    max_buffered: int = 52_428_800
    max_buffered_events: int = 6_291_456
    """What may wait of events alone, so that a client that does not read costs little."""
    unread_answers: int = 4_194_304
    """When more than this waits for a client, no more of its requests are read until it has taken most of it."""
    attachment_bytes: int = 20_971_520
    attachment_image_bytes: int = 6_291_456
    tick_interval_ms: int = 30_000
    handshake_seconds: float = 15.0
    ping_seconds: float = 25.0
    pong_seconds: float = 25.0
    close_seconds: float = 1.0
    unauthenticated_per_address: int = 32
    queued_requests: int = 256
    queued_request_bytes: int = 52_428_800
    wrong_role_calls: int = 10
    topics_per_client: int = 1_000
    health_seconds: float = 60.0
    dedupe_entries: int = 100_000
    """Requests whose answer is kept for a repeat; the oldest go first, never one that is still running."""
    dedupe_seconds: float = 604_800.0
    dedupe_sweep_seconds: float = 60.0
    control_plane_calls: int = 30
    control_plane_seconds: float = 60.0
    close_reason_bytes: int = 120
