"""The work of migrations that grows with history: done in small writes once the gateway serves, and gone on with after a restart."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

from openclaw_kernel.api.store import Migration, Store
from openclaw_kernel.store.migrations import KERNEL, KERNEL_MIGRATIONS

logger: Final = logging.getLogger(__name__)

PAUSE_SECONDS: Final = 0.01
"""Between two writes, so that those of people come in between."""


async def finish(store: Store, migrations: Mapping[str, Sequence[Migration]], serving: asyncio.Event) -> None:
    """Do what is left of every step that was applied, owner by owner; one that fails is told, and tried again at the next start."""
    await serving.wait()
    steps = {(owner, step.number): step for owner, owned in {KERNEL: KERNEL_MIGRATIONS, **migrations}.items() for step in owned}
    for owner, number in await store.read(_unfinished):
        step = steps.get((owner, number))
        if step is None or step.batch is None:
            # Of a plugin that is not here now: it is done when that is back.
            continue
        for problem in await asyncio.gather(_finish(store, owner, step), return_exceptions=True):
            if isinstance(problem, Exception):
                logger.error("%s: migration %d (%s) is not done yet; the next start goes on", owner, number, step.name, exc_info=problem)


async def _finish(store: Store, owner: str, step: Migration) -> None:
    writes = 1
    while await store.write(lambda connection: _batch(connection, owner, step)):
        writes += 1
        await asyncio.sleep(PAUSE_SECONDS)
    logger.info("%s: migration %d (%s) is done, in %d writes", owner, step.number, step.name, writes)


def _batch(connection: sqlite3.Connection, owner: str, step: Migration) -> bool:
    """Do one part, and with the last write down that it was that; return whether there is more."""
    if step.batch is not None and step.batch(connection):
        return True
    connection.execute("DELETE FROM kernel_migration_batches WHERE owner = ? AND number = ?", (owner, step.number))
    return False


def _unfinished(connection: sqlite3.Connection) -> list[tuple[str, int]]:
    return list(connection.execute("SELECT owner, number FROM kernel_migration_batches ORDER BY owner, number"))
