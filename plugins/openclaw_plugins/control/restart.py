"""The method `gateway.restart.request`."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from typing import Any, Final

from openclaw_kernel.api import (
    AuditAction,
    AuditEntry,
    AuditLog,
    Call,
    Encoded,
    Gateway,
    GatewayError,
    Idempotency,
    InvalidRequest,
    KeptAnswer,
    PluginContext,
    Requests,
    Restarts,
    RestartSentinel,
    Scope,
    Target,
    origin_of,
    rpc,
)
from openclaw_plugins.control import wire
from openclaw_plugins.control.places import target_of

DEFAULT_REASON: Final = "asked for by a client"


class RestartMethods:
    """Restarting the gateway in place."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @rpc(
        "gateway.restart.request",
        scope=Scope.ADMIN,
        params=wire.RestartParams,
        result=wire.RestartResult,
        idempotency=Idempotency.HANDLED,
        control_plane=True,
    )
    async def restart(self, call: Call, params: wire.RestartParams) -> dict[str, Any] | Encoded:
        """Restart the gateway in the same process, and tell a session once it is back.

        Clients get `shutdown`, then a close with 1012. Requests that come while a restart is under way join it.
        """
        restarts, requests = self._context.service(Restarts), self._context.service(Requests)
        await restarts.check()
        sentinel = self._sentinel(params)
        answer = self._answer(sentinel, params)
        audit = self._context.service(AuditLog)
        details = {"reason": sentinel.reason, "delayMs": params.restart_delay_ms}
        asked = AuditEntry(action=AuditAction.RESTART_REQUESTED, origin=origin_of(call), subject="gateway", details=details)

        def write(connection: sqlite3.Connection) -> KeptAnswer | None:
            if call.request is not None:
                claim = requests.claim(connection, call.request)
                if claim.answer is not None:
                    return claim.answer
                requests.complete(connection, call.request, answer)
            restarts.write(connection, sentinel)
            audit.append(connection, asked)
            return None

        async def write_and_begin() -> KeptAnswer | GatewayError | None:
            try:
                known = await self._context.store.write(write)
            except GatewayError as error:
                return error
            if known is None:
                restarts.begin(sentinel.reason, params.restart_delay_ms / 1000)
            return known

        # A client that is gone meanwhile cancels its call; what is written down to be done is done all the same.
        known = await asyncio.shield(self._context.spawn("request a restart", write_and_begin()))
        if isinstance(known, GatewayError):
            raise known
        return answer if known is None else known.replay()

    def _sentinel(self, params: wire.RestartParams) -> RestartSentinel:
        return RestartSentinel(
            reason=(params.reason or "").strip() or DEFAULT_REASON,
            note=(params.note or "").strip(),
            session_key=params.session_key,
            target=_target(params.delivery_context),
            requested_ms=self._context.now_ms(),
        )

    def _answer(self, sentinel: RestartSentinel, params: wire.RestartParams) -> dict[str, Any]:
        context = params.delivery_context
        pending = self._context.service(Restarts).pending
        return {
            "ok": True,
            "status": "coalesced" if pending else "scheduled",
            "preflight": {"safe": True, "blockers": [], "summary": "what runs may end first; what waits is answered after the start"},
            "restart": {
                "pid": os.getpid(),
                "bootId": self._context.service(Gateway).boot_id,
                "delayMs": params.restart_delay_ms,
                "reason": sentinel.reason,
            },
            "sentinel": {
                "persisted": True,
                "payload": {
                    "kind": "restart",
                    "status": "ok",
                    "ts": sentinel.requested_ms,
                    "sessionKey": sentinel.session_key,
                    "deliveryContext": None if context is None else context.model_dump(mode="json", by_alias=True, exclude_none=True),
                    "message": sentinel.note or None,
                    "stats": {"mode": "gateway.restart.request", "reason": sentinel.reason},
                },
            },
        }


def _target(context: wire.DeliveryContext | None) -> Target | None:
    if context is None or not (context.channel or context.to):
        return None
    if not context.channel or not context.to:
        raise InvalidRequest("deliveryContext: names a place by channel and to; give both, or neither")
    return target_of(context.channel, context.to, account_id=context.account_id, thread_id=context.thread_id)
