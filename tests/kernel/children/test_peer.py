"""JSON-RPC over two streams: what is answered, what is refused, and the bounds of everything."""

from __future__ import annotations

import asyncio
import json
import math
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from openclaw_config.secrets import Secret
from openclaw_kernel.children.errors import Code, ContractBroken, PeerClosed, RpcError
from openclaw_kernel.children.peer import Bounds, Handler, Notice, Peer, Reader, Writer

DEADLINE = 10.0


@dataclass
class Raw:
    """The other side, written by hand."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, *messages: dict[str, Any]) -> None:
        await self.write(b"".join(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n" for message in messages))

    async def write(self, content: bytes) -> None:
        self.writer.write(content)
        await self.writer.drain()

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE):
            heard: dict[str, Any] = json.loads(await self.reader.readline())
        return heard


@dataclass
class Here:
    """Our side with its task."""

    peer: Peer
    serving: asyncio.Task[None]
    noticed: list[Any] = field(default_factory=list)

    async def broken(self) -> str:
        """What it says the other side broke."""
        with pytest.raises(ContractBroken) as caught:
            async with asyncio.timeout(DEADLINE):
                await asyncio.shield(self.serving)
        return str(caught.value)


@asynccontextmanager
async def talking(
    handlers: dict[str, Handler] | None = None, notices: dict[str, Notice] | None = None, bounds: Bounds | None = None
) -> AsyncIterator[tuple[Here, Raw]]:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    raw = Raw(*await asyncio.open_connection(sock=theirs))
    noticed: list[Any] = []
    all_notices: dict[str, Notice] = {"noted": noticed.append, **(notices or {})}
    streams: tuple[Reader, Writer] = (reader, writer)
    peer = Peer(*streams, name="child x", handlers=handlers or {}, notices=all_notices, bounds=bounds)
    serving = asyncio.create_task(peer.serve())
    try:
        yield Here(peer, serving, noticed), raw
    finally:
        await peer.close("the test ended")
        serving.cancel()
        with suppress(asyncio.CancelledError, ContractBroken):
            await serving
        for stream in (writer, raw.writer):
            # Not closed in peace: some tests leave much unread.
            stream.transport.abort()
            with suppress(OSError):
                await stream.wait_closed()


async def echo(params: dict[str, Any]) -> Any:
    return params


def held() -> tuple[Handler, asyncio.Event, list[str]]:
    """A handler that waits for an event, and what became of it."""
    release, became = asyncio.Event(), []

    async def wait(_: dict[str, Any]) -> str:
        became.append("began")
        try:
            await release.wait()
        except asyncio.CancelledError:
            became.append("cancelled")
            raise
        return "released"

    return wait, release, became


async def test_a_request_gets_its_own_answer_however_late_it_comes() -> None:
    async with talking() as (here, raw):
        first, second = (asyncio.create_task(here.peer.request(name, {"n": 1})) for name in ("a", "b"))
        heard = [await raw.hear(), await raw.hear()]
        assert [one["method"] for one in heard] == ["a", "b"]
        await raw.say({"id": heard[1]["id"], "result": "B"}, {"id": heard[0]["id"], "result": "A"})
        assert (await first, await second) == ("A", "B")


async def test_an_error_object_is_raised_with_its_code_message_and_data() -> None:
    async with talking() as (here, raw):
        asked = asyncio.create_task(here.peer.request("a"))
        number = (await raw.hear())["id"]
        await raw.say({"id": number, "error": {"code": -32004, "message": "no", "data": {"permanent": True}}})
        with pytest.raises(RpcError, match="no") as caught:
            await asked
        assert (caught.value.code, caught.value.data) == (Code.SEND_FAILED, {"permanent": True})


async def test_a_request_that_is_broken_off_is_cancelled_on_the_other_side_and_its_late_answer_does_no_harm() -> None:
    async with talking() as (here, raw):
        with pytest.raises(TimeoutError):
            await here.peer.request("slow", timeout=0.05)
        number = (await raw.hear())["id"]
        assert await raw.hear() == {"jsonrpc": "2.0", "method": "cancel", "params": {"id": number}}
        await raw.say({"id": number, "result": 1})
        asked = asyncio.create_task(here.peer.request("next"))
        await raw.say({"id": (await raw.hear())["id"], "result": 2})
        assert await asked == 2


async def test_a_request_of_the_other_side_is_answered_and_one_that_it_cancels_ends() -> None:
    wait, _, became = held()
    async with talking({"echo": echo, "wait": wait}) as (_here, raw):
        await raw.say({"id": "x", "method": "echo", "params": {"a": [1]}})
        assert await raw.hear() == {"jsonrpc": "2.0", "id": "x", "result": {"a": [1]}}
        await raw.say({"id": 7, "method": "wait"}, {"method": "cancel", "params": {"id": 7}})
        assert (await raw.hear())["error"]["code"] == Code.CANCELLED
        assert became in ([], ["began", "cancelled"])


async def test_a_method_that_nobody_knows_and_one_that_fails_are_answered_with_errors(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_: dict[str, Any]) -> None:
        raise ZeroDivisionError("by zero")

    async with talking({"fail": fail}) as (_, raw):
        await raw.say({"id": 1, "method": "nothing"}, {"id": 2, "method": "fail"})
        answers = {one["id"]: one["error"] for one in [await raw.hear(), await raw.hear()]}
    assert answers[1]["code"] == Code.METHOD_NOT_FOUND
    assert answers[2] == {"code": Code.INTERNAL, "message": "ZeroDivisionError: by zero"}
    assert "ZeroDivisionError" in caplog.text


async def test_more_requests_than_may_run_are_told_that_it_is_busy_and_the_others_go_on() -> None:
    wait, release, _ = held()
    async with talking({"wait": wait}, bounds=Bounds(handled=2)) as (_, raw):
        await raw.say(*({"id": number, "method": "wait"} for number in range(3)))
        refused = await raw.hear()
        assert (refused["id"], refused["error"]["code"]) == (2, Code.BUSY)
        release.set()
        assert {(await raw.hear())["id"], (await raw.hear())["id"]} == {0, 1}


async def test_more_requests_to_the_other_side_than_may_wait_take_turns() -> None:
    async with talking(bounds=Bounds(asked=1)) as (here, raw):
        first, second = (asyncio.create_task(here.peer.request(name)) for name in ("a", "b"))
        number = (await raw.hear())["id"]
        await raw.say({"id": number, "result": None})
        await first
        heard = await raw.hear()
        assert heard["method"] == "b"
        await raw.say({"id": heard["id"], "result": None})
        await second


async def test_an_urgent_request_waits_for_no_turn() -> None:
    async with talking(bounds=Bounds(asked=1)) as (here, raw):
        waiting = asyncio.create_task(here.peer.request("a"))
        first = (await raw.hear())["id"]
        urgent = asyncio.create_task(here.peer.request("ping", urgent=True))
        await raw.say({"id": (await raw.hear())["id"], "result": "pong"})
        assert await urgent == "pong"
        await raw.say({"id": first, "result": None})
        await waiting


async def test_who_waits_for_an_answer_is_told_why_the_other_side_is_gone_and_so_is_who_asks_later() -> None:
    async with talking() as (here, raw):
        asked = asyncio.create_task(here.peer.request("a"))
        await raw.hear()
        await here.peer.close("it was killed")
        for request in (asked, here.peer.request("b")):
            with pytest.raises(PeerClosed, match="it was killed"):
                await request
        assert here.peer.notify("c") is False


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (b"hello\n", "no JSON: 'hello'"),
        (b'{"id":1,"method":"a"}\n', "no JSON-RPC 2.0"),
        (b"[]\n", "no JSON-RPC 2.0"),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"a"}\n', "neither a whole number"),
        (b'{"jsonrpc":"2.0","id":true,"method":"a"}\n', "neither a whole number"),
        (b'{"jsonrpc":"2.0","id":"%s","method":"a"}\n' % (b"x" * 65), "neither a whole number"),
        (b'{"jsonrpc":"2.0","id":1,"method":"a","params":[1]}\n', "params are no object"),
        (b'{"jsonrpc":"2.0","method":5}\n', "method is no string"),
        (b'{"jsonrpc":"2.0","method":"noted","params":{"x":NaN}}\n', "no JSON"),
        (b"[" * 5000 + b"\n", "no JSON"),
        (b"\xff\xfe\n", "no JSON"),
        (b"x" * 300, "longer than 200 bytes"),
        (b"x" * 300 + b"\n", "longer than 200 bytes"),
    ],
)
async def test_what_the_contract_does_not_allow_is_told_with_its_beginning(written: bytes, told: str) -> None:
    bounds = Bounds(line_bytes=200 if told.startswith("longer") else 100_000)
    async with talking(bounds=bounds) as (here, raw):
        await raw.write(written)
        said = await here.broken()
        assert told in said
        assert len(said) < 300


async def test_a_stream_that_ends_in_the_middle_of_a_line_is_told() -> None:
    async with talking() as (here, raw):
        await raw.write(b'{"jsonrpc":')
        raw.writer.close()
        assert "ended in the middle of a line" in await here.broken()


async def test_an_id_that_is_used_twice_at_a_time_is_a_breach() -> None:
    wait, _, _ = held()
    async with talking({"wait": wait}) as (here, raw):
        await raw.say({"id": 1, "method": "wait"}, {"id": 1, "method": "wait"})
        assert "used the id 1" in await here.broken()


async def test_a_notification_that_cannot_be_read_is_a_breach_and_an_unknown_one_is_none() -> None:
    def read(params: dict[str, Any]) -> None:
        params["missing"]

    async with talking(notices={"read": read}) as (here, raw):
        await raw.say({"method": "unknown"}, {"method": "read"})
        assert "notification 'read' that cannot be read: 'missing'" in await here.broken()


async def test_a_line_may_come_in_any_pieces() -> None:
    async with talking({"echo": echo}) as (_, raw):
        for byte in b'{"jsonrpc":"2.0","id":1,"method":"echo"}\n{"jsonrpc":"2.0","id":2,"method":"echo"}\n':
            await raw.write(bytes([byte]))
        assert [(await raw.hear())["id"], (await raw.hear())["id"]] == [1, 2]


async def test_a_request_longer_than_a_line_is_refused_here_and_nothing_of_it_is_written() -> None:
    async with talking(bounds=Bounds(line_bytes=100)) as (here, raw):
        with pytest.raises(RpcError) as caught:
            await here.peer.request("a", {"text": "x" * 200})
        assert caught.value.code == Code.INVALID_PARAMS
        assert here.peer.notify("a", {"text": "x" * 200}) is False
        here.peer.notify("after")
        assert (await raw.hear())["method"] == "after"


async def test_an_answer_longer_than_a_line_becomes_an_error() -> None:
    async def much(_: dict[str, Any]) -> str:
        return "x" * 300

    async with talking({"much": much}, bounds=Bounds(line_bytes=200)) as (_, raw):
        await raw.say({"id": 1, "method": "much"})
        assert (await raw.hear())["error"]["code"] == Code.INVALID_PARAMS


async def test_text_that_is_no_unicode_is_carried() -> None:
    async with talking() as (here, raw):
        asked = asyncio.create_task(here.peer.request("a", {"text": "\ud800"}))
        heard = await raw.hear()
        assert heard["params"]["text"] == "\ud800"
        await raw.say({"id": heard["id"], "result": 1})
        await asked


async def test_who_asks_and_never_reads_is_given_up_before_the_answers_fill_the_memory() -> None:
    async with talking(bounds=Bounds(line_bytes=10_000, lines_per_second=1e9)) as (here, raw):
        raw.reader._limit = 1  # type: ignore[attr-defined]  # its end is read no more
        request = b'{"jsonrpc":"2.0","id":1,"method":"nothing"}\n' * 1000

        async def flood() -> None:
            while True:
                await raw.write(request)

        flooding = asyncio.create_task(flood())
        try:
            assert "does not read the answers" in await here.broken()
        finally:
            flooding.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await flooding


async def test_a_flood_is_read_at_its_pace_and_a_neighbour_runs_all_the_while() -> None:
    bounds = Bounds(lines_per_second=500)
    async with talking(bounds=bounds) as (here, raw):
        line = b'{"jsonrpc":"2.0","method":"noted"}\n'
        flooding = asyncio.create_task(raw.write(line * 20_000))
        clock = asyncio.get_running_loop().time
        begun, turns = clock(), 0
        while clock() - begun < 0.5:
            await asyncio.sleep(0)
            turns += 1
        read = len(here.noticed)
        flooding.cancel()
        with suppress(asyncio.CancelledError):
            await flooding
    # A second's worth is free, a chunk is read as a whole, and then it waits.
    assert 0 < read <= 500 + 2 * (65_536 // len(line))
    assert turns > 100


async def test_notifications_are_left_out_for_who_does_not_read() -> None:
    async with talking(bounds=Bounds(line_bytes=1000)) as (here, raw):
        raw.reader._limit = 1  # type: ignore[attr-defined]
        told: Callable[[], bool] = lambda: here.peer.notify("x", {"text": "y" * 900})  # noqa: E731
        for _ in range(100_000):
            if not told():
                break
        else:
            pytest.fail("it never said that too much waits")


async def test_half_a_surrogate_pair_which_a_text_cut_in_javascript_ends_with_is_no_breach() -> None:
    async with talking({"echo": echo}) as (_, raw):
        await raw.say({"id": 1, "method": "echo", "params": {"text": "cut \ud83d"}})
        assert (await raw.hear())["result"] == {"text": "cut \N{REPLACEMENT CHARACTER}"}
        await raw.say({"id": 2, "method": "echo", "params": {"text": "whole \N{GRINNING FACE}"}})
        assert (await raw.hear())["result"] == {"text": "whole \N{GRINNING FACE}"}


async def test_what_is_no_json_is_no_request_and_an_answer_of_it_becomes_an_error() -> None:
    async def nothing_finite(_: dict[str, Any]) -> Any:
        return {"value": math.nan}

    async with talking({"nan": nothing_finite}) as (here, raw):
        with pytest.raises(RpcError, match="cannot be written as JSON"):
            await here.peer.request("a", {"value": math.inf})
        await raw.say({"id": 1, "method": "nan"})
        assert "cannot be written as JSON" in (await raw.hear())["error"]["message"]


async def test_a_secret_in_what_is_no_json_is_not_shown_however_it_is_cut() -> None:
    secret = Secret("half-of-this-is-a-secret-too")
    async with talking() as (here, raw):
        await raw.write(b"x" * 110 + secret.unwrap().encode() + b"\n")
        assert "half" not in await here.broken()
