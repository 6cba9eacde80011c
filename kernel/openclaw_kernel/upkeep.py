"""What a gateway does at intervals as long as it serves, and once when it starts; whoever spawns these owns them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from openclaw_config.home import config_path
from openclaw_config.secret_files import FOLDER as SECRETS
from openclaw_config.secret_files import LOGINS
from openclaw_config.whole_files import remove_unfinished
from openclaw_kernel.announcements import Announcements
from openclaw_kernel.api.children import kill_leftovers
from openclaw_kernel.generations.files import FOLDER as GENERATIONS
from openclaw_kernel.generations.files import REJECTED
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
    """End the processes that an earlier gateway of this state folder left behind, and remove the files that it did not come to finish."""
    count = await asyncio.to_thread(kill_leftovers, home)
    if count:
        logger.warning("ended %d processes that an earlier gateway of %s had left behind", count, home)
    try:
        removed = await asyncio.to_thread(_remove_unfinished, home)
    except OSError as error:
        logger.warning("%s: what was left half written cannot be removed: %s", home, error)
    else:
        if removed:
            logger.info("removed %d files that were left half written below %s", removed, home)


def _remove_unfinished(home: Path) -> int:
    generations, kept_secrets = home / GENERATIONS, home / SECRETS
    count = remove_unfinished((home, generations, generations / REJECTED, kept_secrets, kept_secrets / LOGINS))
    # Where it is a link, the file lies in a folder with others of its owner's.
    file = config_path(home).resolve()
    return count if file.parent == home else count + remove_unfinished([file.parent], name=file.name)


def take_back_changes(home: Path) -> list[str]:
    """Take back changes of plugins that were cut off; return what could not be, a line each. Only for who holds the state folder."""
    if not (home / "replaced-plugins").is_dir():
        return []
    # Imported here: hardly any start has one to take back.
    from openclaw_kernel.packages.undoing import take_back_all

    problems = take_back_all(home)
    for line in problems:
        logger.error("%s", line)
    return problems
