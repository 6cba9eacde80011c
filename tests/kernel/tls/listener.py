"""The gateway's listener with TLS and the probes, without a gateway."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from openclaw_kernel.http import Door, Listener, Probes, build_application
from openclaw_kernel.tls.keeper import ServedContext
from openclaw_kernel.tls.listening import HANDSHAKE_SECONDS, TlsSite

DEADLINE = 20.0


async def _nobody(_request: web.Request) -> bool:
    return False


async def _no_upgrade(_request: web.Request) -> web.StreamResponse:
    return web.Response(text="upgrade")


@asynccontextmanager
async def listening(context: ServedContext, door: Door, *, handshake_seconds: float = HANDSHAKE_SECONDS) -> AsyncIterator[int]:
    """A port of 127.0.0.1."""
    probes = Probes(started=lambda: True, ready=lambda: True, reasons=list, trusted=_nobody)
    application = build_application(
        base_path="", upgrade=_no_upgrade, probes=probes, routes=[], guard=lambda _owner, handler: handler, door=door
    )
    runner = Listener(application, door, shutdown_timeout=1.0)
    await runner.setup()
    site = TlsSite(
        runner, socket.create_server(("127.0.0.1", 0)), context=context, door=door, backlog=64, handshake_seconds=handshake_seconds
    )
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what has no event of its own."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)
