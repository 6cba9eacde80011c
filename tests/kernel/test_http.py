"""The listener over real sockets: what strangers may cost, what they may read, probes and routes."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from openclaw_kernel.api import HttpRoute
from openclaw_kernel.http import Door, Listener, Probes, build_application
from openclaw_kernel.protocol.arrivals import Arrivals
from openclaw_kernel.protocol.proxy import Proxies

DEADLINE = 10.0


async def upgraded(request: web.Request) -> web.StreamResponse:
    """Stands for the WebSocket server."""
    return web.Response(text=f"upgrade of {request.path}")


async def echo(request: web.Request) -> web.StreamResponse:
    """A route that reads its body."""
    return web.Response(body=await request.read())


async def trusts_alice(request: web.Request) -> bool:
    """Only one caller is told the reasons."""
    return request.headers.get("Authorization") == "Bearer alice"


@asynccontextmanager
async def listening(
    *more: HttpRoute,
    door: Door | None = None,
    ready: bool = True,
    idle_seconds: float = 30.0,
    body_seconds: float = 30.0,
    arrivals: Arrivals | None = None,
) -> AsyncIterator[int]:
    """A listener with a route that echoes; its port."""
    probes = Probes(started=lambda: ready, ready=lambda: ready, reasons=lambda: ["plugin x is degraded"], trusted=trusts_alice)

    def unguarded(
        _owner: str, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        return handler

    routes = [("test", route) for route in (HttpRoute(method="POST", path="/echo", handler=echo), *more)]
    application = build_application(
        base_path="/base",
        upgrade=upgraded,
        probes=probes,
        routes=routes,
        guard=unguarded,
        body_seconds=body_seconds,
        arrivals=arrivals,
        door=door,
    )
    runner = Listener(application, door or Door(), idle_seconds=idle_seconds, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """Everything until the other end closes."""
    async with asyncio.timeout(DEADLINE):
        return await reader.read()


async def test_the_probes_answer_under_the_base_path_with_and_without_the_z() -> None:
    async with listening() as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        for path in ("/base/healthz", "/base/health"):
            async with http.get(path) as answer:
                assert (answer.status, await answer.json()) == (200, {"ok": True, "status": "live"})
            async with http.head(path) as answer:
                assert answer.status == 200
        async with http.get("/healthz") as answer:
            assert answer.status == 404


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
async def test_reasons_are_for_those_who_proved_themselves(ready: bool, status: int) -> None:
    async with listening(ready=ready) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        for path in ("/base/readyz", "/base/startupz"):
            async with http.get(path) as answer:
                assert answer.status == status
                assert "degraded" not in await answer.text()
            async with http.get(path, headers={"Authorization": "Bearer alice"}) as answer:
                assert answer.status == status
                assert (await answer.json())["reasons"] == ["plugin x is degraded"]


async def test_any_path_is_upgraded() -> None:
    async with listening() as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        for path in ("/", "/base/healthz", "/anything/else"):
            async with http.get(path, headers={"Upgrade": "WebSocket", "Connection": "Upgrade"}) as answer:
                assert await answer.text() == f"upgrade of {path}"


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /base/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"DELETE /base/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /base/healthz HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nbad header line\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(200)) + b"\r\n",
        b"GET / HTTP/1.1\r\nX-Long: " + b"y" * 20_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"POST /base/echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    ],
)
async def test_no_answer_names_product_or_version_and_none_fills_the_log(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with listening() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            answer = (await rest_of(reader)).lower()
            writer.close()
    assert answer.startswith(b"http/1.")
    assert b"x-content-type-options: nosniff" in answer
    for name in (b"aiohttp", b"python", b"openclaw", b"traceback"):
        assert name not in answer
    assert caplog.records == []


async def test_a_body_over_the_limit_is_413() -> None:
    async with listening() as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        async with http.post("/base/echo", data=io.BytesIO(b"x" * 1_048_576)) as answer:
            assert answer.status == 200
        async with http.post("/base/echo", data=io.BytesIO(b"x" * 1_048_577)) as answer:
            assert answer.status == 413


async def test_a_head_that_does_not_come_to_its_end_is_cut() -> None:
    door = Door()
    async with listening(idle_seconds=0.2, door=door) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert await rest_of(reader) == b""
        writer.close()
        silent, other = await asyncio.open_connection("127.0.0.1", port)
        assert await rest_of(silent) == b""
        other.close()
        await until(lambda: door.strangers == 0)


async def test_a_body_that_does_not_come_to_its_end_is_408() -> None:
    async with listening(body_seconds=0.2) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /base/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        async with asyncio.timeout(DEADLINE):
            assert (await reader.readline()).startswith(b"HTTP/1.1 408")
        writer.close()


async def test_a_handler_may_take_longer_than_its_body(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await request.read()
        await asyncio.sleep(0.3)
        return web.Response(text="done")

    monkeypatch.setitem(globals(), "echo", slow)
    async with (
        listening(body_seconds=0.1) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
        http.post("/base/echo", data=b"x") as answer,
    ):
        assert await answer.text() == "done"


async def test_a_peer_that_left_before_its_upgrade_is_no_fault_of_ours(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="openclaw.http")
    entered = asyncio.Event()

    async def late(request: web.Request) -> web.StreamResponse:
        entered.set()
        await until(lambda: request.transport is None)
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        return ws

    monkeypatch.setitem(globals(), "upgraded", late)
    async with listening() as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        async with asyncio.timeout(DEADLINE):
            await entered.wait()
        writer.transport.abort()
        await until(lambda: "left before its answer" in caplog.text)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_connection_of_the_handler_s_own_that_fails_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def upstream_gone(_request: web.Request) -> web.StreamResponse:
        raise ConnectionResetError("the server behind")

    monkeypatch.setitem(globals(), "echo", upstream_gone)
    async with (
        listening() as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
        http.post("/base/echo", data=b"x") as answer,
    ):
        assert answer.status == 500
    assert [record.levelno for record in caplog.records if "cannot be served" in record.getMessage()] == [logging.ERROR]


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something holds."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


async def served(port: int) -> bool:
    """Whether a new connection gets an answer; one that is cut has none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /base/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return await rest_of(reader) != b""
    except ConnectionError:
        return False
    finally:
        writer.close()


