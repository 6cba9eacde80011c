"""Signs of life of running turns on their way to the channels: newest only, one worker a channel."""

from __future__ import annotations

import logging
from typing import Final

from openclaw_kernel.api.channel import Channel
from openclaw_kernel.api.messages import Progress
from openclaw_kernel.host.guard import Guard, PluginFault, describe
from openclaw_kernel.host.registry import Owned
from openclaw_kernel.tasks import TaskOwner

logger: Final = logging.getLogger(__name__)

_RUNS_LIMIT: Final = 256


class ProgressRelay:
    """Keeps the newest progress of each run while a channel is busy, at most 256 runs a channel; older ones are dropped."""

    def __init__(self, guard: Guard, deadline: float) -> None:
        self._guard = guard
        self._deadline = deadline
        self._waiting: dict[str, dict[str, Progress]] = {}
        self._busy: set[str] = set()
        self._tasks = TaskOwner("progress", self._failed)
        self._closed = False

    def offer(self, owned: Owned[Channel], progress: Progress) -> None:
        """Take it; it is shown as soon as the channel has shown the one before."""
        if self._closed:
            return
        channel = progress.target.channel
        waiting = self._waiting.setdefault(channel, {})
        waiting[progress.run_id] = progress
        if len(waiting) > _RUNS_LIMIT:
            del waiting[next(iter(waiting))]
        if channel not in self._busy:
            self._busy.add(channel)
            self._tasks.spawn(channel, self._show_all(channel, owned))

    async def close(self, timeout: float) -> None:
        """End the workers; what waits is dropped."""
        self._closed = True
        await self._tasks.close(timeout)

    async def _show_all(self, channel: str, owned: Owned[Channel]) -> None:
        waiting = self._waiting[channel]
        try:
            while waiting:
                progress = waiting.pop(next(iter(waiting)))
                await self._show(channel, owned, progress)
        finally:
            self._busy.discard(channel)

    async def _show(self, channel: str, owned: Owned[Channel], progress: Progress) -> None:
        what = f"progress on channel {channel}"
        try:
            await self._guard.run(owned.plugin_id, what, lambda: owned.item.show_progress(progress), self._deadline)
        except PluginFault as fault:
            logger.warning("%s", fault)

    def _failed(self, name: str, error: BaseException) -> None:
        logger.error("%s: %s", name, describe(error))
