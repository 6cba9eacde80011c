"""Frames that nobody should send, made by Hypothesis, against the real gateway: it answers, refuses or closes, and goes on (S6, S16)."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conformance.method_calls import GOOD
from tests.support.gateway import RunningGateway, base_config, merge
from tests.support.ws_client import OPERATOR_SCOPES

DEADLINE: Final = 20.0
# Hundreds of connections, on whatever machine.
pytestmark = [
    pytest.mark.timeout(300),
    # That what failed is long to print must not stand in the place of how it failed.
    pytest.mark.filterwarnings("ignore:Generating overly large repr"),
]

FIND: Final = settings(max_examples=150, deadline=None, suppress_health_check=[*HealthCheck])
BEFORE_HELLO_BYTES: Final = 65_536
LARGEST_BYTES: Final = 26_214_400
# These end, or wait for, more than the frame that is tried.
LEFT_ALONE: Final = frozenset({"agent.wait", "gateway.restart.request"})
# What the protocol may answer to rubbish: a plain close, a protocol error, text that is no UTF-8, a policy, a size.
CLOSES: Final = frozenset({1000, 1002, 1007, 1008, 1009})
# Nothing is read for longer than this from who is not known: who writes on may find the socket gone before the close frame was seen.
ABNORMAL: Final = 1006

CONNECT: Final[dict[str, Any]] = {
    "minProtocol": 4,
    "maxProtocol": 4,
    "client": {"id": "gateway-client", "version": "1", "platform": "linux", "mode": "backend"},
    "scopes": [*OPERATOR_SCOPES],
}
CALLS: Final = tuple(dict.fromkeys(call.method for call in GOOD if call.method not in LEFT_ALONE))
PARAMS: Final = {method: [call.params for call in GOOD if call.method == method and call.params] or [{}] for method in CALLS}


class Target:
    """A gateway and one client of it that comes back when it was closed."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.gateway = gateway
        self.numbers = itertools.count(1)
        self.stack = AsyncExitStack()
        self.http: aiohttp.ClientSession
        self.ws: aiohttp.ClientWebSocketResponse | None = None

    async def start(self) -> None:
        """Run the gateway."""
        self.gateway.write_config(self.gateway.config)
        await self.gateway.start()
        self.http = await self.stack.enter_async_context(aiohttp.ClientSession())

    async def stop(self) -> None:
        """End all; raise where the gateway ended badly or logged an error, a task that nobody awaited included."""
        try:
            await self.stack.aclose()
            await self.gateway.stop()
        finally:
            await self.gateway.sweep()

    async def open(self) -> aiohttp.ClientWebSocketResponse:
        """A socket that was challenged."""
        ws = await self.http.ws_connect(self.gateway.ws_url, max_msg_size=0)
        challenge = await ws.receive(DEADLINE)
        assert json.loads(challenge.data)["event"] == "connect.challenge"
        return ws

    async def known(self) -> aiohttp.ClientWebSocketResponse:
        """The client after hello."""
        if self.ws is None or self.ws.closed:
            self.ws = await self.open()
            params = {**CONNECT, "auth": {"token": self.gateway.token}}
            await self.ws.send_str(json.dumps({"type": "req", "id": "hello", "method": "connect", "params": params}))
            answer = json.loads((await self.ws.receive(DEADLINE)).data)
            assert answer["ok"], answer
        return self.ws

    async def before_hello(self, frames: list[str | bytes]) -> None:
        """Send frames as the first ones: none may pass, and whoever comes next gets in."""
        ws = await self.open()
        for frame in frames:
            if ws.closed:
                break
            await _send(ws, frame)
        # What does not end the handshake leaves it open for the connect that is due, or was one and was refused.
        if not ws.closed:
            await _send(ws, '{"type":"req","id":"last","method":"health"}')
        while (message := await ws.receive(DEADLINE)).type is aiohttp.WSMsgType.TEXT:
            assert json.loads(message.data)["ok"] is False, message.data
        codes = CLOSES | {ABNORMAL} if sum(len(_encoded(frame)) for frame in frames) > BEFORE_HELLO_BYTES else CLOSES
        assert code_of(message, ws) in codes, (message, frames)
        await ws.close()

    async def after_hello(self, frames: list[str | bytes]) -> None:
        """Send frames as a known client: it is still served afterwards, or was closed for a reason and is served anew."""
        ws = await self.known()
        for frame in frames:
            await _send(ws, frame)
        probe = f"probe-{next(self.numbers)}"
        await _send(ws, json.dumps({"type": "req", "id": probe, "method": "health"}))
        while (message := await ws.receive(DEADLINE)).type is aiohttp.WSMsgType.TEXT:
            received = json.loads(message.data)
            if received["type"] == "res" and received["id"] == probe:
                assert received["ok"], received
                return
        assert code_of(message, ws) in CLOSES, (message, frames)
        await self.known()


