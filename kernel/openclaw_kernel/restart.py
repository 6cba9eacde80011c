"""A restart that a client asked for: what is to be told afterwards is on disk before it begins."""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import asdict
from typing import Any, Final, TypeAlias

import orjson

from openclaw_kernel.api.errors import GatewayError
from openclaw_kernel.api.messages import Target
from openclaw_kernel.api.services import RestartSentinel

logger: Final = logging.getLogger("openclaw.gateway")

Spawn: TypeAlias = Callable[[str, Coroutine[Any, Any, None]], object]

_FRESH_SECONDS: Final = 2.0
"""So long ago the check of a restart that begins now may have ended."""
MOST_SENTINELS: Final = 100
"""So many restarts are told of; of more that nobody takes, the newest."""

_BY_NONE: Final = "none"
"""Instead of the boot id of the process that leaves it to the next one."""


class RestartDesk:
    """Implements the service `Restarts`; `wanted` is set when the process is to be replaced.

    `check` raises `GatewayError` where the next process could not start: it is asked before every restart, and the gateway goes on as it
    is where it objects.
    """

    def __init__(self, *, boot_id: str, check: Callable[[], Awaitable[None]], spawn: Spawn) -> None:
        self._boot_id = boot_id
        self._check = check
        self._spawn = spawn
        self._timer: asyncio.TimerHandle | None = None
        self._checking = asyncio.Lock()
        self._check_began = self._check_ended = -math.inf
        """Of the last check that found nothing."""
        self._objection: str | None = None
        self._closed = False
        self.wanted = asyncio.Event()
        self.reason = ""

    @property
    def pending(self) -> bool:
        """Whether a restart is under way."""
        return self._timer is not None

    def problems(self) -> list[str]:
        """Why the last restart that was wanted did not take place; a line at most."""
        return [] if self._objection is None else [self._objection]

    async def check(self) -> None:
        """Raise `InvalidRequest` or `Unavailable` where the next process could not start; a restart under way was checked."""
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        async with self._checking:
            if self.pending or self._check_began >= asked_at:
                return
            began = loop.time()
            await self._check()
            self._check_began, self._check_ended = began, loop.time()

    def write(self, connection: sqlite3.Connection, sentinel: RestartSentinel) -> None:
        """Write what is to be told after the next start, inside a write of the caller's own."""
        self._insert(connection, self._boot_id, sentinel)

    def write_for_now(self, connection: sqlite3.Connection, sentinel: RestartSentinel) -> None:
        """Write what is to be told after this start."""
        self._insert(connection, _BY_NONE, sentinel)

    def _insert(self, connection: sqlite3.Connection, boot_id: str, sentinel: RestartSentinel) -> None:
        cursor = connection.execute(
            "INSERT INTO kernel_sentinels (boot_id, body) VALUES (?, ?)", (boot_id, orjson.dumps(asdict(sentinel)).decode())
        )
        connection.execute("DELETE FROM kernel_sentinels WHERE id <= ?", (int(cursor.lastrowid or 0) - MOST_SENTINELS,))

    def take(self, connection: sqlite3.Connection) -> Sequence[RestartSentinel]:
        """Take what earlier processes left to be told, inside the write that tells it. What cannot be read is left out."""
        rows = connection.execute("DELETE FROM kernel_sentinels WHERE boot_id <> ? RETURNING id, body", (self._boot_id,)).fetchall()
        found = [_sentinel(body) for _, body in sorted(rows)]
        return [sentinel for sentinel in found if sentinel is not None]

    def begin(self, reason: str, delay_seconds: float) -> None:
        """Restart after the delay; an earlier restart that is under way stays as it is."""
        if self._timer is None and not self._closed:
            self.reason = reason
            logger.warning("the gateway restarts in %.1f s: %s", delay_seconds, reason)
            self._timer = asyncio.get_running_loop().call_later(delay_seconds, self._due)

    def forget_objection(self) -> None:
        """Say no more why a restart did not take place: it is wanted no longer, or another configuration would be started."""
        self._objection = None

    def close(self) -> None:
        """Begin no restart any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _due(self) -> None:
        if asyncio.get_running_loop().time() - self._check_ended < _FRESH_SECONDS:
            self.wanted.set()
        else:
            self._spawn("restart", self._check_and_go())

    async def _check_and_go(self) -> None:
        try:
            await self._check()
        except GatewayError as error:
            self._objection = f"{error.message} (it was wanted for: {self.reason})"
            logger.error("%s", self._objection)  # noqa: TRY400 - the check's own words say all
        else:
            self.wanted.set()
        finally:
            if not self.wanted.is_set():
                # Whatever kept it from taking place: another one may be asked for.
                self._timer = None


def _sentinel(text: str) -> RestartSentinel | None:
    try:
        body: dict[str, Any] = orjson.loads(text)
        target = body.pop("target")
        return RestartSentinel(**body, target=None if target is None else Target(**target))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # Another version wrote it: that a restart is not told of must keep nobody from being answered.
        logger.warning("a restart cannot be told of: %s", error)
        return None
