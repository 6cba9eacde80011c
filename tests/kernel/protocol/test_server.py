"""The server over real sockets: limits, clocks, slow readers, closing."""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web
from pydantic import Field

from openclaw_config.models import GatewayAuth
from openclaw_kernel.api import Access, Call, Encoded, Idempotency, InvalidRequest, Params, Scope, effective_scopes, rpc
from openclaw_kernel.api.audit import AuditEntry
from openclaw_kernel.api.methods import methods_of
from openclaw_kernel.protocol.arrivals import Arrivals
from openclaw_kernel.protocol.auth import Verifier
from openclaw_kernel.protocol.connection import Connection
from openclaw_kernel.protocol.dispatch import Dispatcher
from openclaw_kernel.protocol.handshake import PAGE_SCOPES, Close, Handshakes, Phase
from openclaw_kernel.protocol.limiter import FailureLimiter
from openclaw_kernel.protocol.limits import Limits
from openclaw_kernel.protocol.pages import PageSessions
from openclaw_kernel.protocol.proxy import Proxies
from openclaw_kernel.protocol.registry import MethodRegistry
from openclaw_kernel.protocol.server import GatewayServer
from openclaw_kernel.store.requests import RequestTable
from openclaw_kernel.store.sqlite import SqliteStore
from tests.kernel.declared_events import bus_with_events
from tests.kernel.protocol.transcript import TOKEN, Clock, connect_params, request

pytestmark = pytest.mark.payloads_not_judged("a bare server: its hello and its methods are the test's own")

DEADLINE = 10.0


class KeyParams(Params):
    idempotency_key: str = Field(min_length=1)
    text: str = ""


class Methods:
    """What the clients of these tests call."""

    def __init__(self) -> None:
        self.calls = 0
        self.release = asyncio.Event()
        self.entered = asyncio.Event()

    @rpc("quick", scope=Access.ANYONE, result=dict[str, Any])
    def quick(self, _call: Call) -> Encoded:
        """Answer at once."""
        return Encoded(b'{"quick":true}')

    @rpc("slow", scope=Scope.READ, result=dict[str, Any])
    async def slow(self, call: Call) -> dict[str, Any]:
        """Answer twice, the second time when released."""
        call.respond_early({"status": "accepted"})
        self.entered.set()
        await self.release.wait()
        return {"status": "done"}

    @rpc("once", scope=Scope.WRITE, params=KeyParams, result=dict[str, Any], idempotency=Idempotency.JOIN)
    async def once(self, _call: Call, params: KeyParams) -> dict[str, Any]:
        """Count the calls that came through."""
        self.calls += 1
        number = self.calls
        self.entered.set()
        await self.release.wait()
        if params.text == "fail":
            raise InvalidRequest(f"refused call {number}")
        return {"number": number}

    @rpc("broken", scope=Access.ANYONE, result=dict[str, Any])
    def broken(self, _call: Call) -> dict[str, Any]:
        """Fail."""
        raise KeyError("secret detail")

    @rpc("broken.later", scope=Access.ANYONE, result=dict[str, Any])
    async def broken_later(self, _call: Call) -> dict[str, Any]:
        """Fail in a task."""
        await asyncio.sleep(0)
        raise KeyError("secret detail")

    @rpc("unspeakable", scope=Access.ANYONE, result=dict[str, Any])
    def unspeakable(self, _call: Call) -> object:
        """Return what JSON cannot hold."""
        return object()

    @rpc("unspeakable.error", scope=Access.ANYONE, result=dict[str, Any])
    def unspeakable_error(self, _call: Call) -> object:
        """Fail with details that JSON cannot hold."""
        raise InvalidRequest("told by a plugin", details={"where": object()})

    @rpc("surrogate.error", scope=Access.ANYONE, result=dict[str, Any])
    def surrogate_error(self, _call: Call) -> object:
        """Fail with a file name that is no UTF-8."""
        raise InvalidRequest("told by a plugin: \udce9.txt")

    @rpc("for.nodes", scope=Access.NODE, result=dict[str, Any])
    def for_nodes(self, _call: Call) -> dict[str, Any]:
        """Be for nodes alone."""
        return {}

    @rpc("guarded", scope=Access.ANYONE, result=dict[str, Any], control_plane=True)
    def guarded(self, _call: Call) -> dict[str, Any]:
        """Count against the control-plane limit."""
        return {}


