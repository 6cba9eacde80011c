"""What a client may send without harm to the gateway: before its hello, and as one that is known."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from openclaw_kernel.protocol.handshake import Close
from tests.kernel.protocol.test_server import DEADLINE, Served, closed, next_frame, serving, socket_to, until
from tests.kernel.protocol.transcript import Gate, connect_params, refused, request

pytestmark = pytest.mark.payloads_not_judged("a bare server: its hello and its methods are the test's own")

RECEIVE_BUFFER = 65_536
UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"


def frame_of(body: bytes, *, opcode: int = 1, fin: bool = True) -> bytes:
    """A masked frame, its mask all zeros."""
    head = bytes([(0x80 if fin else 0) | opcode])
    if len(body) < 126:
        length = bytes([0x80 | len(body)])
    elif len(body) < 65_536:
        length = b"\xfe" + len(body).to_bytes(2, "big")
    else:
        length = b"\xff" + len(body).to_bytes(8, "big")
    return head + length + b"\0\0\0\0" + body


@asynccontextmanager
async def raw(served: Served, first: bytes = b"") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection whose upgrade and `first` go out in one write."""
    # What its kernel takes off the server unread has a bound: else it grows to what the machine allows, which may be all that is sent.
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", served.port))
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        writer.write(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n{UPGRADE}\r\n".encode() + first)
        await reader.readuntil(b"\r\n\r\n")
        yield reader, writer
    finally:
        writer.transport.abort()


async def close_code(reader: asyncio.StreamReader) -> int:
    """The code of the close frame that ends the connection; short frames only."""
    async with asyncio.timeout(DEADLINE):
        while True:
            opcode, length = await reader.readexactly(2)
            if length == 126:
                length = int.from_bytes(await reader.readexactly(2), "big")
            body = await reader.readexactly(length)
            if opcode & 0xF == 8:
                return int.from_bytes(body[:2], "big")


def connect_of(size: int) -> bytes:
    """A right connect request of exactly this many bytes."""
    short = request("connect", connect_params(userAgent=""))
    return request("connect", connect_params(userAgent="x" * (size - len(short)))).encode()


@pytest.mark.parametrize(("size", "taken"), [(65_535, True), (65_536, True), (65_537, False), (65_536 + 1000, False), (200_000, False)])
async def test_the_limit_before_hello_is_exact_even_in_one_packet_with_the_upgrade(size: int, taken: bool) -> None:
    async with serving() as served, raw(served, frame_of(connect_of(size))) as (reader, _):
        if taken:
            await until(lambda: served.server.connections == 1)
        else:
            assert await close_code(reader) == 1009
            assert served.connections == []


async def test_fragments_before_hello_are_counted_together() -> None:
    async with serving() as served, raw(served) as (reader, writer):
        writer.write(frame_of(b"x" * 40_000, fin=False))
        for _ in range(5):
            writer.write(frame_of(b"x" * 40_000, opcode=0, fin=False))
        assert await close_code(reader) == 1009


async def test_a_flood_of_pings_before_hello_ends_the_connection() -> None:
    async with serving() as served, raw(served) as (reader, writer):
        writer.write(frame_of(b"y" * 100, opcode=9) * 1000)
        assert await close_code(reader) == 1009


async def test_who_pings_and_does_not_read_is_owed_one_pong() -> None:
    """S16: an empty pong weighs nothing in what is buffered, so thousands of them must not wait there."""
    hello = frame_of(request("connect", connect_params(scopes=["operator.read"])).encode())
    async with serving(max_buffered_events=20_000_000) as served, raw(served, hello) as (reader, writer):
        await until(lambda: served.server.connections == 1)
        # More than the buffers of a socket hold.
        served.bus.broadcast("chat", {"blob": "x" * 16_000_000})
        writer.write(frame_of(b"", opcode=9) * 20_000 + frame_of(b"newest", opcode=9) + frame_of(request("slow").encode()))
        async with asyncio.timeout(DEADLINE):
            await served.methods.entered.wait()
        sent = [await next_raw_frame(reader) for _ in range(5)]
        assert [opcode for opcode, _ in sent[:3]] == [1, 1, 1], "challenge, hello, event"
        assert (10, b"newest") in sent[3:]
        assert {opcode for opcode, _ in sent[3:]} == {1, 10}


async def test_who_asks_and_does_not_read_is_not_heard_until_he_reads() -> None:
    """S16: answers wait up to a bound, and the rest of the questions waits in the client's own socket; none is lost."""
    hello = frame_of(request("connect", connect_params()).encode())
    async with serving(unread_answers=300_000) as served, raw(served, hello) as (reader, writer):
        await until(lambda: served.server.connections == 1)
        outbound = served.connections[0].outbound
        question = "x" * 100_000
        for number in range(200):
            writer.write(frame_of(json.dumps({"type": "req", "id": f"{number} {question}", "method": "quick"}).encode()))
        await until(outbound.is_behind)
        heard = 2
        while heard < 202:
            assert outbound.buffered() < 1_000_000
            opcode, _ = await next_raw_frame(reader)
            heard += opcode == 1
        assert not outbound.is_behind()


async def test_who_asks_and_leaves_without_reading_is_forgotten() -> None:
    hello = frame_of(request("connect", connect_params()).encode())
    async with serving(unread_answers=300_000) as served, raw(served, hello) as (_, writer):
        await until(lambda: served.server.connections == 1)
        outbound = served.connections[0].outbound
        for _ in range(200):
            writer.write(frame_of(json.dumps({"type": "req", "id": "x" * 100_000, "method": "quick"}).encode()))
        await until(outbound.is_behind)
        writer.transport.abort()
        await until(lambda: served.server.connections == 0)


async def next_raw_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Opcode and body of the frame that comes next."""
    async with asyncio.timeout(DEADLINE):
        opcode, length = await reader.readexactly(2)
        if length > 125:
            length = int.from_bytes(await reader.readexactly({126: 2, 127: 8}[length]), "big")
        return opcode & 0xF, await reader.readexactly(length)


async def test_a_fragment_begun_before_hello_ends_after_it() -> None:
    async with serving() as served, raw(served) as (reader, writer):
        body = connect_of(600)
        writer.write(frame_of(body[:10], fin=False) + frame_of(body[10:], opcode=0))
        await until(lambda: served.server.connections == 1)
        call = request("quick", request_id="after").encode()
        writer.write(frame_of(call[:5], fin=False))
        writer.write(frame_of(call[5:], opcode=0))
        async with asyncio.timeout(DEADLINE):
            await reader.readuntil(b'"id":"after"')


async def test_compression_is_not_negotiated() -> None:
    async with serving() as served, socket_to(served, compress=15) as ws:
        assert ws.compress == 0


@pytest.mark.parametrize("headers", ["Origin: http://[\r\n", "Origin: http://localhost:1\r\nHost: [\r\n"])
async def test_a_malformed_origin_or_host_is_refused_without_a_trace(headers: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        host = "" if "Host" in headers else "Host: x\r\n"
        writer.write(f"GET / HTTP/1.1\r\n{host}{headers}{UPGRADE}\r\n".encode())
        async with asyncio.timeout(DEADLINE):
            assert (await reader.readline()).startswith(b"HTTP/1.1 403")
        writer.transport.abort()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_an_ipv6_network_shares_the_bound_on_half_open_upgrades() -> None:
    async with serving(unauthenticated_per_address=1) as served, aiohttp.ClientSession() as http:
        served.server._unauthenticated["127.0.0.1"] += 1
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(f"ws://127.0.0.1:{served.port}/")
        assert refused.value.status == 503


async def test_whoever_proves_himself_is_reported_once() -> None:
    proved: list[Any] = []
    async with serving() as served, socket_to(served) as ws:
        served.server.proved = proved.append
        await next_frame(ws)
        assert proved == []
        await ws.send_str(request("connect", connect_params()))
        assert (await next_frame(ws))["ok"] is True
        assert len(proved) == 1


async def test_a_close_while_an_answer_is_held_back_is_a_close() -> None:
    async with serving() as served, socket_to(served) as ws:
        await next_frame(ws)
        await ws.send_str(request("connect", connect_params(auth={"token": "wrong"})))
        _, end = await asyncio.gather(served.server.close(Close(1012, "service restart")), closed(ws))
        assert end[0] in {1008, 1012}
        assert served.connections == []


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"req","id":"1","method":"quick","params":{"a":"\\ud800"}}',
        '{"type":"req","id":"1","method":"quick","params":{"a":NaN}}',
        "[" * 100_000,
        '{"type":"req","id":"1","method":"quick","params":' + "[" * 2000 + "]" * 2000 + "}",
        "\x00",
        '{"type":"req","id":"1","method":"quick"',
    ],
)
async def test_what_is_no_json_after_hello_is_ignored(text: str) -> None:
    async with serving() as served, socket_to(served) as ws:
        await next_frame(ws)
        await ws.send_str(request("connect", connect_params()))
        assert (await next_frame(ws))["ok"] is True
        await ws.send_str(text)
        await ws.send_bytes(b"\xff\xfe")
        await ws.send_str(request("quick", request_id="after"))
        answers = [await next_frame(ws)]
        while answers[-1].get("id") != "after":
            answers.append(await next_frame(ws))
        assert answers[-1]["ok"] is True
        assert json.dumps(answers)


@asynccontextmanager
async def known_client(served: Served, *scopes: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A connected client."""
    async with socket_to(served) as ws:
        await next_frame(ws)
        await ws.send_str(request("connect", connect_params(scopes=list(scopes))))
        assert (await next_frame(ws))["ok"] is True
        yield ws


async def test_long_names_are_not_sent_back_whole() -> None:
    async with serving() as served, known_client(served, "operator.admin") as ws:
        await ws.send_str(request("x" * 1_000_000))
        assert len((await next_frame(ws))["error"]["message"]) < 300
        await ws.send_str(request("once", {"k" * 1_000_000: 1}))
        assert len((await next_frame(ws))["error"]["message"]) < 300
        await ws.send_str(request("quick", {"k" * 1_000_000: 1}))
        assert len((await next_frame(ws))["error"]["message"]) < 300
        await ws.send_str(json.dumps({"type": "req", "id": "1", "method": "quick", "z" * 1_000_000: 1}))
        assert len((await next_frame(ws))["error"]["message"]) < 300


async def test_an_id_comes_back_as_it_was_sent() -> None:
    async with serving() as served, known_client(served) as ws:
        for name in ("\u2028\U0001f600 \"'\\", "x" * 100_000):
            await ws.send_str(request("quick", request_id=name))
            assert (await next_frame(ws))["id"] == name


async def test_one_id_for_many_requests_is_answered_as_often() -> None:
    async with serving() as served, known_client(served) as ws:
        for number in range(200):
            await ws.send_str(request("quick" if number % 2 else "status.missing", request_id="same"))
        answers = [await next_frame(ws) for _ in range(200)]
        assert {answer["id"] for answer in answers} == {"same"}
        assert [answer["ok"] for answer in answers] == [False, True] * 100


async def test_a_call_that_others_may_join_outlives_its_connection() -> None:
    async with serving() as served:
        params = {"idempotencyKey": "k"}
        async with known_client(served, "operator.write") as ws:
            await ws.send_str(request("once", params))
            await asyncio.wait_for(served.methods.entered.wait(), DEADLINE)
        await until(lambda: served.server.connections == 0)
        async with known_client(served, "operator.write") as again:
            await again.send_str(request("once", params))
            await again.send_str(request("quick", request_id="q"))
            assert (await next_frame(again))["id"] == "q"
            served.methods.release.set()
            assert (await next_frame(again))["payload"] == {"number": 1}
        assert served.methods.calls == 1


async def test_closing_the_server_ends_calls_that_outlived_their_connections() -> None:
    async with serving(close_seconds=0.2) as served:
        async with known_client(served, "operator.write") as ws:
            await ws.send_str(request("once", {"idempotencyKey": "k"}))
            await asyncio.wait_for(served.methods.entered.wait(), DEADLINE)
        await served.server.close(Close(1012, "service restart"))
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("joined calls/")]


