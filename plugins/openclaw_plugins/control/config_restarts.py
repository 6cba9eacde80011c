"""The restart that a written config makes necessary: when it is, and who is told after it."""

from __future__ import annotations

import os
from typing import Any, Final

from openclaw_kernel.api import PluginContext, Restarts, RestartSentinel, Target
from openclaw_kernel.api.config import Written
from openclaw_plugins.control.config_wire import ConfigDeliveryContext, ToldParams
from openclaw_plugins.control.places import target_of

COOLDOWN_MS: Final = 30_000
"""Between two restarts that written configs ask for."""
LEAST_MS: Final = 250
"""The answer leaves before the restart begins."""
_LAST: Final = "last-config-restart"


class ConfigRestarts:
    """Begins the restarts of written configs, and writes down who is to be told."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    async def after(self, params: ToldParams, written: Written, *, kind: str) -> dict[str, Any]:
        """The part of the answer about the restart; it is begun where the write made it necessary."""
        if written.noop:
            return {}
        target = _target(params.delivery_context)
        now = self._context.now_ms()
        restart, persisted = None, False
        if written.restart:
            restart = await self._begin(params.restart_delay_ms, _reason(written), now)
            sentinel = RestartSentinel(
                reason=_reason(written),
                note=(params.note or "").strip(),
                session_key=params.session_key or None,
                target=target,
                requested_ms=now,
            )
            restarts = self._context.service(Restarts)
            await self._context.store.write(lambda connection: restarts.write(connection, sentinel))
            persisted = True
        return {"restart": restart, "sentinel": {"persisted": persisted, "payload": self._payload(params, written, kind, now)}}

    async def _begin(self, delay_ms: int, reason: str, now: int) -> dict[str, Any]:
        restarts = self._context.service(Restarts)
        coalesced = restarts.pending
        last = await self._context.storage.get(_LAST)
        waited = 0 if last is None else max(0, int(last) + COOLDOWN_MS - now)
        delay = max(delay_ms, waited, LEAST_MS)
        if not coalesced:
            restarts.begin(reason, delay / 1000)
            await self._context.storage.put(_LAST, str(now + delay))
        return {
            "ok": True,
            "pid": os.getpid(),
            "delayMs": delay,
            "reason": reason,
            "mode": "in-process",
            "coalesced": coalesced,
            "cooldownMsApplied": waited,
        }

    @staticmethod
    def _payload(params: ToldParams, written: Written, kind: str, now: int) -> dict[str, Any]:
        context = params.delivery_context
        return {
            "kind": kind,
            "status": "ok",
            "ts": now,
            "sessionKey": params.session_key,
            "deliveryContext": None if context is None else context.model_dump(mode="json", by_alias=True, exclude_none=True),
            "threadId": None if context is None or context.thread_id is None else str(context.thread_id),
            "message": (params.note or "").strip() or None,
            "doctorHint": "run: openclaw-kernel doctor",
            "stats": {"mode": kind.replace("-", "."), "root": None, "requiresRestart": written.restart},
        }


def _reason(written: Written) -> str:
    keys = [path for unit in written.plan.units if unit.outcome.value == "process" and not unit.waits for path in unit.paths]
    return f"{', '.join(sorted(set(keys))[:5])} changed"


def _target(context: ConfigDeliveryContext | None) -> Target | None:
    if context is None or not (context.channel and context.to):
        return None
    return target_of(context.channel, context.to, account_id=context.account_id, thread_id=context.thread_id)
