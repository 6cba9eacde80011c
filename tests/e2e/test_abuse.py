"""Peers that mean harm or do not read: the gateway stays small, serves the others, and has nothing in its log (S2, S16)."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.support.gateway import RunningGateway
from tests.support.ws_client import WsClient, connect

DEADLINE: Final = 30.0
MOST_GROWTH_KB: Final = 16 * 1024
UPGRADE: Final = (
    "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
HALF_OPEN_BY_ADDRESS: Final = 32
STRANGERS: Final = 512
MOST_ENTRIES: Final = 190
BROADCASTS: Final = 90

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def memory_kb(gateway: RunningGateway, field: str) -> int:
    """A figure of the gateway's process: VmRSS is now, VmHWM the most since it was last forgotten."""
    text = Path(f"/proc/{gateway.process.pid}/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith(field)))


@asynccontextmanager
async def small(gateway: RunningGateway) -> AsyncIterator[None]:
    """What happens inside must not cost the gateway more than 16 MB, not even for a moment."""
    async with gateway.connect() as client:
        # What is imported and cached on first use is none of it.
        for _ in range(20):
            await client.request("health")
    before = memory_kb(gateway, "VmRSS")
    Path(f"/proc/{gateway.process.pid}/clear_refs").write_text("5", encoding="ascii")
    yield
    grown = memory_kb(gateway, "VmHWM") - before
    assert grown <= MOST_GROWTH_KB, f"{grown} kB more than the {before} kB before"


@asynccontextmanager
async def opened(port: int, address: str, *, limit: int = 65_536) -> AsyncIterator[Stream]:
    """A connection from one of this machine's loopback addresses."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0), limit=limit)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


def port_of(gateway: RunningGateway) -> int:
    """Where it listens."""
    return int(gateway.url.rpartition(":")[2].partition("/")[0])


async def is_cut(reader: asyncio.StreamReader) -> bool:
    """Whether the gateway ends the connection; what it sent before is read."""
    try:
        async with asyncio.timeout(DEADLINE):
            while await reader.read(65_536):
                pass
    except ConnectionError:
        pass
    return True


async def test_half_open_upgrades_by_the_thousand_keep_nobody_out(gateway: RunningGateway) -> None:
    """S16: 1,000 upgrades that never say who they are, from 40 addresses; who was there stays, who comes gets in."""
    port = port_of(gateway)
    async with AsyncExitStack() as stack, gateway.connect() as known, small(gateway):

        async def half_open(address: str) -> Stream | None:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                reader, writer = await stack.enter_async_context(opened(port, address))
                writer.write(UPGRADE.format(port=port).encode())
                head = await reader.readuntil(b"\r\n\r\n")
                return (reader, writer) if head.startswith(b"HTTP/1.1 101") else None
            return None

        answers = await asyncio.gather(*[half_open(f"127.0.1.{1 + number % 40}") for number in range(1_000)])
        admitted = [answer for answer in answers if answer is not None]
        # 25 from each address are fewer than one address may have; all together are more than there are places.
        assert len(admitted) >= STRANGERS // 2
        assert (await known.request("health"))["ok"]
        async with gateway.connect() as newcomer:
            assert (await newcomer.request("health"))["ok"]
    gateway.assert_no_errors()


async def test_one_address_gets_no_more_than_its_share(gateway: RunningGateway) -> None:
    port = port_of(gateway)
    async with AsyncExitStack() as stack:
        heads = []
        for _ in range(HALF_OPEN_BY_ADDRESS + 1):
            reader, writer = await stack.enter_async_context(opened(port, "127.0.2.1"))
            writer.write(UPGRADE.format(port=port).encode())
            heads.append((await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1])
        assert heads == [b"101"] * HALF_OPEN_BY_ADDRESS + [b"503"]


async def test_slow_requests_do_not_slow_the_others(gateway: RunningGateway) -> None:
    """S16: heads that arrive byte by byte and bodies that never end hold a place each, and nothing else."""
    port = port_of(gateway)
    async with AsyncExitStack() as stack, gateway.connect() as known, small(gateway):
        writers = []
        for number in range(300):
            _, writer = await stack.enter_async_context(opened(port, f"127.0.3.{1 + number % 10}"))
            writer.write(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n")
            writers.append(writer)
        for byte in b"X-Slow: 12345\r\n":
            for writer in writers:
                writer.write(bytes([byte]))
            assert (await known.request("health"))["ok"]
        async with gateway.connect() as newcomer:
            assert (await newcomer.request("health"))["ok"]
    gateway.assert_no_errors()


async def test_what_is_sent_before_hello_is_not_kept(gateway: RunningGateway) -> None:
    """S16: a gigabyte promised by each of 30 connections before anybody said who he is costs the bytes of one packet."""
    port = port_of(gateway)
    block = b"x" * 65_536
    async with small(gateway):

        async def flood(number: int) -> bool:
            async with opened(port, f"127.0.4.{1 + number % 10}") as (reader, writer):
                writer.write(UPGRADE.format(port=port).encode())
                await reader.readuntil(b"\r\n\r\n")
                # One masked text frame that says it is a gigabyte long.
                writer.write(b"\x81\xff" + (1 << 30).to_bytes(8, "big") + b"\0\0\0\0")
                with suppress(ConnectionError):
                    for _ in range(160):
                        writer.write(block)
                        await writer.drain()
                return await is_cut(reader)

        assert all(await asyncio.gather(*[flood(number) for number in range(30)]))
    gateway.assert_no_errors()


async def test_a_body_of_a_gigabyte_is_not_read(gateway: RunningGateway) -> None:
    """S16: a body over the limit is refused by what it says, and cut where it does not say."""
    async with small(gateway), aiohttp.ClientSession(gateway.url) as http:

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(16_384):
                yield b"x" * 65_536

        for path in ("/session", "/nowhere", "/healthz"):
            with suppress(aiohttp.ClientError):
                async with http.post(path, data=endless()) as answer:
                    assert answer.status >= 400
    gateway.assert_no_errors()


async def test_a_client_that_does_not_read_costs_little_and_the_others_miss_nothing(gateway: RunningGateway) -> None:
    """A stalled reader is let go before it costs 16 MB; who reads gets every event."""
    # The recorder judges the frames; once more for each here would take longer than all the rest.
    async with AsyncExitStack() as stack, connect(gateway.ws_url, token=gateway.token, validate=False) as reading:
        # The list that is broadcast grows to its full length first.
        for number in range(MOST_ENTRIES):
            await reading.request("system-event", entry(number))
        await told(reading)
        await stack.enter_async_context(small(gateway))
        reader, writer = await stack.enter_async_context(opened(port_of(gateway), "127.0.0.1", limit=4096))
        await say_hello(reader, writer, gateway)
        for number in range(BROADCASTS):
            await reading.request("system-event", entry(number))
            await told(reading)
        assert await is_cut(reader)
    gateway.assert_no_errors()


def entry(number: int) -> dict[str, Any]:
    """A long entry of the presence list, another each time."""
    words = dict.fromkeys(("host", "version", "platform", "deviceFamily", "modelIdentifier", "mode", "reason"), "word " * 40)
    return {"text": f"{uuid.uuid4()}", "instanceId": f"entry-{number % MOST_ENTRIES}", **words}


async def told(client: WsClient) -> None:
    """Wait for the list, which is broadcast a moment after it changed."""
    await client.expect_event("presence")
    # This process has a memory, too.
    client.events.clear()


async def say_hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gateway: RunningGateway) -> None:
    """Connect as a client named `stalled`, read its hello and nothing after it."""
    writer.write(UPGRADE.format(port=port_of(gateway)).encode())
    await reader.readuntil(b"\r\n\r\n")
    params = {
        "minProtocol": 4,
        "maxProtocol": 4,
        "client": {"id": "gateway-client", "version": "1", "platform": "stalled", "mode": "backend"},
        "scopes": ["operator.read"],
        "auth": {"token": gateway.token},
    }
    body = json.dumps({"type": "req", "id": "1", "method": "connect", "params": params}).encode()
    writer.write(b"\x81\xfe" + len(body).to_bytes(2, "big") + b"\0\0\0\0" + body)
    await reader.readuntil(b'"type":"hello-ok"')
