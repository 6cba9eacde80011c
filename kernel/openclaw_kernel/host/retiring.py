"""Instances that were replaced: each is kept for what is still under way on it, but not for ever, and of one plugin only so many."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from openclaw_kernel.host.lifecycle import Hosted, bring_down
from openclaw_kernel.host.timing import Timing
from openclaw_kernel.tasks import TaskOwner

logger: Final = logging.getLogger("openclaw_kernel.host.host")
"""The host's own: who follows the log of plugins follows one."""

MOST_KEPT: Final = 8
"""So many replaced instances of one plugin are kept; for one more the oldest is broken off."""


class Retiring:
    """Ends them, as tasks of the host."""

    def __init__(self, tasks: TaskOwner, timing: Timing) -> None:
        self._tasks = tasks
        self._timing = timing
        self._kept: dict[str, list[asyncio.Timeout]] = {}

    def begin(self, hosted: Hosted) -> None:
        """Let an instance end once nothing of it is under way."""
        self._tasks.spawn(f"retire {hosted.id}", self._retire(hosted))

    async def _retire(self, hosted: Hosted) -> None:
        kept = self._kept.setdefault(hosted.id, [])
        try:
            async with asyncio.timeout(self._timing.retire) as patience:
                if hosted.calls.count:
                    kept.append(patience)
                try:
                    if len(kept) > MOST_KEPT and not (oldest := kept.pop(0)).expired():
                        oldest.reschedule(asyncio.get_running_loop().time())
                    await hosted.calls.idle()
                finally:
                    if patience in kept:
                        kept.remove(patience)
        except TimeoutError:
            logger.warning("plugin %r: %d calls of the instance that was replaced are broken off", hosted.id, hosted.calls.count)
        finally:
            await bring_down(hosted, self._timing.call)