class Served:
    """A server with its bus on a free port."""

    def __init__(self, limits: Limits, store: SqliteStore, proxies: Sequence[str] = ()) -> None:
        self.store = store
        self.methods = Methods()
        self.bus = bus_with_events()
        self.clock = Clock()
        self.phase = Phase.SERVING
        self.connections: list[Connection] = []
        registry = MethodRegistry(("test", method) for method in methods_of(self.methods))
        limiter = FailureLimiter()

        async def save(_text: str, _entry: AuditEntry) -> None:
            """Keep nothing."""

        self.pages = PageSessions(limiter=limiter, now_ms=self.clock, save=save)
        auth = GatewayAuth.model_validate({"mode": "token", "token": TOKEN})
        self.server = GatewayServer(
            registry=registry,
            dispatcher=Dispatcher(
                registry,
                limits=limits,
                now_ms=self.clock,
                phase=lambda: self.phase,
                requests=RequestTable(store, now_ms=self.clock, keep_seconds=limits.dedupe_seconds, limit=limits.dedupe_entries),
            ),
            handshakes=Handshakes(verifier=Verifier(auth, limiter), phase=lambda: self.phase, now_ms=self.clock),
            pages=self.pages,
            limits=limits,
            allowed_origins=lambda: ["https://chat.example.org"],
            hello=lambda _connection: b'{"type":"hello-ok"}',
            opened=self._opened,
            arrivals=Arrivals(Proxies(proxies)),
        )
        self.port = 0

    def _opened(self, connection: Connection) -> Callable[[], None]:
        self.connections.append(connection)
        return self.bus.attach(connection)


@asynccontextmanager
async def serving(**limits: Any) -> AsyncIterator[Served]:
    """A server that is closed at the end."""
    async with open_store() as store, serving_with(store, **limits) as served:
        yield served


@asynccontextmanager
async def open_store() -> AsyncIterator[SqliteStore]:
    """A store in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "state.sqlite3")
        await store.open({})
        try:
            yield store
        finally:
            await store.close()


@asynccontextmanager
async def serving_with(store: SqliteStore, *, proxies: Sequence[str] = (), **limits: Any) -> AsyncIterator[Served]:
    """A server on a store."""
    served = Served(Limits(**limits), store, proxies)
    application = web.Application()
    application.router.add_get("/{tail:.*}", served.server.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    served.port = runner.addresses[0][1]
    try:
        yield served
    finally:
        await site.stop()
        await served.server.close(Close(1012, "service restart"))
        await runner.cleanup()


@asynccontextmanager
async def socket_to(served: Served, **options: Any) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """An upgraded connection before its handshake."""
    async with aiohttp.ClientSession() as http, http.ws_connect(f"ws://127.0.0.1:{served.port}/", max_msg_size=0, **options) as ws:
        yield ws


async def next_frame(ws: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    """The next frame as JSON."""
    message = await ws.receive(DEADLINE)
    assert message.type is WSMsgType.TEXT, message
    frame: dict[str, Any] = json.loads(message.data)
    return frame


async def closed(ws: aiohttp.ClientWebSocketResponse) -> tuple[int | None, str]:
    """Code and reason of the close that comes next."""
    message = await ws.receive(DEADLINE)
    while message.type is WSMsgType.TEXT:
        message = await ws.receive(DEADLINE)
    return ws.close_code, str(message.extra or "")


@asynccontextmanager
async def client_of(served: Served, *scopes: str, **options: Any) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A connected client."""
    async with socket_to(served, **options) as ws:
        assert (await next_frame(ws))["event"] == "connect.challenge"
        await ws.send_str(request("connect", connect_params(scopes=list(scopes))))
        assert (await next_frame(ws))["ok"] is True
        yield ws


async def call(ws: aiohttp.ClientWebSocketResponse, method: str, params: Any = None) -> dict[str, Any]:
    """Send a request and return its response."""
    await ws.send_str(request(method, params, request_id=method))
    while True:
        frame = await next_frame(ws)
        if frame.get("id") == method:
            return frame


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something holds."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - what is waited for is the server's own state, which has no event
            await asyncio.sleep(0.005)


async def test_a_client_connects_and_calls() -> None:
    async with serving() as served, client_of(served) as ws:
        assert (await call(ws, "quick"))["payload"] == {"quick": True}


async def test_a_payload_over_64_kib_before_hello_is_1009() -> None:
    async with serving() as served, socket_to(served) as ws:
        await next_frame(ws)
        await ws.send_str("x" * (65_536 + 2048))
        assert (await closed(ws))[0] == 1009


