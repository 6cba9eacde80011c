"""When checkpoints are written: soon after a row, after so many rows, and at the stop; always of what is on disk."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from openclaw_kernel.api.audit import BY_GATEWAY, AuditAction, AuditEntry
from openclaw_kernel.api.errors import GatewayError
from openclaw_kernel.api.store import Store
from openclaw_kernel.audit import table
from openclaw_kernel.audit.chain import CHECKPOINT_ROWS, Checkpoint
from openclaw_kernel.audit.checkpoints import CHECKPOINTS_FILE, CheckpointFile, KeyUnusable
from openclaw_kernel.tasks import TaskOwner

logger: Final = logging.getLogger(__name__)

CHECKPOINT_SECONDS: Final = 5.0
_LONGEST_DELAY: Final = 60.0
_SOON: Final = 0.1
_LOOKS: Final = 3
"""How often a row that was announced is looked for."""


class Signing:
    """The owner of the checkpoints of a running gateway."""

    def __init__(self, store: Store, home: Path, *, now_ms: Callable[[], int], seconds: float) -> None:
        self._store = store
        self._now_ms = now_ms
        self._seconds = seconds
        self._file = CheckpointFile(home)
        self._signed = 0
        self._unsigned = 0
        self._wanted = 0
        self._grown = asyncio.Event()
        self._many = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks = TaskOwner("audit checkpoints", _task_failed)

    async def open(self) -> AuditEntry | None:
        """Go on behind the newest checkpoint; return what is to be recorded where the rows are not those that it signed."""
        self._loop = asyncio.get_running_loop()
        newest = await asyncio.to_thread(self._file.newest)
        sequence, _ = await self._store.read(table.head)
        found = None if newest is None else await self._store.read(lambda connection: table.hash_of(connection, newest.sequence))
        self._signed = sequence if newest is not None and newest.sequence == sequence else 0
        self._tasks.spawn("writer", self._run())
        if newest is None and sequence == 0:
            # Signed before there is a row: from now on a log without any checkpoint was tampered with.
            await self._try_to_sign(first=True)
        elif sequence > self._signed:
            self.grown(sequence)
        reasons = []
        if lost := await self._store.read(table.missing_guards):
            await self._store.write(table.restore_guards)
            reasons.append(f"{', '.join(lost)} did not guard it")
        if newest is not None and found != (newest.hash if newest.sequence else None):
            reasons.append("the row that was signed last is missing or another")
        elif newest is None and sequence:
            reasons.append(f"{CHECKPOINTS_FILE} has no checkpoint")
        return _broken("; ".join(reasons), sequence, newest) if reasons else None

    def grown(self, sequence: int) -> None:
        """A row was added, or will be once the present write is on disk. From any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._count, sequence)

    async def close(self) -> None:
        """Sign what was added last."""
        await self._tasks.close(1.0)
        self._loop = None
        await self._try_to_sign()

    def _count(self, sequence: int) -> None:
        self._wanted = max(self._wanted, sequence)
        self._grown.set()
        if self._wanted - self._signed >= CHECKPOINT_ROWS:
            self._many.set()

    async def _run(self) -> None:
        delay, looks = self._seconds, _LOOKS
        while True:
            await self._grown.wait()
            try:
                async with asyncio.timeout(delay):
                    await self._many.wait()
            except TimeoutError:
                pass
            self._grown.clear()
            self._many.clear()
            wanted, self._wanted = self._wanted, 0
            if not await self._try_to_sign():
                delay = min(_LONGEST_DELAY, max(_SOON, delay * 2))
                self._grown.set()
            elif wanted > self._signed and looks:
                # The write is still under way, or was undone.
                self._wanted, looks = max(self._wanted, wanted), looks - 1
                delay = _SOON if looks else self._seconds
                self._grown.set()
            else:
                delay, looks = self._seconds, _LOOKS

    async def _try_to_sign(self, *, first: bool = False) -> bool:
        try:
            sequence, digest = await self._store.read(table.head)
            if sequence != self._signed or first:
                await asyncio.to_thread(self._file.append, Checkpoint(sequence, digest, self._now_ms()))
                self._signed = sequence
        except (GatewayError, sqlite3.Error, OSError, KeyUnusable) as error:
            logger.warning("the newest rows of the audit log have no checkpoint yet: %s", error)
            return False
        return True


def _broken(reason: str, sequence: int, newest: Checkpoint | None) -> AuditEntry:
    logger.error("the audit log is not as it was left: %s; look at it with openclaw-kernel audit verify", reason)
    signed = {} if newest is None else {"signedRow": newest.sequence, "signedHash": newest.hash, "signedMs": newest.time_ms}
    return AuditEntry(action=AuditAction.AUDIT_BROKEN, origin=BY_GATEWAY, reason=reason, details={"newestRow": sequence, **signed})


def _task_failed(name: str, error: BaseException) -> None:
    logger.error("task %s failed", name, exc_info=error)
