"""The audit log's rows about fixes where no gateway runs."""

from __future__ import annotations

import logging
import sqlite3
import time
from pathlib import Path
from typing import Any, Final

from openclaw_kernel.audit.trail import AuditTrail
from openclaw_kernel.checks.recording import BY_OWNER, FixRecorder
from openclaw_kernel.checks.scene import DATABASE
from openclaw_kernel.host.loader import load_driver
from openclaw_kernel.lock import AlreadyRunning, CannotLock, StateLock
from openclaw_kernel.store.errors import StoreError

logger: Final = logging.getLogger(__name__)


async def record_alone(home: Path) -> bool:
    """Write the rows where no gateway runs, holding its lock; tell whether they are there. Else the next start writes them."""
    database = home / DATABASE
    if not database.exists():
        return False
    lock = StateLock(home)
    try:
        lock.acquire()
    except (AlreadyRunning, CannotLock):
        return False
    store: Any = load_driver("openclaw.stores", "sqlite")(database)
    try:
        await store.open({})
        audit = AuditTrail(store, home=home, now_ms=_now_ms)
        try:
            await audit.open()
            await FixRecorder(home=home, store=store, audit=audit).record(BY_OWNER)
        finally:
            await audit.close()
    except (StoreError, sqlite3.Error, OSError) as error:
        logger.warning("the audit log cannot be written now; the next start does it: %s", error)
        return False
    finally:
        await store.close()
        lock.release()
    return True


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
