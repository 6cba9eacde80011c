"""What clients notice of a restart: how long one that is connected is away, and how long the slowest of many callers waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import aiohttp

from tests.bench import load

_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
_PAUSE_SECONDS = 0.01


async def away_seconds(url: str, times: int) -> list[float]:
    """Of each restart, from the close with 1012 to the next hello-ok, by a client that comes back at once."""
    taken = []
    async with aiohttp.ClientSession() as http:
        for _ in range(times):
            ws = await load.connected(http, url)
            await ws.send_str(load.frame("gateway.restart.request", {}))
            async for _frame in ws:
                pass
            assert ws.close_code == 1012, ws.close_code
            begun = time.perf_counter()
            await (await load.connected(http, url)).close()
            taken.append(time.perf_counter() - begun)
    return taken


async def called(port: int, ended: Callable[[], bool]) -> tuple[list[float], int]:
    """How long each of many callers waited for its answer, and how many got none."""
    waited, lost = [], 0
    while not ended():
        begun = time.perf_counter()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(_REQUEST)
            answer = await reader.read()
            writer.close()
        except OSError:
            answer = b""
        lost += not answer.startswith(b"HTTP/1.1 200")
        waited.append(time.perf_counter() - begun)
        await asyncio.sleep(_PAUSE_SECONDS)
    return waited, lost
