"""P25 over real sockets: a gateway process, connections cut after any byte, a process that is killed, a client that does not read."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Final, TypeAlias

import aiohttp
import pytest

from tests.e2e.test_abuse import memory_kb
from tests.emulators.model_control import API_KEY, EmulatorProcess
from tests.support.gateway import RunningGateway, StartGateway
from tests.support.ws_client import Identity, RequestFailed, WsClient, connect

DEADLINE: Final = 30.0
MOST_GROWTH_KB: Final = 16 * 1024
READER: Final = ("operator.read", "operator.write", "operator.pairing")

Frame: TypeAlias = dict[str, Any]


def payload_bytes(frame: str) -> str:
    """The event's own payload, as it is on the wire."""
    return frame.split(',"payload":', 2)[2][:-2]


class Follower:
    """A client that folds `events.item`, keeps its cursor over any number of sockets, and knows nothing else."""

    def __init__(self) -> None:
        self.cursor: str | None = None
        self.items: list[tuple[str, str]] = []
        self.gaps: list[str] = []
        self.sockets = 0

    async def follow(self, url: str, token: str, *, enough: Callable[[Follower], bool]) -> None:
        """Connect, subscribe from the cursor, and read until there is enough or the socket is lost."""
        self.sockets += 1
        async with aiohttp.ClientSession() as http, http.ws_connect(url, max_msg_size=0) as socket:
            await socket.receive()
            await self.call(socket, "connect", Identity(scopes=READER).params({"token": token}))
            await self.call(socket, "sessions.subscribe", {})
            answer = await self.call(socket, "events.subscribe", {} if self.cursor is None else {"since": self.cursor})
            self.cursor = answer["cursor"]
            self.gaps += [answer["gap"]["reason"]] if "gap" in answer else []
            while not enough(self):
                self.take(await self.receive(socket))

    async def call(self, socket: aiohttp.ClientWebSocketResponse, method: str, params: Frame) -> Any:
        await socket.send_json({"type": "req", "id": method, "method": method, "params": params})
        while True:
            text = await self.receive(socket)
            frame = json.loads(text)
            if frame["type"] == "res":
                assert frame["ok"], frame
                return frame["payload"]
            assert frame["event"] != "events.item", "an event came before the answer that says where events begin"

    async def receive(self, socket: aiohttp.ClientWebSocketResponse) -> str:
        async with asyncio.timeout(DEADLINE):
            message = await socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise ConnectionResetError("the socket was cut")
        return str(message.data)

    def take(self, text: str) -> None:
        frame = json.loads(text)
        if frame["event"] in ("events.item", "events.gap", "events.current"):
            self.cursor = frame["payload"]["cursor"]
        if frame["event"] == "events.item":
            self.items.append((frame["payload"]["event"], payload_bytes(text)))
        elif frame["event"] == "events.gap":
            self.gaps.append(frame["payload"]["reason"])
        else:
            assert frame["event"] in ("events.current", "tick", "health", "presence", "shutdown"), f"{frame['event']} came by itself"

    def finals(self) -> dict[str, str]:
        """The text of each run that ended."""
        ended = [payload for event, text in self.items if event == "chat" and (payload := json.loads(text))["state"] == "final"]
        return {payload["runId"]: payload["message"]["content"][0]["text"] for payload in ended}

    def state(self) -> tuple[list[tuple[str, str]], dict[tuple[str, str], str]]:
        """All events but the pieces of answers, and the newest piece of each run and kind, byte for byte."""
        whole = [(event, text) for event, text in self.items if piece_of(event, text) is None]
        return whole, {key: text for event, text in self.items if (key := piece_of(event, text)) is not None}


def piece_of(event: str, text: str) -> tuple[str, str] | None:
    """Of which run and kind an event is a piece that has all the pieces before it."""
    payload = json.loads(text)
    if event == "chat" and payload["state"] == "delta":
        return payload["runId"], "chat"
    return (payload["runId"], payload["stream"]) if event == "agent" and payload["stream"] in ("assistant", "thinking") else None