def code_of(message: aiohttp.WSMessage, ws: aiohttp.ClientWebSocketResponse) -> int | None:
    """The code that the gateway closed with. Once the socket is gone, aiohttp says 1006 of what it could not answer."""
    code: int | None = message.data if message.type is aiohttp.WSMsgType.CLOSE else ws.close_code
    return code


def _encoded(frame: str | bytes) -> bytes:
    return frame if isinstance(frame, bytes) else frame.encode("utf-8", "surrogatepass")


async def _send(ws: aiohttp.ClientWebSocketResponse, frame: str | bytes) -> None:
    if ws.closed:
        return
    try:
        # Text that is no UTF-8 cannot be sent as text by any honest client, so bytes go as a text frame of their own.
        await ws.send_frame(_encoded(frame), aiohttp.WSMsgType.TEXT)
    except ConnectionError:
        return


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """The loop that all examples share."""
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="module")
def target(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One gateway for all examples: what one example breaks, the next ones find."""
    home: Path = tmp_path_factory.mktemp("fuzz") / "state"
    # A limit on wrong proofs would hide the handshake from most examples.
    config = merge(base_config(), {"logging": {"level": "warning"}})
    found = Target(RunningGateway(home, config, arguments=[], env={}))
    runner.run(found.start())
    yield found
    runner.run(found.stop())


# --- what is sent -----------------------------------------------------------------------------------------------------

numbers = st.one_of(
    st.integers(),
    st.sampled_from([2**31, -(2**31), 2**53, -(2**53), 2**63, 2**64, -(2**63) - 1, 10**400, 0, -1]),
    st.floats(allow_nan=True, allow_infinity=True),
)
texts = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["", " ", "\x00", "\ud800", "\u202e", "../../etc/passwd", "main", "agent:main:main", "a" * 5000, "constructor", "-1", "1"]
    ),
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


names = itertools.count(1)


def fresh(name: str) -> str:
    """An id that no other frame has: which answer is whose can then be told.

    All are of one length, for Hypothesis cuts frames at places that it wants to find again. Ids used twice have a test of their own,
    in tests/kernel/protocol/test_hostile.py.
    """
    return f"{name}-{next(names):09d}"


def dumped(value: Any) -> str:
    """JSON as a careless client writes it: NaN, lone surrogates and numbers of any length included."""
    return json.dumps(value)


@st.composite
def near_misses(draw: st.DrawFn) -> str:
    """A request whose params are almost those of a good one: a key left out, added, of another type."""
    method = draw(st.sampled_from(CALLS))
    params: Any = dict(draw(st.sampled_from(PARAMS[method])))
    for key in [*params]:
        change = draw(st.sampled_from(["keep", "keep", "drop", "replace", "wrap"]))
        if change == "drop":
            del params[key]
        elif change == "replace":
            params[key] = draw(values)
        elif change == "wrap":
            params[key] = [params[key]]
    if draw(st.booleans()):
        params[draw(texts)] = draw(values)
    return dumped({"type": "req", "id": fresh(draw(st.sampled_from(["one", "é", "x" * 300]))), "method": method, "params": params})


@st.composite
def envelopes(draw: st.DrawFn) -> str:
    """An object that may lack, double or distort any part of a frame."""
    keys = st.sampled_from(["type", "id", "method", "params", "traceparent", "expectedProfileId", "event", "ok", "payload", "seq", "x"])
    likely: dict[str, Any] = {"type": "req", "id": fresh("any"), "method": draw(st.sampled_from([*CALLS, "connect", "", "no.such"]))}
    for key in draw(st.lists(keys, max_size=4)):
        likely[key] = draw(values.filter(lambda value: not isinstance(value, str)) if key == "id" else values)
    for key in draw(st.lists(st.sampled_from(["type", "id", "method"]), max_size=1)):
        likely.pop(key, None)
    return dumped(likely)


@st.composite
def broken(draw: st.DrawFn) -> str | bytes:
    """Text that is cut, doubled, deep, or no JSON at all."""
    whole = draw(st.one_of(envelopes(), near_misses()))
    kind = draw(st.sampled_from(["cut", "twice", "bytes", "deep", "keys", "number"]))
    if kind == "cut":
        return whole[: draw(st.integers(0, len(whole)))]
    if kind == "twice":
        return whole + whole
    if kind == "bytes":
        return draw(st.binary(max_size=64))
    if kind == "deep":
        depth = draw(st.sampled_from([100, 20_000]))
        return f'{{"type":"req","id":"{fresh("deep")}","method":"status","params":' + "[" * depth + "]" * depth + "}"
    if kind == "keys":
        return f'{{"type":"req","type":"req","id":"1","id":"{fresh("keys")}","method":"status","method":"health"}}'
    return f'{{"type":"req","id":"{fresh("number")}","method":"logs.tail","params":{{"limit":' + "9" * 5000 + "}}"


frames = st.lists(st.one_of(near_misses(), envelopes(), broken()), min_size=1, max_size=4)


@FIND
@given(sent=frames)
def test_nothing_passes_before_hello(sent: list[str | bytes], runner: asyncio.Runner, target: Target) -> None:
    runner.run(target.before_hello(sent))


@FIND
@given(changes=st.dictionaries(st.sampled_from([*CONNECT, "role", "caps", "commands", "permissions", "device", "auth", "locale"]), values))
def test_no_distorted_connect_gains_a_scope(changes: dict[str, Any], runner: asyncio.Runner, target: Target) -> None:
    async def shake() -> None:
        ws = await target.open()
        # Without the secret, whatever else is said.
        params = {**CONNECT, **changes}
        await _send(ws, dumped({"type": "req", "id": "1", "method": "connect", "params": params}))
        while (message := await ws.receive(DEADLINE)).type is aiohttp.WSMsgType.TEXT:
            assert json.loads(message.data)["ok"] is False
        assert code_of(message, ws) in CLOSES, message
        await ws.close()

    runner.run(shake())


@FIND
@given(sent=frames)
def test_a_known_client_is_served_after_anything(sent: list[str | bytes], runner: asyncio.Runner, target: Target) -> None:
    runner.run(target.after_hello(sent))


@pytest.mark.parametrize("text", ["9", "[", " ", '{"a":'])
def test_long_rubbish_is_survived(text: str, runner: asyncio.Runner, target: Target) -> None:
    for size in (BEFORE_HELLO_BYTES, BEFORE_HELLO_BYTES + 1):
        runner.run(target.before_hello([(text * size)[:size]]))
    runner.run(target.after_hello([(text * 1_000_000)[:1_000_000]]))


@pytest.mark.parametrize(("size", "served"), [(LARGEST_BYTES, True), (LARGEST_BYTES + 1, False)])
def test_the_largest_frame_is_taken_and_one_byte_more_is_1009(size: int, served: bool, runner: asyncio.Runner, target: Target) -> None:
    head, tail = '{"type":"req","id":"big","method":"status","params":{"x":"', '"}}'
    frame = head + "y" * (size - len(head) - len(tail)) + tail

    async def send() -> None:
        ws = await target.known()
        sending = asyncio.ensure_future(_send(ws, frame))
        while (message := await ws.receive(DEADLINE)).type is aiohttp.WSMsgType.TEXT and json.loads(message.data)["type"] != "res":
            pass
        if served:
            assert json.loads(message.data)["error"]["message"].startswith("invalid status params")
        else:
            assert code_of(message, ws) == 1009, message
        await sending

    runner.run(send())