async def test_a_connect_of_almost_64_kib_is_taken_and_larger_frames_follow() -> None:
    async with serving() as served, socket_to(served) as ws:
        await next_frame(ws)
        await ws.send_str(request("connect", connect_params(scopes=["operator.write"], userAgent="x" * 64_000)))
        assert (await next_frame(ws))["ok"] is True
        answer = await call(ws, "once", {"idempotencyKey": "", "text": "x" * 2_000_000})
        assert "idempotencyKey" in answer["error"]["message"]


async def test_a_payload_over_the_limit_after_hello_is_1009() -> None:
    async with serving(max_payload=100_000) as served, client_of(served) as ws:
        await ws.send_str("x" * 100_001)
        assert (await closed(ws))[0] == 1009


async def test_requests_sent_before_the_answer_to_connect_are_served() -> None:
    async with serving() as served, socket_to(served) as ws:
        await ws.send_str(request("connect", connect_params()))
        await ws.send_str(request("quick", request_id="2"))
        assert (await next_frame(ws))["event"] == "connect.challenge"
        assert (await next_frame(ws))["payload"] == {"type": "hello-ok"}
        assert (await next_frame(ws))["id"] == "2"


async def test_a_silent_handshake_ends_with_a_plain_close() -> None:
    async with serving(handshake_seconds=0.05) as served, socket_to(served) as ws:
        await next_frame(ws)
        assert await closed(ws) == (1000, "")


async def test_a_refused_client_reads_the_error_before_the_close() -> None:
    async with serving() as served, socket_to(served) as ws:
        await next_frame(ws)
        await ws.send_str(request("connect", connect_params(minProtocol=9, maxProtocol=9)))
        assert (await next_frame(ws))["error"]["details"]["code"] == "PROTOCOL_MISMATCH"
        assert await closed(ws) == (1002, "protocol mismatch")


async def test_unauthenticated_sockets_are_bounded_by_address() -> None:
    async with serving(unauthenticated_per_address=3) as served, aiohttp.ClientSession() as http:
        url = f"ws://127.0.0.1:{served.port}/"
        waiting = [await http.ws_connect(url) for _ in range(3)]
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(url)
        assert refused.value.status == 503
        await waiting[0].receive(DEADLINE)
        await waiting[0].send_str(request("connect", connect_params()))
        await waiting[0].receive(DEADLINE)
        # A client that proved itself no longer counts.
        another = await http.ws_connect(url)
        for ws in (*waiting, another):
            await ws.close()


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost.evil.example", "https://chat.example.org.evil", "file://"]
)
async def test_a_foreign_page_is_refused_before_any_frame(origin: str) -> None:
    async with serving() as served, aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(f"ws://127.0.0.1:{served.port}/", headers={"Origin": origin})
        assert refused.value.status == 403
        assert served.connections == []


async def test_a_rebound_host_name_is_refused() -> None:
    async with serving() as served, aiohttp.ClientSession() as http:
        headers = {"Origin": f"http://rebound.example:{served.port}", "Host": f"rebound.example:{served.port}"}
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(f"ws://127.0.0.1:{served.port}/", headers=headers)
        assert refused.value.status == 403


async def test_allowed_and_own_origins_come_in() -> None:
    async with serving() as served:
        for origin in ("https://chat.example.org", f"http://127.0.0.1:{served.port}"):
            async with socket_to(served, headers={"Origin": origin}) as ws:
                assert (await next_frame(ws))["event"] == "connect.challenge"


async def test_the_page_of_a_name_that_a_trusted_proxy_publishes_comes_in() -> None:
    said = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "gateway.example.org"}
    page = {"Origin": "https://gateway.example.org"}
    async with serving(proxies=["127.0.0.1"]) as served, aiohttp.ClientSession() as http:
        async with socket_to(served, headers=said | page) as ws:
            assert (await next_frame(ws))["event"] == "connect.challenge"
        for wrong in ({"X-Forwarded-Proto": "http"}, {"X-Forwarded-Host": "evil.example"}, {"Origin": "https://evil.example"}):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(f"ws://127.0.0.1:{served.port}/", headers=said | page | wrong)
            assert refused.value.status == 403
    async with serving() as served, aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(f"ws://127.0.0.1:{served.port}/", headers=said | page)
        assert refused.value.status == 403


