"""Who is locked out stays so over a restart: the limiter's lockouts, kept in the store."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from typing import Final

from openclaw_kernel.api.errors import GatewayError
from openclaw_kernel.api.store import KeyValue
from openclaw_kernel.protocol.limiter import FailureLimiter
from openclaw_kernel.tasks import TaskOwner

logger: Final = logging.getLogger(__name__)

KEY: Final = "lockouts"


class KeptLockouts:
    """Writes them down one write at a time, however many come together."""

    def __init__(self, limiter: FailureLimiter, values: KeyValue, *, now_ms: Callable[[], int]) -> None:
        self._limiter = limiter
        self._values = values
        self._now_ms = now_ms
        self._tasks = TaskOwner("lockouts", lambda name, error: logger.error("%s failed", name, exc_info=error))
        self._writing: asyncio.Task[None] | None = None
        self._is_stale = False

    async def load(self) -> None:
        """Lock out again whom the gateway before had locked out, and write down whoever follows."""
        kept = await self._values.get(KEY)
        if kept is not None:
            try:
                self._limiter.load(kept, self._now_ms())
            except (ValueError, TypeError) as error:
                # A damaged row must not keep everybody out.
                logger.warning("who was locked out before is not known, and may try again: %s", error)
        self._limiter.on_lockout = self._changed

    async def close(self) -> None:
        """Wait for what is being written."""
        self._limiter.on_lockout = lambda: None
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=1.0)
        await self._tasks.close(1.0)

    def _changed(self) -> None:
        self._is_stale = True
        if self._writing is None or self._writing.done():
            self._writing = self._tasks.spawn("write lockouts", self._write())

    async def _write(self) -> None:
        while self._is_stale:
            self._is_stale = False
            try:
                await self._values.put(KEY, self._limiter.dump(self._now_ms()))
            except (GatewayError, sqlite3.Error) as error:
                logger.warning("who is locked out would not be known after a restart: %s", error)
