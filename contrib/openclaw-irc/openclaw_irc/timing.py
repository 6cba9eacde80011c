"""The channel's waits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """All waits, in seconds."""

    connect: float = 15.0
    """Longest from the first packet to the server's welcome."""
    first_outcome: float = 7.5
    """How long the start waits to learn whether the server can be reached."""
    ping: float = 45.0
    """Between two pings; a server that answers none in this time is taken for dead."""
    retry_first: float = 1.0
    """Before the next connection; doubled each time, until one lasts `stable`."""
    retry_longest: float = 120.0
    stable: float = 60.0
    send_budget: float = 40.0
    """After this a long message leaves its further lines to the next attempt: the gateway waits a minute for a send."""
    pace_wait: float = 5.0
    """How long the rest of such a message waits for its next attempt."""
