"""The port with TLS, against strangers: silent ones, ones that speak something else, and browsers."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from openclaw_config.models import GatewayTls
from openclaw_kernel.http import HSTS, Door
from openclaw_kernel.tls.files import TlsFiles
from openclaw_kernel.tls.keeper import ServedContext
from openclaw_kernel.tls.pair import load
from tests.kernel.tls import listener
from tests.kernel.tls.listener import DEADLINE
from tests.support.certificates import Issued, trust

NAMED = GatewayTls.model_validate({"enabled": True, "certPath": "cert.pem", "keyPath": "key.pem"})


@asynccontextmanager
async def listening(home: Path, door: Door | None = None, *, handshake_seconds: float = 10.0) -> AsyncIterator[int]:
    """A port with TLS and the probes."""
    Issued.make().write(home)
    context = ServedContext(load(TlsFiles.of(NAMED, home)).context)
    async with listener.listening(context, door or Door(), handshake_seconds=handshake_seconds) as port:
        yield port


async def until_gone(reader: asyncio.StreamReader) -> bytes:
    """What comes until the other end closes."""
    async with asyncio.timeout(DEADLINE):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


async def test_who_never_speaks_is_counted_at_the_door_and_gone_after_its_time(tmp_path: Path) -> None:
    door = Door(limit_per_address=3)
    async with listening(tmp_path, door, handshake_seconds=0.5) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        # The fourth is cut at once: the door knows of the three although none has sent a byte.
        assert await until_gone(reader) == b""
        writer.close()
        assert door.strangers == 3
        for reader, _ in silent:
            assert await until_gone(reader) == b""
        await listener.until(lambda: door.strangers == 0)
        for _, writer in silent:
            writer.close()
        async with aiohttp.ClientSession() as http, http.get(f"https://127.0.0.1:{port}/healthz", ssl=trust(None)) as answer:
            assert answer.status == 200


async def test_a_connection_is_counted_once_and_out_when_it_ends(tmp_path: Path) -> None:
    door = Door()
    async with listening(tmp_path, door) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust(None))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert door.strangers == 1
        writer.transport.abort()
        await listener.until(lambda: door.strangers == 0)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00" * 4096,
        b"\x16\x03\x01\xff\xff" + b"x" * 70_000,
        b"",
        b"SSH-2.0-probe\r\n",
    ],
    ids=["http", "zeros", "a huge hello", "nothing", "ssh"],
)
async def test_what_speaks_no_tls_is_cut_and_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture, sent: bytes) -> None:
    asyncio.get_running_loop().set_debug(False)
    async with listening(tmp_path) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        writer.write_eof()
        answer = await until_gone(reader)
        writer.close()
        assert b"HTTP/" not in answer
        async with aiohttp.ClientSession() as http, http.get(f"https://127.0.0.1:{port}/healthz", ssl=trust(None)) as good:
            assert good.status == 200
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_old_protocols_are_refused(tmp_path: Path) -> None:
    async with listening(tmp_path) as port:
        context = trust(None)
        with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", port, ssl=context)
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust(None))
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        writer.close()


@pytest.mark.parametrize(("host", "bound"), [("gateway.test", True), ("localhost", False), ("127.0.0.1:1", False)])
async def test_browsers_are_bound_to_tls_under_names_of_its_own_alone(tmp_path: Path, host: str, bound: bool) -> None:
    async with (
        listening(tmp_path) as port,
        aiohttp.ClientSession() as http,
        http.get(f"https://127.0.0.1:{port}/healthz", ssl=trust(None), headers={"Host": host}) as answer,
    ):
        assert answer.headers.get("Strict-Transport-Security") == (HSTS if bound else None)


async def test_a_client_that_resets_in_its_handshake_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    door = Door()
    async with listening(tmp_path, door) as port:
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            raw.sendall(b"\x16\x03\x01\x00\xc8\x01")
        await listener.until(lambda: door.strangers == 0)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
