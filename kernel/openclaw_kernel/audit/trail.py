"""The audit log of a running gateway: rows inside other people's writes, and an owner for what changes nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from openclaw_kernel.api.audit import AuditEntry, AuditFilter, AuditPage
from openclaw_kernel.api.errors import GatewayError
from openclaw_kernel.api.store import Store
from openclaw_kernel.audit import table
from openclaw_kernel.audit.gathering import Gatherer, Timed
from openclaw_kernel.audit.signing import CHECKPOINT_SECONDS, Signing
from openclaw_kernel.audit.verifying import verify
from openclaw_kernel.tasks import TaskOwner

logger: Final = logging.getLogger(__name__)

GATHER_SECONDS: Final = 0.25
_ROWS_AT_ONCE: Final = 128
_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 30.0
_CLOSE_SECONDS: Final = 3.0


class AuditTrail:
    """Implements `openclaw_kernel.api.AuditLog` over the store's table."""

    def __init__(
        self,
        store: Store,
        *,
        home: Path,
        now_ms: Callable[[], int],
        gather_seconds: float = GATHER_SECONDS,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> None:
        self._store = store
        self._home = home
        self._verifying = asyncio.Lock()
        self._now_ms = now_ms
        self._gather_seconds = gather_seconds
        self._signing = Signing(store, home, now_ms=now_ms, seconds=checkpoint_seconds)
        self._gatherer = Gatherer()
        self._work = asyncio.Event()
        self._writing = asyncio.Lock()
        self._closing = asyncio.Event()
        self._ended = False
        self._tasks = TaskOwner("audit log", _task_failed)
        self._writer: asyncio.Task[None] | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Begin to write what is noted; the store is open. What is not as the newest checkpoint says becomes a row."""
        broken = await self._signing.open()
        if broken is not None:
            self.note(broken)
        self._writer = self._tasks.spawn("writer", self._run())

    async def close(self) -> None:
        """Write what waits, and what was counted so far."""
        self._closing.set()
        self._work.set()
        if self._writer is not None:
            await asyncio.wait({self._writer}, timeout=_CLOSE_SECONDS)
        await self._tasks.close(1.0)
        await self._signing.close()
        if len(self._gatherer):
            logger.error("%d entries of the audit log were not written before the stop; look after the disk", len(self._gatherer))

    # --- writing ------------------------------------------------------------------------------------------------------

    def append(self, connection: sqlite3.Connection, entry: AuditEntry) -> int:
        """Write inside a write of the caller's own; return the row's number."""
        row = table.append(connection, entry, self._now_ms())
        self._signing.grown(row.sequence)
        return row.sequence

    def refused(self, entry: AuditEntry) -> None:
        """Record a refusal, soon."""
        self._take(replace(entry, outcome="refused"), by_subject=False)

    def note(self, entry: AuditEntry) -> None:
        """Record what changes nothing in the store, soon."""
        self._take(entry, by_subject=True)

    # --- reading ------------------------------------------------------------------------------------------------------

    async def page(self, filters: AuditFilter, *, behind: int | None, limit: int, oldest_first: bool) -> AuditPage:
        """Return the next rows, those that were noted just now included."""
        await self._settle_if_possible()
        rows, following = await self._store.read(
            lambda connection: table.page(connection, filters, behind=behind, limit=limit, oldest_first=oldest_first)
        )
        return AuditPage(rows=[row.to_json() for row in rows], next=following)

    async def verify(self) -> Mapping[str, Any]:
        """Check chain and checkpoints; one check at a time."""
        async with self._verifying:
            await self._settle_if_possible()
            return await verify(self._store, self._home)

    async def _settle_if_possible(self) -> None:
        # What is on disk can be read also while the disk takes nothing more.
        with contextlib.suppress(GatewayError, sqlite3.Error):
            await self.settled()

    async def settled(self) -> None:
        """Wait until what was noted so far is on disk; raise `StoreError`."""
        while self._gatherer.ready(self._now_ms(), 1):
            await self._write()

    def _take(self, entry: AuditEntry, *, by_subject: bool) -> None:
        self._gatherer.take(entry, self._now_ms(), by_subject=by_subject)
        self._work.set()

    async def _run(self) -> None:
        delay = _FIRST_DELAY
        while not self._ended:
            await self._wait()
            # Many are refused together; they share one write. A stop waits for no more of them.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._gather_seconds):
                    await self._closing.wait()
            if self._closing.is_set():
                self._gatherer.end(self._now_ms())
                self._ended = True
            try:
                await self.settled()
            except (GatewayError, sqlite3.Error) as error:
                logger.warning("%d entries of the audit log are not written yet; again in %.1f s: %s", len(self._gatherer), delay, error)
                if not self._ended:
                    await asyncio.sleep(delay)
                    delay = min(_LONGEST_DELAY, delay * 3)
                    self._work.set()
            else:
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
                self._signing.grown(await self._store.write(lambda connection: _append_all(connection, batch)))
                self._gatherer.written(len(batch))


def _append_all(connection: sqlite3.Connection, batch: Sequence[Timed]) -> int:
    return [table.append(connection, entry, time_ms).sequence for time_ms, entry in batch][-1]


def _task_failed(name: str, error: BaseException) -> None:
    logger.error("task %s failed", name, exc_info=error)
