"""The rows of the audit log about fixes. They are made by a command; the gateway, or whoever holds its lock, writes them down."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from openclaw_kernel.api.audit import AuditAction, AuditEntry, AuditLog, AuditOrigin, state_digest
from openclaw_kernel.api.errors import GatewayError
from openclaw_kernel.api.store import Store
from openclaw_kernel.checks import FIXES_FOLDER

if TYPE_CHECKING:
    from openclaw_kernel.checks.fixes import FixBook

logger: Final = logging.getLogger(__name__)

BY_OWNER: Final = AuditOrigin(actor="owner", surface="cli")
"""Whoever may write the state folder's files: the command worked on them itself."""


class FixRecorder:
    """Implements `openclaw_kernel.api.Fixes`."""

    def __init__(self, *, home: Path, store: Store, audit: AuditLog) -> None:
        self._home = home
        self._store = store
        self._audit = audit

    def has_any(self) -> bool:
        """Whether there ever was a fix."""
        return (self._home / FIXES_FOLDER).is_dir()

    async def record(self, origin: AuditOrigin) -> list[str]:
        """Write a row for each fix that has none yet; return their ids. What is on disk counts, not what somebody says."""
        # Imported here: few gateways have fixes to write down.
        from openclaw_kernel.checks.fixes import FixBook

        book = FixBook(self._home)
        done = []
        for fix_id, state, record in await asyncio.to_thread(book.unrecorded):
            await self._write(_entry(fix_id, record, origin, undone=state == "undone"))
            await asyncio.to_thread(_remember, book, fix_id, state)
            done.append(fix_id)
        return done

    async def _write(self, entry: AuditEntry) -> None:
        await self._store.write(lambda connection: self._audit.append(connection, entry))


def _remember(book: FixBook, fix_id: str, state: str) -> None:
    from openclaw_kernel.checks.changes import CannotFix

    try:
        book.recorded(fix_id, state)
    except (OSError, CannotFix) as error:
        logger.warning("fix %s is in the audit log, and may get there once more: %s", fix_id, error)


async def record_at_start(recorder: FixRecorder) -> None:
    """Write down what was fixed while no gateway ran, and could not be written down then."""
    if not recorder.has_any():
        return
    try:
        await recorder.record(BY_OWNER)
    except (GatewayError, sqlite3.Error, OSError) as error:
        logger.warning("fixes of security audit are not in the audit log yet: %s", error)


def _entry(fix_id: str, record: Mapping[str, Any], origin: AuditOrigin, *, undone: bool) -> AuditEntry:
    sides = [[_side(step, name) for step in record["steps"]] for name in ("before", "after")]
    before, after = (sides[1], sides[0]) if undone else (sides[0], sides[1])
    return AuditEntry(
        action=AuditAction.SECURITY_UNDONE if undone else AuditAction.SECURITY_FIXED,
        origin=origin,
        subject=f"check:{record['check']}",
        before=state_digest(before),
        after=state_digest(after),
        details={"fix": fix_id, "summary": record["summary"], "paths": [step["path"] for step in record["steps"]]},
    )


def _side(step: Mapping[str, Any], name: str) -> dict[str, Any]:
    state = step[name] if step["kind"] == "mode" else step[f"{name}Digest"]
    return {"path": step["path"], step["kind"]: state}
