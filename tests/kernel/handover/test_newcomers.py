"""Who was accepted in the last moment before the port is closed gets its answer; who only holds a connection open is not waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from openclaw_kernel.http import NEWCOMER_SECONDS, Door, Listener, Probes, build_application

SECONDS = 20.0
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def _nobody(_request: web.Request) -> bool:
    return False


async def _no_upgrade(_request: web.Request) -> web.StreamResponse:
    return web.Response(text="upgrade")


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[Listener, web.TCPSite, int]]:
    door = Door()
    probes = Probes(started=lambda: True, ready=lambda: True, reasons=list, trusted=_nobody)
    application = build_application(
        base_path="", upgrade=_no_upgrade, probes=probes, routes=[], guard=lambda _owner, handler: handler, door=door
    )
    runner = Listener(application, door, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner, site, runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def test_a_request_that_comes_after_the_port_is_closed_is_answered() -> None:
    async with listening() as (runner, site, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await site.stop()
        heard_out = asyncio.create_task(runner.hear_out_newcomers())
        # It still waits: the newcomer has said nothing.
        await asyncio.wait({heard_out}, timeout=NEWCOMER_SECONDS / 5)
        assert not heard_out.done()
        writer.write(REQUEST)
        async with asyncio.timeout(SECONDS):
            await heard_out
        await runner.cleanup()
        async with asyncio.timeout(SECONDS):
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_who_says_nothing_is_waited_for_a_quarter_of_a_second_and_no_longer() -> None:
    async with listening() as (runner, site, port):
        silent = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(5)]
        await site.stop()
        begun = time.monotonic()
        async with asyncio.timeout(SECONDS):
            await runner.hear_out_newcomers()
        assert time.monotonic() - begun >= NEWCOMER_SECONDS / 2
        for writer in silent:
            writer.close()