async def test_what_is_remembered_of_a_call_is_small() -> None:
    async with serving() as served, known_client(served, "operator.write") as ws:
        served.methods.release.set()
        await ws.send_str(request("once", {"idempotencyKey": "k", "text": "x" * 1_000_000}))
        assert (await next_frame(ws))["ok"] is True
        assert served.server._dispatcher._running == {}
        rows = await served.store.read(lambda connection: connection.execute("SELECT * FROM kernel_requests").fetchall())
        assert len(repr(rows)) < 500


@pytest.mark.parametrize("method", ["unspeakable.error", "surrogate.error"])
async def test_an_error_that_json_cannot_hold_still_has_an_answer(method: str) -> None:
    async with serving() as served, known_client(served) as ws:
        await ws.send_str(request(method))
        error = (await next_frame(ws))["error"]
        assert error["code"] == "INVALID_REQUEST"
        assert error["message"].startswith("told by a plugin")
        await ws.send_str(request("quick"))
        assert (await next_frame(ws))["ok"] is True


@pytest.mark.parametrize(
    "change",
    [
        {"minProtocol": "4"},
        {"maxProtocol": True},
        {"minProtocol": 4.0},
        {"scopes": "operator.admin"},
        {"auth": {"token": 5}},
        {"permissions": {"a": 1}},
        {"caps": [1]},
        {"client": []},
    ],
)
def test_connect_params_are_taken_as_they_are(change: dict[str, Any]) -> None:
    error, close = refused(Gate().connect(connect_params(**change)))
    assert error["message"].startswith("invalid connect params: at ")
    assert close.code == 1008


def test_thousands_of_wrong_params_cost_no_more_than_one_line() -> None:
    error, _ = refused(Gate().connect(connect_params(caps=[1] * 20_000, scopes=[1] * 20_000, commands=[1] * 20_000)))
    assert error["message"].count("at ") == 3
    assert "more" not in error["message"]
    error, _ = refused(Gate().connect(connect_params(**{f"k{number}": 1 for number in range(1000)})))
    assert len(error["message"]) < 300
