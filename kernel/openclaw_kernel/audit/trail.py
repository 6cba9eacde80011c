"""The audit log of a running gateway: rows inside other people's writes, and an owner for what changes nothing else."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from openclaw_kernel.api.audit import AuditEntry
from openclaw_kernel.api.errors import GatewayError
from openclaw_kernel.api.store import Store
from openclaw_kernel.audit import table
from openclaw_kernel.audit.gathering import Gatherer, Timed
from openclaw_kernel.tasks import TaskOwner

logger: Final = logging.getLogger(__name__)

GATHER_SECONDS: Final = 0.25
_ROWS_AT_ONCE: Final = 128
_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 30.0
_CLOSE_SECONDS: Final = 3.0


class AuditTrail:
    """Implements `openclaw_kernel.api.AuditLog` over the store's table."""

    def __init__(self, store: Store, *, now_ms: Callable[[], int], gather_seconds: float = GATHER_SECONDS) -> None:
        self._store = store
        self._now_ms = now_ms
        self._gather_seconds = gather_seconds
        self._gatherer = Gatherer()
        self._work = asyncio.Event()
        self._writing = asyncio.Lock()
        self._closing = False
        self._tasks = TaskOwner("audit log", _task_failed)
        self._writer: asyncio.Task[None] | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Begin to write what is noted; the store is open."""
        self._writer = self._tasks.spawn("writer", self._run())

    async def close(self) -> None:
        """Write what waits, and what was counted so far."""
        self._closing = True
        self._work.set()
        if self._writer is not None:
            await asyncio.wait({self._writer}, timeout=_CLOSE_SECONDS)
        await self._tasks.close(1.0)
        if len(self._gatherer):
            logger.error("%d entries of the audit log were not written before the stop; look after the disk", len(self._gatherer))

    # --- writing ------------------------------------------------------------------------------------------------------

    def append(self, connection: sqlite3.Connection, entry: AuditEntry) -> int:
        """Write inside a write of the caller's own; return the row's number."""
        return table.append(connection, entry, self._now_ms()).sequence

    def refused(self, entry: AuditEntry) -> None:
        """Record a refusal, soon."""
        self._take(replace(entry, outcome="refused"), by_subject=False)

    def note(self, entry: AuditEntry) -> None:
        """Record what changes nothing in the store, soon."""
        self._take(entry, by_subject=True)

    async def settled(self) -> None:
        """Wait until what was noted so far is on disk; raise `StoreError`."""
        while self._gatherer.ready(self._now_ms(), 1):
            await self._write()

    def _take(self, entry: AuditEntry, *, by_subject: bool) -> None:
        self._gatherer.take(entry, self._now_ms(), by_subject=by_subject)
        self._work.set()

    async def _run(self) -> None:
        delay = _FIRST_DELAY
        while True:
            await self._wait()
            if self._closing:
                self._gatherer.end(self._now_ms())
            else:
                # Many are refused together; they share one write.
                await asyncio.sleep(self._gather_seconds)
            try:
                await self.settled()
            except (GatewayError, sqlite3.Error) as error:
                if self._closing:
                    return
                logger.warning("%d entries of the audit log are not written yet; again in %.1f s: %s", len(self._gatherer), delay, error)
                await asyncio.sleep(delay)
                delay = min(_LONGEST_DELAY, delay * 3)
                self._work.set()
                continue
            if self._closing:
                return
            delay = _FIRST_DELAY

    async def _wait(self) -> None:
        due_ms = self._gatherer.due_ms()
        seconds = None if due_ms is None else max(0.0, (due_ms - self._now_ms()) / 1000)
        try:
            async with asyncio.timeout(seconds):
                await self._work.wait()
        except TimeoutError:
            pass
        self._work.clear()

    async def _write(self) -> None:
        async with self._writing:
            batch = self._gatherer.ready(self._now_ms(), _ROWS_AT_ONCE)
            if batch:
                await self._store.write(lambda connection: _append_all(connection, batch))
                self._gatherer.written(len(batch))


def _append_all(connection: sqlite3.Connection, batch: Sequence[Timed]) -> None:
    for time_ms, entry in batch:
        table.append(connection, entry, time_ms)


def _task_failed(name: str, error: BaseException) -> None:
    logger.error("task %s failed", name, exc_info=error)