async def test_half_open_upgrades_behind_a_proxy_are_bounded_by_client() -> None:
    async with serving(unauthenticated_per_address=1, proxies=["127.0.0.1"]) as served, aiohttp.ClientSession() as http:
        url = f"ws://127.0.0.1:{served.port}/"
        waiting = [await http.ws_connect(url, headers={"X-Forwarded-For": client}) for client in ("203.0.113.1", "203.0.113.2")]
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(url, headers={"X-Forwarded-For": "198.51.100.7, 203.0.113.1"})
        assert refused.value.status == 503
        for ws in waiting:
            await ws.close()


async def test_calls_of_the_control_plane_behind_a_proxy_are_counted_by_client() -> None:
    async with serving(control_plane_calls=1, proxies=["127.0.0.1"]) as served:
        answers = []
        for client in ("203.0.113.1", "203.0.113.2", "203.0.113.1"):
            async with client_of(served, headers={"X-Forwarded-For": client}) as ws:
                answers.append((await call(ws, "guarded"))["ok"])
        assert answers == [True, True, False]


async def test_pings_are_answered() -> None:
    async with serving() as served, client_of(served, autoping=False) as ws:
        await ws.ping(b"hello")
        message = await ws.receive(DEADLINE)
        assert (message.type, bytes(message.data)) == (WSMsgType.PONG, b"hello")


async def test_the_server_pings_and_cuts_who_does_not_answer() -> None:
    async with serving(ping_seconds=10, pong_seconds=20) as served, client_of(served, autoping=False) as ws:
        served.server.tick(100.0)
        served.server.tick(109.0)
        served.server.tick(110.0)
        assert (await ws.receive(DEADLINE)).type is WSMsgType.PING
        served.server.tick(129.0)
        assert served.server.connections == 1
        served.server.tick(130.0)
        assert (await ws.receive(DEADLINE)).type in {WSMsgType.CLOSED, WSMsgType.ERROR, WSMsgType.CLOSE}
        await until(lambda: served.server.connections == 0)


async def test_an_answered_ping_keeps_the_connection() -> None:
    async with serving(ping_seconds=10, pong_seconds=20) as served, client_of(served) as ws:
        served.server.tick(100.0)
        served.server.tick(110.0)
        # The client's library answers the ping while it waits for the response.
        await call(ws, "quick")
        await until(lambda: served.connections[0]._pinged_at is None)
        served.server.tick(131.0)
        assert (await call(ws, "quick"))["ok"] is True


async def test_broadcasts_are_numbered_for_each_connection_and_filtered_by_scope() -> None:
    async with serving() as served, client_of(served, "operator.read") as reader, client_of(served) as nobody:
        served.bus.broadcast("tick", {"ts": 1})
        served.bus.broadcast("chat", {"text": "hello"})
        served.bus.broadcast("tick", {"ts": 2})
        assert [(await next_frame(reader))["seq"] for _ in range(3)] == [1, 2, 3]
        frames = [await next_frame(nobody) for _ in range(2)]
        assert [(frame["event"], frame["seq"]) for frame in frames] == [("tick", 1), ("tick", 2)]


async def test_topics_and_session_scoped_clients() -> None:
    async with serving() as served, client_of(served, "operator.read") as ws:
        connection = served.connections[0]
        served.bus.broadcast("sessions.changed", {"n": 1}, topics=["sessions"])
        connection.subscribe("sessions")
        served.bus.broadcast("sessions.changed", {"n": 2}, topics=["sessions"])
        assert (await next_frame(ws))["payload"] == {"n": 2}
        served.bus.broadcast("chat", {"n": 3}, exclude=[connection.connection_id])
        served.bus.broadcast("chat", {"n": 4}, connections=[connection.connection_id])
        assert (await next_frame(ws))["payload"] == {"n": 4}
        connection.caps = frozenset({"session-scoped-events"})
        served.bus.broadcast("chat", {"n": 5}, scoped_topic="session:a")
        connection.subscribe("session:a")
        served.bus.broadcast("chat", {"n": 6}, scoped_topic="session:a")
        assert (await next_frame(ws))["payload"] == {"n": 6}


