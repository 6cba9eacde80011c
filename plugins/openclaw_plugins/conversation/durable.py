"""Writes that must come to pass: a store that fails for a while delays them and loses nothing."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from typing import Final, TypeVar

from openclaw_kernel.api import GatewayError, Store

logger: Final = logging.getLogger(__name__)

SHORT_DELAYS: Final = (0.05, 0.15, 0.4)
LONGEST_DELAY: Final = 30.0

ValueT = TypeVar("ValueT")


async def write_patiently(store: Store, work: Callable[[sqlite3.Connection], ValueT]) -> ValueT:
    """Write, and try again for about half a second where the store fails; raise what the last attempt raised.

    The work may run several times, each time from the state on disk: it must change nothing but rows.
    """
    for delay in SHORT_DELAYS:
        try:
            return await store.write(work)
        except GatewayError as error:
            logger.warning("a write failed and is tried again in %.2f s: %s", delay, error.message)
        await asyncio.sleep(delay)
    return await store.write(work)


async def write_until_done(store: Store, work: Callable[[sqlite3.Connection], ValueT], *, what: str) -> ValueT:
    """Write, and try again for as long as the store fails (a full disk); raise what is no fault of the store."""
    delay = SHORT_DELAYS[0]
    while True:
        try:
            return await store.write(work)
        except GatewayError as error:
            logger.warning("%s is not written yet and is tried again in %.1f s: %s", what, delay, error.message)
        await asyncio.sleep(delay)
        delay = min(LONGEST_DELAY, delay * 3)
