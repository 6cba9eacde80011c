"""What plugins do wrong while they run, told: in the log once, and in their state for a while."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from openclaw_kernel.api.services import PluginState, PluginStatus
from openclaw_kernel.host.guard import PluginFault
from openclaw_kernel.host.lag import LagMeter
from openclaw_kernel.host.state import Standing
from openclaw_kernel.host.timing import Timing
from openclaw_kernel.host.watchdog import Block

logger: Final = logging.getLogger("openclaw_kernel.host.host")
"""The host's own: who follows the log of plugins follows one."""


class Faults:
    """Tells them. `standing_of` finds the state of a plugin that is installed."""

    def __init__(self, standing_of: Callable[[str], Standing | None], timing: Timing, lag: LagMeter) -> None:
        self._standing_of = standing_of
        self._timing = timing
        self._lag = lag
        self._complaints: dict[str, str | None] = {}
        self._shown: dict[tuple[Standing, str], asyncio.TimerHandle] = {}

    def note(self, status: PluginStatus) -> None:
        """Log a change of a plugin's state: what is wrong and was not said yet, for people."""
        is_news = status.state in {PluginState.FAILED, PluginState.DEGRADED} and status.reason != self._complaints.get(status.id)
        self._complaints[status.id] = status.reason
        level = logging.WARNING if is_news else logging.DEBUG
        logger.log(level, "plugin %r is %s%s", status.id, status.state.value, f": {status.reason}" if status.reason else "")

    def report(self, fault: PluginFault) -> None:
        """Tell of a call that failed."""
        logger.warning("%s", fault, exc_info=fault.error)
        self._show_for_a_while(fault.plugin_id, fault.what, fault.reason)

    def blocked(self, block: Block) -> None:
        """Tell who kept the event loop from running."""
        self._lag.block(block.plugin_id, block.place, block.seconds)
        if block.plugin_id is not None:
            cure = f"use asyncio.to_thread there, or set plugins.entries.{block.plugin_id}.isolation: process"
            reason = f"blocked the event loop for {block.seconds:.1f} s at {block.place}; {cure}"
            self._show_for_a_while(block.plugin_id, "loop", reason)

    def _show_for_a_while(self, plugin_id: str, source: str, reason: str) -> None:
        standing = self._standing_of(plugin_id)
        if standing is None:
            return
        standing.fault(source, reason)
        key = standing, source
        if (earlier := self._shown.pop(key, None)) is not None:
            # One that fails again and again has one end of it, a while after the last.
            earlier.cancel()
        self._shown[key] = asyncio.get_running_loop().call_later(self._timing.fault_shown, self._over, key)

    def _over(self, key: tuple[Standing, str]) -> None:
        del self._shown[key]
        standing, source = key
        standing.fault(source, None)
