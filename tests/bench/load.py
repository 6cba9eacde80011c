"""The clients: the same code measures the gateway and the bare echo server."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from tests.bench.device import Device
from tests.bench.processes import TOKEN

CONNECT: dict[str, Any] = {
    "minProtocol": 4,
    "maxProtocol": 4,
    "client": {"id": "cli", "version": "1.0", "platform": "linux", "mode": "cli"},
    "scopes": ["operator.admin"],
    "auth": {"token": TOKEN},
}


def frame(method: str, params: Any = None, request_id: str = "1") -> str:
    """A request."""
    return json.dumps({"type": "req", "id": request_id, "method": method, **({} if params is None else {"params": params})})


async def connected(http: aiohttp.ClientSession, url: str, caps: Sequence[str] = ()) -> aiohttp.ClientWebSocketResponse:
    """A client after hello-ok."""
    ws = await http.ws_connect(url, max_msg_size=0)
    await ws.receive()
    await ws.send_str(frame("connect", {**CONNECT, "caps": [*caps]}))
    answer = json.loads((await ws.receive()).data)
    assert answer["ok"], answer
    return ws


async def handshake_seconds(url: str, *, echo: bool, times: int = 200) -> float:
    """Median seconds from the TCP connect to hello-ok, or to the second frame echoed."""
    taken = []
    hello = frame("connect", CONNECT)
    async with aiohttp.ClientSession() as http:
        for _ in range(times):
            begun = time.perf_counter()
            ws = await http.ws_connect(url)
            if echo:
                await ws.send_str(hello)
                await ws.receive()
            else:
                await ws.receive()
            await ws.send_str(hello)
            await ws.receive()
            taken.append(time.perf_counter() - begun)
            await ws.close()
    return statistics.median(taken)


async def device_handshake_seconds(url: str, times: int = 200) -> float:
    """Median seconds from the TCP connect to hello-ok of a paired device with its token, without what it takes the client to sign."""
    taken = []
    device = Device(TOKEN)
    async with aiohttp.ClientSession() as http:
        for number in range(times + 1):
            begun = time.perf_counter()
            ws = await http.ws_connect(url)
            challenge = (await ws.receive()).data
            challenged = time.perf_counter()
            text = frame("connect", device.proof(CONNECT, challenge))
            signed = time.perf_counter()
            await ws.send_str(text)
            answer = (await ws.receive()).data
            ended = time.perf_counter()
            device.admitted(answer)
            # The first one is the pairing.
            if number:
                taken.append(challenged - begun + ended - signed)
            await ws.close()
    return statistics.median(taken)


async def pipelined_per_second(url: str, *, echo: bool, requests: int = 30_000, window: int = 200) -> float:
    """Answers per second with `window` requests in flight on one connection."""
    text = frame("system-presence")
    async with aiohttp.ClientSession() as http:
        ws = await http.ws_connect(url) if echo else await connected(http, url)
        free = asyncio.Semaphore(window)

        async def send() -> None:
            for _ in range(requests):
                await free.acquire()
                await ws.send_str(text)

        begun = time.perf_counter()
        sender = asyncio.ensure_future(send())
        for _ in range(requests):
            await ws.receive()
            free.release()
        await sender
        taken = time.perf_counter() - begun
        await ws.close()
    return requests / taken


async def turn_seconds(url: str, turns: int = 100, *, follow: bool = False) -> float:
    """Median seconds from chat.send to its final event; with `follow` from the event log."""
    taken = []
    run = uuid.uuid4().hex[:8]
    async with aiohttp.ClientSession() as http:
        ws = await connected(http, url)
        if follow:
            await ws.send_str(frame("events.subscribe"))
        for number in range(turns):
            begun = time.perf_counter()
            # A conversation of ten turns, then another: a history of hundreds would measure its own length.
            params = {"sessionKey": f"bench-{run}-{number // 10}", "message": "hello", "idempotencyKey": str(uuid.uuid4())}
            await ws.send_str(frame("chat.send", params))
            await _until_final(ws)
            taken.append(time.perf_counter() - begun)
        await ws.close()
    return statistics.median(taken)


async def fan_out_seconds(url: str, subscribers: int = 50, turns: int = 30, *, follow: bool = False) -> float:
    """Median seconds between the first and the last of all subscribers reading the same final event; with `follow` from the event log."""
    spread = []
    async with aiohttp.ClientSession() as http:
        clients = [await connected(http, url) for _ in range(subscribers)]
        for ws in clients if follow else ():
            await ws.send_str(frame("events.subscribe"))
        for _ in range(turns):
            params = {"sessionKey": "main", "message": "hello", "idempotencyKey": str(uuid.uuid4())}
            await clients[0].send_str(frame("chat.send", params))
            seen = await asyncio.gather(*[_until_final(ws) for ws in clients])
            spread.append(max(seen) - min(seen))
        for ws in clients:
            await ws.close()
    return statistics.median(spread)


async def accept_seconds(url: str, messages: int = 400) -> list[float]:
    """Seconds from each chat.send to its response, which is sent once the message is on disk; each in a session of its own."""
    taken = []
    run = uuid.uuid4().hex[:8]
    async with aiohttp.ClientSession() as http:
        ws = await connected(http, url)
        for number in range(messages):
            begun = time.perf_counter()
            await ws.send_str(_chat(f"accept-{run}-{number}"))
            while '"type":"res"' not in (await ws.receive()).data:
                pass
            taken.append(time.perf_counter() - begun)
            await _until_final(ws)
        await ws.close()
    return sorted(taken)


async def parallel_turns_seconds(url: str, sessions: int, rounds: int) -> list[float]:
    """Seconds of each round in which so many sessions, a client each, send at once and all have their final."""
    run = uuid.uuid4().hex[:8]
    async with aiohttp.ClientSession() as http:
        clients = [await connected(http, url, caps=["session-scoped-events"]) for _ in range(sessions)]
        for number, ws in enumerate(clients):
            await ws.send_str(frame("sessions.messages.subscribe", {"key": f"many-{run}-{number}"}))
            await ws.receive()

        async def turn(number: int) -> None:
            await clients[number].send_str(_chat(f"many-{run}-{number}"))
            await _until_final(clients[number])

        taken = []
        for _ in range(rounds):
            begun = time.perf_counter()
            await asyncio.gather(*[turn(number) for number in range(sessions)])
            taken.append(time.perf_counter() - begun)
        for ws in clients:
            await ws.close()
    return taken


async def call_seconds(url: str, method: str, params: Any, times: int) -> list[float]:
    """Seconds of each of so many calls, one after the other, sorted."""
    taken = []
    text = frame(method, params)
    async with aiohttp.ClientSession() as http:
        ws = await connected(http, url)
        for _ in range(times):
            begun = time.perf_counter()
            await ws.send_str(text)
            while '"type":"res"' not in (answer := (await ws.receive()).data):
                pass
            taken.append(time.perf_counter() - begun)
            assert '"ok":true' in answer, answer[:500]
        await ws.close()
    return sorted(taken)


def _chat(session: str) -> str:
    return frame("chat.send", {"sessionKey": session, "message": "hello", "idempotencyKey": str(uuid.uuid4())})


async def _until_final(ws: aiohttp.ClientWebSocketResponse) -> float:
    while True:
        data = (await ws.receive()).data
        # Parsing every event of 50 clients would measure this process.
        if '"event":"chat"' in data and '"state":"final"' in data:
            return time.perf_counter()
        assert '"state":"error"' not in data, data
        assert '"ok":false' not in data, data


async def save_seconds(url: str, file: Path, times: int) -> list[float]:
    """Seconds from each save of the config file to the event that it is in force."""
    content = json.loads(file.read_text(encoding="utf-8"))
    taken = []
    async with aiohttp.ClientSession() as http:
        ws = await connected(http, url)
        for number in range(times):
            beside = file.with_name(".saved")
            beside.write_text(json.dumps({**content, "session": {"queueLimit": 100 + number}}), encoding="utf-8")
            begun = time.perf_counter()
            beside.replace(file)
            while b'"config.changed"' not in _bytes((await ws.receive()).data):
                continue
            taken.append(time.perf_counter() - begun)
            # The watch has to come to rest, as it has between the saves of a person.
            await asyncio.sleep(0.2)
    return taken


def _bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data