async def test_strangers_are_bounded_from_the_moment_they_are_accepted() -> None:
    door = Door(limit=100, limit_per_address=3)
    async with listening(door=door) as port:
        waiting = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        await until(lambda: door.strangers == 3)
        assert not await served(port)
        for _, writer in waiting:
            writer.close()
        await until(lambda: door.strangers == 0)
        assert await served(port)


def stay() -> None:
    """Fail: this connection has no reason to make room."""
    raise AssertionError


def test_the_door_counts_by_address_and_forgets_who_proved_itself() -> None:
    door = Door(limit=100, limit_per_address=2)
    one, two, three, four = object(), object(), object(), object()
    assert door.enter(one, "203.0.113.1", stay)
    assert door.enter(two, "203.0.113.1", stay)
    assert not door.enter(three, "203.0.113.1", stay)
    door.release(one)
    assert door.enter(three, "203.0.113.1", stay)
    assert door.enter(four, "2001:db8::1", stay)
    assert door.enter(object(), "2001:db8::2", stay)
    # One host has the whole /64.
    assert not door.enter(object(), "2001:db8::3", stay)
    door.release(two)
    door.release(two)
    assert door.strangers == 3


def test_who_comes_with_many_makes_room_for_who_comes_with_fewer() -> None:
    door = Door(limit=4, limit_per_address=3)
    cut: list[str] = []
    for name in ("first", "second", "third"):
        assert door.enter(name, "203.0.113.1", lambda name=name: cut.append(name))  # type: ignore[misc]
    assert door.enter("other", "203.0.113.2", stay)
    assert door.enter("new", "203.0.113.3", stay)
    assert cut == ["first"]
    assert door.strangers == 4
    assert door.enter("newer", "203.0.113.3", stay)
    assert cut == ["first", "second"]
    assert not door.enter("newest", "203.0.113.3", stay)
    assert cut == ["first", "second"]


def test_a_flood_from_everywhere_keeps_nobody_out() -> None:
    door = Door(limit=4, limit_per_address=3)
    cut: list[int] = []
    for number in range(4):
        assert door.enter(number, f"198.51.100.{number}", lambda number=number: cut.append(number))  # type: ignore[misc]
    assert door.enter("honest", "203.0.113.1", stay)
    assert cut == [0]


def test_connections_of_a_proxy_are_counted_by_its_clients() -> None:
    door = Door(limit=100, limit_per_address=2, is_proxy=lambda address: address == "10.0.0.5")
    one, two, three, four = object(), object(), object(), object()
    for connection in (one, two, three, four):
        assert door.enter(connection, "10.0.0.5", stay)
    assert door.move(one, "203.0.113.1")
    assert door.move(one, "203.0.113.1")
    assert door.move(two, "203.0.113.1")
    assert not door.move(three, "203.0.113.1")
    assert door.move(four, "203.0.113.2")
    assert door.strangers == 4
    for connection in (one, two, three, four):
        door.release(connection)
    assert door.move(one, "203.0.113.1")
    assert door.strangers == 0


async def test_handlers_behind_a_trusted_proxy_see_what_the_client_used() -> None:
    async def tell(request: web.Request) -> web.Response:
        return web.json_response([request.remote, request.host, request.scheme])

    said = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "chat.example.org"}
    for listed in (True, False):
        arrivals = Arrivals(Proxies(["127.0.0.1"] if listed else []))
        route = HttpRoute(method="GET", path="/tell", handler=tell)
        async with listening(route, arrivals=arrivals) as port, aiohttp.ClientSession() as http:
            async with http.get(f"http://127.0.0.1:{port}/base/tell", headers=said) as response:
                found = await response.json()
            assert found == (["203.0.113.9", "chat.example.org", "https"] if listed else ["127.0.0.1", f"127.0.0.1:{port}", "http"])


async def test_one_client_of_a_proxy_with_too_many_connections_is_told_so_and_the_others_are_served() -> None:
    arrivals = Arrivals(Proxies(["127.0.0.1"]))
    door = Door(limit_per_address=2, is_proxy=arrivals.proxies.knows)

    async def ask(client: str) -> tuple[int, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /base/healthz HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {client}\r\n\r\n".encode())
        return int((await asyncio.wait_for(reader.readline(), DEADLINE)).split()[1]), writer

    async with listening(door=door, arrivals=arrivals) as port:
        answers = [await ask(client) for client in ("203.0.113.1", "203.0.113.1", "203.0.113.1", "203.0.113.2")]
        assert [status for status, _ in answers] == [200, 200, 503, 200]
        for _, writer in answers:
            writer.close()
        await until(lambda: door.strangers == 0)
