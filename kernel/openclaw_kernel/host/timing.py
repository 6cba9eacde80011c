"""How long the host waits for what; all in seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Timing:
    call: float = 10.0
    """Longest an import, constructor, hook, start or stop may take: `plugins.callTimeoutSeconds`."""
    ready_wait: float = 2.0
    """Longest `PluginHost.start` waits for the first attempts."""
    order_wait: float = 1.0
    """Longest a provider or channel waits for plugins that its manifest does not name in `after`."""
    backoff_first: float = 1.0
    backoff_ceiling: float = 60.0
    retire: float = 600.0
    """Longest an instance that was replaced is kept for what is still under way on it."""
    attempts: int = 5
    """How often a start that raised something else than `NotReady` is repeated."""
    send: float = 60.0
    """Longest a channel may take to send one message."""
    progress: float = 10.0
    command: float = 60.0
    loop_noticed: float = 0.5
    """Time without a tick of the event loop from which it counts as blocked."""
    fault_shown: float = 60.0
    """How long a plugin stays degraded after it blocked the loop."""
