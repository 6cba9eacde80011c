"""What a gateway does at intervals as long as it serves, and once when it starts; whoever spawns these owns them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from openclaw_kernel.announcements import Announcements
from openclaw_kernel.api.children import kill_leftovers
from openclaw_kernel.protocol.limits import Limits

logger: Final = logging.getLogger("openclaw.gateway")


async def keep_time(tick: Callable[[float], None], announcements: Announcements, limits: Limits, now_ms: Callable[[], int]) -> None:
    """Call `tick` with the loop's time each second, and tell clients the time as often as they were promised."""
    loop = asyncio.get_running_loop()
    next_tick = loop.time() + limits.tick_interval_ms / 1000
    while True:
        await asyncio.sleep(1)
        now = loop.time()
        tick(now)
        if now >= next_tick:
            next_tick = now + limits.tick_interval_ms / 1000
            announcements.tick(now_ms())


async def keep_health(announcements: Announcements, limits: Limits) -> None:
    """Tell clients of the health. Apart from the clock: what plugins say of themselves must not be able to stop it."""
    while True:
        await asyncio.sleep(limits.health_seconds)
        announcements.health()


async def end_leftovers(home: Path) -> None:
    """End the processes that an earlier gateway of this state folder left behind."""
    count = await asyncio.to_thread(kill_leftovers, home)
    if count:
        logger.warning("ended %d processes that an earlier gateway of %s had left behind", count, home)