async def stalled_reader(served: Served) -> tuple[socket.socket, asyncio.StreamWriter]:
    """A connected client that will not read any more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=2**16)
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    head = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    writer.write(f"{head}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    body = request("connect", connect_params(scopes=["operator.read"])).encode()
    writer.write(b"\x81\xfe" + len(body).to_bytes(2, "big") + b"\0\0\0\0" + body)
    await until(lambda: served.server.connections == 1)
    transport = writer.transport
    assert isinstance(transport, asyncio.Transport)
    transport.pause_reading()
    return transport.get_extra_info("socket"), writer


async def test_a_slow_consumer_is_closed_and_the_others_are_served() -> None:
    async with serving(max_buffered=1_000_000) as served:
        _, writer = await stalled_reader(served)
        async with client_of(served, "operator.read") as healthy:
            blob = "x" * 100_000
            for number in range(200):
                served.bus.broadcast("chat", {"number": number, "blob": blob}, connections=[served.connections[0].connection_id])
                if served.connections[0].outbound.closing is not None:
                    break
                await asyncio.sleep(0)
            assert served.connections[0].outbound.closing == Close(1008, "slow consumer")
            served.bus.broadcast("chat", {"for": "all"})
            assert (await next_frame(healthy))["payload"] == {"for": "all"}
            await until(lambda: served.server.connections == 1)
        writer.transport.abort()


async def test_what_is_for_one_client_alone_has_no_place_in_the_sequence() -> None:
    async with serving() as served, client_of(served, "operator.read") as ws:
        one = served.connections[0].connection_id
        for options in ({}, {"connections": [one]}, {"connections": [one], "droppable": True}, {}):
            served.bus.broadcast("chat", {}, **options)
        assert [(await next_frame(ws)).get("seq") for _ in range(4)] == [1, None, None, 2]


async def test_droppable_events_leave_a_gap_for_a_slow_reader() -> None:
    async with serving(max_buffered=1_000_000) as served:
        _, writer = await stalled_reader(served)
        slow = served.connections[0]
        while slow.outbound.buffered() <= 1_000_000:
            served.bus.broadcast("cron", {"blob": "x" * 100_000}, droppable=True)
            await asyncio.sleep(0)
            if slow.outbound.buffered() > 900_000:
                break
        before = slow._seq
        for _ in range(50):
            served.bus.broadcast("cron", {"blob": "x" * 100_000}, droppable=True)
        assert slow.outbound.closing is None
        assert slow.outbound.buffered() < 1_300_000
        assert slow._seq == before + 50
        writer.transport.abort()


async def test_two_responses_under_one_id() -> None:
    async with serving() as served, client_of(served, "operator.read") as ws:
        await ws.send_str(request("slow", request_id="s"))
        assert (await next_frame(ws))["payload"] == {"status": "accepted"}
        assert (await call(ws, "quick"))["ok"] is True
        served.methods.release.set()
        final = await next_frame(ws)
        assert (final["id"], final["payload"]) == ("s", {"status": "done"})


async def test_a_repeated_key_joins_and_then_replays() -> None:
    async with serving() as served, client_of(served, "operator.write") as one, client_of(served, "operator.write") as two:
        params = {"idempotencyKey": "k"}
        await one.send_str(request("once", params, request_id="a"))
        await asyncio.wait_for(served.methods.entered.wait(), DEADLINE)
        await two.send_str(request("once", params, request_id="b"))
        assert (await call(two, "quick"))["ok"] is True
        served.methods.release.set()
        assert (await next_frame(one))["payload"] == {"number": 1}
        assert (await next_frame(two))["payload"] == {"number": 1}
        assert (await call(one, "once", params))["payload"] == {"number": 1}
        conflict = await call(one, "once", {"idempotencyKey": "k", "text": "other"})
        assert conflict["error"]["details"]["reason"] == "idempotency-conflict"
        served.clock.now += 604_801_000
        assert (await call(one, "once", params))["payload"] == {"number": 2}


async def test_a_failure_is_replayed_too() -> None:
    async with serving() as served, client_of(served, "operator.write") as ws:
        served.methods.release.set()
        params = {"idempotencyKey": "k", "text": "fail"}
        first = await call(ws, "once", params)
        assert first["error"]["message"] == "refused call 1"
        assert (await call(ws, "once", params))["error"] == first["error"]
        assert served.methods.calls == 1


@pytest.mark.parametrize("method", ["broken", "broken.later", "unspeakable"])
async def test_a_fault_of_a_plugin_is_an_answer_that_names_it(method: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as served, client_of(served) as ws:
        error = (await call(ws, method))["error"]
        assert error["code"] == "UNAVAILABLE"
        assert error["details"] == {"method": method, "plugin": "test"}
        assert "secret detail" not in json.dumps(error)
        assert (await call(ws, "quick"))["ok"] is True
    assert f"method {method} of plugin test failed" in caplog.text


async def test_the_control_plane_limit_says_when_to_retry() -> None:
    async with serving(control_plane_calls=2) as served, client_of(served) as ws:
        assert [(await call(ws, "guarded"))["ok"] for _ in range(3)] == [True, True, False]
        error = (await call(ws, "guarded"))["error"]
        assert error["message"] == "rate limit exceeded for guarded; retry after 60s"
        assert (error["code"], error["retryable"], error["retryAfterMs"]) == ("UNAVAILABLE", True, 60_000)
        served.clock.now += 60_000
        assert (await call(ws, "guarded"))["ok"] is True


async def test_a_draining_gateway_refuses_new_calls() -> None:
    async with serving() as served, client_of(served) as ws:
        served.phase = Phase.DRAINING
        error = (await call(ws, "quick"))["error"]
        assert error["details"] == {"method": "quick", "reason": "gateway-restarting", "phase": "draining"}
        assert error["retryAfterMs"] == 1000


async def test_closing_the_server_tells_every_client_and_waits_for_none() -> None:
    async with serving(close_seconds=0.2) as served:
        _, writer = await stalled_reader(served)
        async with client_of(served) as ws, socket_to(served) as half_open:
            closing = served.server.close(Close(1012, "service restart"))
            _, *ends = await asyncio.gather(closing, closed(ws), closed(half_open))
            assert ends == [(1012, "service restart")] * 2
        await until(lambda: served.server.connections == 0)
        writer.transport.abort()


async def test_the_socket_ends_when_the_client_has_answered_the_close_and_not_before() -> None:
    async with serving(close_seconds=DEADLINE) as served, client_of(served) as ws:
        served.connections[0].outbound.close(Close(4001, "client invalidated: removed"))
        # The frame is on its way and the client, which reads nothing yet, has all the time to answer it.
        await until(lambda: bool(ws._reader._buffer))
        assert ws._conn is not None
        transport = ws._conn.transport
        assert transport is not None
        assert not transport.is_closing()
        assert (await closed(ws)) == (4001, "client invalidated: removed")
        await until(transport.is_closing)
        await until(lambda: served.server.connections == 0)


async def test_a_lost_client_ends_its_calls() -> None:
    async with serving() as served:
        async with client_of(served, "operator.read") as ws:
            await ws.send_str(request("slow"))
            await asyncio.wait_for(served.methods.entered.wait(), DEADLINE)
        await until(lambda: served.server.connections == 0)
        assert not [task for task in asyncio.all_tasks() if "connection/" in task.get_name()]


async def test_one_time_codes_open_a_session_once() -> None:
    async with serving() as served:
        host = f"127.0.0.1:{served.port}"
        code, expires = served.pages.mint_code()
        assert expires == served.clock.now + 600_000

        def asking(origin: str | None = f"http://{host}") -> Any:
            headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
            return aiohttp_request(headers)

        for foreign in (None, "http://127.0.0.1:1", "http://evil.example"):
            with pytest.raises(InvalidRequest, match="is not this gateway's page"):
                await served.pages.exchange(asking(foreign), code)
        cookie = await served.pages.exchange(asking(), code)
        assert cookie
        assert await served.pages.exchange(asking(), code) is None
        assert served.pages.grant({"openclaw_session": cookie}, f"http://{host}", host) is not None
        assert served.pages.grant({"openclaw_session": cookie}, "http://127.0.0.1:1", host) is None
        assert served.pages.grant({"openclaw_session": "other"}, f"http://{host}", host) is None
        headers = {"Origin": f"http://{host}", "Cookie": f"openclaw_session={cookie}"}
        async with socket_to(served, headers=headers) as ws:
            await next_frame(ws)
            params = connect_params("webchat-ui", "webchat", auth={}, scopes=["operator.admin", "operator.write"])
            await ws.send_str(request("connect", params))
            assert (await next_frame(ws))["ok"] is True
        assert effective_scopes(served.connections[0].scopes) == effective_scopes(PAGE_SCOPES)
        late, _ = served.pages.mint_code()
        served.clock.now += 600_001
        assert await served.pages.exchange(asking(), late) is None


def aiohttp_request(headers: dict[str, str]) -> web.Request:
    """A request as the listener would see it."""
    from aiohttp.test_utils import make_mocked_request

    return make_mocked_request("POST", "/auth/exchange", headers=headers)
