"""Peers that mean harm, in a process of their own: `python -m tests.bench.abuse PORT KIND` works until it is stopped.

It prints one line of JSON once the gateway is under its load.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import aiohttp

from tests.bench.load import connected, frame

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
PEERS = 1_000
ADDRESSES = 40
READY = json.dumps({"ready": True})


async def half_open(port: int) -> None:
    """1,000 upgrades whose clients say nothing more; who is let go comes again."""
    places = asyncio.Semaphore(PEERS)
    number = 0
    while True:
        await places.acquire()
        number += 1
        task = asyncio.create_task(_silent(port, f"127.0.9.{1 + number % ADDRESSES}"))
        task.add_done_callback(lambda _task: places.release())
        if number == PEERS:
            print(READY, flush=True)
        if number > PEERS:
            # A flood, but not one that only measures how fast this machine opens sockets.
            await asyncio.sleep(0.005)


async def _silent(port: int, address: str) -> None:
    with suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
        try:
            writer.write(UPGRADE)
            while await reader.read(4096):
                pass
        finally:
            writer.close()


async def slow_loris(port: int) -> None:
    """300 requests whose heads come a byte at a time and never end."""
    writers = []
    for number in range(300):
        _, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(f"127.0.8.{1 + number % 10}", 0))
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\n")
        writers.append(writer)
    print(READY, flush=True)
    while True:
        for writer in writers:
            writer.write(b"x")
            await asyncio.sleep(0.002)


async def talk(port: int, stalled_readers: int = 0) -> None:
    """Turns, ten a second, and so many clients that hear of each and read nothing."""
    async with aiohttp.ClientSession() as http:
        url = f"ws://127.0.0.1:{port}/"
        talker = await connected(http, url, caps=["session-scoped-events"])
        for _ in range(stalled_readers):
            stalled = await connected(http, url)
            # As many answers as the socket holds; the client looks at none of them.
            for number in range(2_000):
                await stalled.send_str(frame("system-presence", request_id=str(number)))
        print(READY, flush=True)
        number = 0
        while True:
            number += 1
            params = {"sessionKey": f"stalled-{number}", "message": "word " * 2_000, "idempotencyKey": f"stalled-{number}"}
            await talker.send_str(frame("chat.send", params))
            await talker.receive()
            await asyncio.sleep(0.1)


KINDS: dict[str, Callable[[int], Awaitable[None]]] = {
    "talk": talk,
    "half-open": half_open,
    "slow-loris": slow_loris,
    "stalled-readers": partial(talk, stalled_readers=10),
}

if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(KINDS[sys.argv[2]](int(sys.argv[1])))  # type: ignore[arg-type]