@asynccontextmanager
async def cutter(port: int, lengths: Callable[[], int]) -> AsyncIterator[str]:
    """A way to the gateway that resets each connection after so many bytes from it; the address to connect to."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: float) -> None:
        while left and (data := await reader.read(int(min(left, 65_536)))):
            writer.write(data)
            left -= len(data)
            await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", port)
        both = [asyncio.ensure_future(pump(reader, outer, float("inf"))), asyncio.ensure_future(pump(inner, writer, lengths()))]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for one in both:
            one.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        # What was written must arrive: the cut is after these bytes, not before.
        for end in (outer, writer):
            end.close()
            with suppress(ConnectionError):
                await end.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


def port_of(gateway: RunningGateway) -> int:
    """Where it listens."""
    return int(gateway.url.rpartition(":")[2].partition("/")[0])


def slow_model(emulator: EmulatorProcess) -> Frame:
    """The config of a gateway whose model is the emulator."""
    provider = {"baseUrl": emulator.openai_url, "apiKey": API_KEY, "models": [{"id": "gpt-4o-mini"}]}
    return {"models": {"providers": {"openai": provider}}, "agents": {"defaults": {"model": "openai/gpt-4o-mini"}}}


async def say(client: WsClient, key: str, run: str) -> None:
    """Begin a turn."""
    await client.request("chat.send", {"sessionKey": key, "message": run, "idempotencyKey": run})


async def test_p25_a_socket_cut_after_any_byte_costs_no_event(start_gateway: StartGateway) -> None:
    """Three clients whose sockets are cut over and over while answers stream fold to what one folds that was never cut."""
    texts = ["".join(f"w\u00f6rd-{number}-{word} " for word in range(60)).strip() for number in range(6)]
    choice = random.Random(25)  # noqa: S311 - the same cuts each time
    async with EmulatorProcess("openai") as emulator:
        await emulator.script([{"text": text, "delay_ms": 15} for text in texts])
        gateway = await start_gateway(slow_model(emulator))
        runs = [f"run-{number}" for number in range(len(texts))]
        whole, lossy = Follower(), [Follower() for _ in range(3)]

        def all_ended(follower: Follower) -> bool:
            return len(follower.finals()) == len(runs)

        async def hold_on(follower: Follower, url: str) -> None:
            while not all_ended(follower):
                with suppress(ConnectionError, aiohttp.ClientError):
                    await follower.follow(url, gateway.token, enough=all_ended)

        async with (
            cutter(port_of(gateway), lambda: choice.randrange(1_000, 30_000)) as cut,
            connect(gateway.ws_url, token=gateway.token) as sender,
            asyncio.TaskGroup() as clients,
        ):
            clients.create_task(hold_on(whole, gateway.ws_url))
            for follower in lossy:
                # Its first cursor is that of the beginning.
                await follower.follow(gateway.ws_url, gateway.token, enough=lambda _follower: True)
                clients.create_task(hold_on(follower, cut))
            for number, run in enumerate(runs):
                await say(sender, f"s{number % 2}", run)
    ends = {run: whole.finals()[run] for run in runs}
    assert sorted(ends.values()) == sorted(texts)
    for follower in lossy:
        assert follower.sockets > 5
        assert follower.gaps == []
        told = iter(whole.items)
        assert all(item in told for item in follower.items), "an event that was not told, or in another order"
        assert upto_last_final(follower) == upto_last_final(whole)
        assert follower.finals() == ends


def upto_last_final(follower: Follower) -> tuple[list[tuple[str, str]], dict[tuple[str, str], str]]:
    """The state up to the end of the last run: after it who reads longer has more."""
    last = max(number for number, (event, text) in enumerate(follower.items) if event == "chat" and json.loads(text)["state"] == "final")
    cut = Follower()
    cut.items = follower.items[: last + 1]
    return cut.state()


async def test_p25_a_kill_is_told_as_a_gap_and_a_restart_is_not(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    follower = Follower()

    async def turn(run: str) -> None:
        async with connect(gateway.ws_url, token=gateway.token) as sender:
            await say(sender, "s", run)
            await sender.expect_event(lambda frame: frame["event"] == "chat" and frame["payload"].get("state") == "final")

    def has(run: str) -> Callable[[Follower], bool]:
        return lambda seen: run in seen.finals()

    await follower.follow(gateway.ws_url, gateway.token, enough=lambda _seen: True)
    await turn("before")
    await gateway.stop()
    await gateway.start()
    await turn("after a restart")
    await follower.follow(gateway.ws_url, gateway.token, enough=has("after a restart"))
    assert (list(follower.finals()), follower.gaps) == (["before", "after a restart"], [])
    await turn("unseen")
    await gateway.kill()
    await gateway.start()
    await turn("after a crash")
    await follower.follow(gateway.ws_url, gateway.token, enough=has("after a crash"))
    assert follower.gaps == ["crash"]
    # What the gap says: fetch anew. The history has all that was answered, whether its events came or not.
    async with connect(gateway.ws_url, token=gateway.token) as client:
        history = await client.request("chat.history", {"sessionKey": "s"})
    said = [message["content"][0]["text"] for message in history["messages"] if message["role"] == "assistant"]
    assert len(said) == 4
    assert said[-1] == follower.finals()["after a crash"]


async def test_p25_a_replay_gives_what_the_connections_scopes_allow(gateway: RunningGateway) -> None:
    reader = Identity(scopes=("operator.read",))
    nobody = Identity(scopes=("operator.pairing",))
    async with gateway.connect() as sender:
        start = (await sender.request("events.subscribe", {}))["cursor"]
        await say(sender, "s", "one")
        await sender.expect_event(lambda frame: frame["event"] == "events.item" and frame["payload"]["payload"].get("state") == "final")
        async with gateway.connect(identity=reader) as client:
            await client.request("events.subscribe", {"since": start, "events": ["session.message"]})
            assert [frame["event"] for frame in await client.events_until("events.current")] == ["events.current"]
            await client.request("sessions.messages.subscribe", {"key": "s"})
            await client.request("events.subscribe", {"since": start, "events": ["session.message"]})
            came = await client.events_until("events.current")
            roles = [one["payload"]["payload"]["message"]["role"] for one in came if one["event"] == "events.item"]
            assert roles == ["user", "assistant"]
        async with gateway.connect(identity=nobody) as client:
            with pytest.raises(RequestFailed, match="scope"):
                await client.request("events.subscribe", {"since": start})


async def test_p25_a_follower_that_does_not_read_is_paced_and_costs_little(start_gateway: StartGateway) -> None:
    """40 MB of answers are told while it stands still; it is not closed, and then folds to what the others did."""
    gateway = await start_gateway()
    text = "long " * 20_000
    async with AsyncExitStack() as stack:
        sender = await stack.enter_async_context(connect(gateway.ws_url, token=gateway.token, validate=False))
        # What the log costs by itself is none of it.
        follower, reading = Follower(), Follower()
        follows = asyncio.create_task(reading.follow(gateway.ws_url, gateway.token, enough=lambda seen: "warm-39" in seen.finals()))
        for number in range(40):
            await turn_of(sender, f"warm-{number}", text)
        await follows
        # Only now: the gateway does not wait long for who has not said who he is.
        http = await stack.enter_async_context(aiohttp.ClientSession())
        socket = await stack.enter_async_context(http.ws_connect(gateway.ws_url, max_msg_size=0))
        await socket.receive()
        await follower.call(socket, "connect", Identity(scopes=READER).params({"token": gateway.token}))
        follower.cursor = (await follower.call(socket, "events.subscribe", {}))["cursor"]
        before = memory_kb(gateway, "VmRSS")
        for number in range(100):
            await turn_of(sender, f"run-{number}", text)
        grown = memory_kb(gateway, "VmRSS") - before
        assert grown <= MOST_GROWTH_KB, f"{grown} kB more"
        while len(follower.finals()) < 100:
            follower.take(await follower.receive(socket))
    assert (list(follower.finals()), follower.gaps) == ([f"run-{number}" for number in range(100)], [])


async def turn_of(client: WsClient, run: str, text: str) -> None:
    """A turn of the echo model with a long answer, in a session of its own: a long one has a memory, too."""
    await client.request("chat.send", {"sessionKey": run, "message": text, "idempotencyKey": run})
    await client.expect_event(lambda frame: frame["event"] == "chat" and frame["payload"]["state"] == "final")
    client.events.clear()
