"""What the gateway serves, and how it came to that: for status, health and readiness, for the audit log, and for whoever is told."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import Any, Final

from openclaw_kernel.api.audit import BY_GATEWAY, AuditAction, AuditEntry, AuditLog
from openclaw_kernel.api.errors import GatewayError
from openclaw_kernel.api.services import RestartSentinel
from openclaw_kernel.api.store import Store
from openclaw_kernel.boot import Boot
from openclaw_kernel.generations import Generations
from openclaw_kernel.restart import RestartDesk

logger: Final = logging.getLogger("openclaw.gateway")

_LONGEST_REASON: Final = 1_000


class Serving:
    """The choice of the start, and the generation in force by now."""

    def __init__(self, boot: Boot, generations: Generations) -> None:
        self._boot = boot
        self._generations = generations
        generations.in_doubt = boot.safe

    def problems(self) -> list[str]:
        """What people have to know, a line each; empty where the newest file serves with all plugins."""
        return self._boot.problems(self._generations.current)

    def shown(self) -> dict[str, Any]:
        """What `status` and `health` show: generation (None before it is written down), what serves, whether in safe mode."""
        current = self._generations.current
        return {
            "generation": None if current is None else current.number,
            "hash": self._boot.loaded.hash if current is None else current.hash,
            "serving": "newest" if self._boot.replaced(current) else self._boot.serves,
            "safeMode": self._boot.safe,
        }

    async def mark_good(self) -> None:
        """The start is ready: what it serves works, and no start before it counts any more. Nobody was answered yet."""
        await self._generations.mark_good()
        await asyncio.to_thread(self._boot.attempts.ready, ordinary=self._boot.is_ordinary)

    async def open(self, store: Store, audit: AuditLog, restarts: RestartDesk) -> None:
        """Write down what is served; where the newest file is not, or third parties do not run, tell the main session of it, once."""
        await self._generations.take_start(self._boot.loaded)
        problems = self.problems()
        if not problems:
            return
        if self._boot.refusal is not None:
            audit.note(await asyncio.to_thread(self._rejected))
        if await asyncio.to_thread(self._boot.attempts.told, self._boot.digest()):
            return
        sentinel = RestartSentinel(
            reason="in safe mode" if self._boot.safe else "with the config that last worked",
            note="\n".join(problems)[:_LONGEST_REASON],
            session_key=self._boot.loaded.config.session.main_key,
            target=None,
            requested_ms=0,
        )
        try:
            await store.write(lambda connection: restarts.write_for_now(connection, sentinel))
        except GatewayError as error:
            logger.warning("the main session is not told: %s", error.message)

    def _rejected(self) -> AuditEntry:
        boot = self._boot
        digest = None
        if boot.rejected is not None:
            digest = hashlib.sha256(boot.rejected).hexdigest()
            try:
                self._generations.files.keep_rejected(boot.rejected)
            except OSError as error:
                logger.warning("the file that does not serve is not kept beside: %s", error)
        return AuditEntry(
            action=AuditAction.CONFIG_REJECTED,
            origin=BY_GATEWAY,
            outcome="refused",
            subject=boot.loaded.path.name,
            reason="it cannot be served",
            before=boot.loaded.hash,
            after=digest,
            details={"faults": boot.refusal, "serves": None if boot.good is None else boot.good.number},
        )
