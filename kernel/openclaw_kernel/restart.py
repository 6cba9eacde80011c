"""A restart that a client asked for: what is to be told afterwards is on disk before it begins."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

import orjson

from openclaw_kernel.api.messages import Target
from openclaw_kernel.api.services import RestartSentinel

logger: Final = logging.getLogger("openclaw.gateway")

MOST_SENTINELS: Final = 100
"""So many restarts are told of; of more that nobody takes, the newest."""


class RestartDesk:
    """Implements the service `Restarts`; `wanted` is set when the process is to be replaced."""

    def __init__(self, *, boot_id: str, check: Callable[[], None]) -> None:
        self._boot_id = boot_id
        self._check = check
        self._timer: asyncio.TimerHandle | None = None
        self.wanted = asyncio.Event()
        self.reason = ""

    @property
    def pending(self) -> bool:
        """Whether a restart is under way."""
        return self._timer is not None

    async def check(self) -> None:
        """Raise `InvalidRequest` where the next process could not start."""
        await asyncio.to_thread(self._check)

    def write(self, connection: sqlite3.Connection, sentinel: RestartSentinel) -> None:
        """Write what is to be told after the next start, inside a write of the caller's own."""
        cursor = connection.execute(
            "INSERT INTO kernel_sentinels (boot_id, body) VALUES (?, ?)", (self._boot_id, orjson.dumps(asdict(sentinel)).decode())
        )
        connection.execute("DELETE FROM kernel_sentinels WHERE id <= ?", (int(cursor.lastrowid or 0) - MOST_SENTINELS,))

    def take(self, connection: sqlite3.Connection) -> Sequence[RestartSentinel]:
        """Take what earlier processes left to be told, inside the write that tells it. What cannot be read is left out."""
        rows = connection.execute("DELETE FROM kernel_sentinels WHERE boot_id <> ? RETURNING id, body", (self._boot_id,)).fetchall()
        found = [_sentinel(body) for _, body in sorted(rows)]
        return [sentinel for sentinel in found if sentinel is not None]

    def begin(self, reason: str, delay_seconds: float) -> None:
        """Restart after the delay; an earlier restart that is under way stays as it is."""
        if self._timer is None:
            self.reason = reason
            logger.warning("the gateway restarts in %.1f s: %s", delay_seconds, reason)
            self._timer = asyncio.get_running_loop().call_later(delay_seconds, self.wanted.set)

    def close(self) -> None:
        """Begin no restart any more."""
        if self._timer is not None:
            self._timer.cancel()


def _sentinel(text: str) -> RestartSentinel | None:
    try:
        body: dict[str, Any] = orjson.loads(text)
        target = body.pop("target")
        return RestartSentinel(**body, target=None if target is None else Target(**target))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # Another version wrote it: that a restart is not told of must keep nobody from being answered.
        logger.warning("a restart cannot be told of: %s", error)
        return None
