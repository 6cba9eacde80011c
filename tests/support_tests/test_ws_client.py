"""The test client hands out what came, waits for what comes, and notices what a gateway must not send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from tests.support import contract
from tests.support.ws_client import ConnectionEnded, Identity, RequestFailed, WsClient, connect, is_chat
from tests.support_tests.test_contract import hello

pytestmark = pytest.mark.requires("contract")

Script = Callable[[web.WebSocketResponse], Awaitable[None]]


def event(name: str, payload: dict[str, Any], **more: object) -> str:
    return json.dumps({"type": "event", "event": name, "payload": payload, **more})


def response(request: dict[str, Any], payload: object) -> str:
    return json.dumps({"type": "res", "id": request["id"], "ok": True, "payload": payload})


def chat(state: str, **more: object) -> str:
    return event("chat", {"runId": "r", "sessionKey": "k", "seq": 1, "state": state, **more})


@asynccontextmanager
async def server(script: Script, *, greeting: dict[str, Any] | None = None) -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(event("connect.challenge", {"nonce": "n", "ts": 1}))
        frame = await socket.receive_json()
        await socket.send_str(response(frame, greeting or hello()))
        await script(socket)
        return socket

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def until_closed(socket: web.WebSocketResponse) -> None:
    async for _ in socket:
        pass


async def test_the_second_answer_is_waited_for_where_the_first_one_only_accepts() -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        request = await socket.receive_json()
        accepted = {"runId": "r", "sessionKey": "k", "agentId": "main", "status": "accepted", "acceptedAt": 1}
        await socket.send_str(response(request, accepted))
        await socket.send_str(response(request, {"runId": "r", "status": "ok", "summary": "done"}))
        await until_closed(socket)

    async with server(script) as url, connect(url) as client:
        assert (await client.request("agent", {}, expect_final=True))["summary"] == "done"


async def test_a_refused_request_carries_code_and_details() -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        request = await socket.receive_json()
        error = {"code": "FORBIDDEN", "message": "missing scope: x", "details": {"code": "MISSING_SCOPE"}}
        await socket.send_json({"type": "res", "id": request["id"], "ok": False, "error": error})
        await until_closed(socket)

    async with server(script) as url, connect(url) as client:
        with pytest.raises(RequestFailed, match="health: FORBIDDEN: missing scope: x") as caught:
            await client.request("health")
        assert (caught.value.code, caught.value.details["code"]) == ("FORBIDDEN", "MISSING_SCOPE")


async def test_events_wait_in_order_until_they_are_taken() -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await socket.send_str(event("tick", {"ts": 1}, seq=1))
        await socket.send_str(chat("delta", deltaText="a"))
        await socket.send_str(chat("final"))
        await socket.send_str(event("tick", {"ts": 2}, seq=2))
        await until_closed(socket)

    async with server(script) as url, connect(url) as client:
        assert (await client.expect_event(is_chat("final", run="r")))["payload"]["state"] == "final"
        earlier = await client.events_until(lambda frame: frame["payload"].get("ts") == 2)
        assert [frame["event"] for frame in earlier] == ["tick", "chat", "tick"]
        assert client.events == []


async def test_an_event_that_does_not_come_fails_with_what_came_instead() -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await socket.send_str(event("tick", {"ts": 1}))
        await until_closed(socket)

    async with server(script) as url, connect(url) as client:
        await client.expect_event("tick")
        with pytest.raises(AssertionError, match=r"the event presence did not come in 0.05 s; came: \[\]"):
            await client.expect_event("presence", deadline=0.05)


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ([event("tick", {"ts": 1}, seq=1), event("tick", {"ts": 2}, seq=3)], "seq 3 follows 1"),
        ([event("tick", {"ts": "soon"})], "not a TickEvent"),
        ([chat("delta")], "not a ChatEvent"),
        (['{"type": "res", "id": "x", "ok": false}'], "an error exactly where it is not ok"),
    ],
)
async def test_what_a_gateway_must_not_send_fails_the_next_call(frames: list[str], text: str) -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        for frame in frames:
            await socket.send_str(frame)
        await until_closed(socket)

    async with server(script) as url, connect(url) as client:
        with pytest.raises(AssertionError, match=text):
            await client.expect_event("shutdown")
        with pytest.raises(AssertionError, match=text):
            await client.request("health")


async def test_a_result_that_breaks_the_contract_fails_the_call() -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await socket.send_str(response(await socket.receive_json(), {"ok": "yes"}))
        await until_closed(socket)

    async with server(script) as url, connect(url) as client:
        with pytest.raises(contract.ContractError, match="HealthResult"):
            await client.request("health")


async def test_a_closed_connection_ends_whoever_waits_with_code_and_reason() -> None:
    async def script(socket: web.WebSocketResponse) -> None:
        await socket.receive_json()
        await socket.close(code=1012, message=b"service restart")

    async with server(script) as url, connect(url) as client:
        waiting = asyncio.create_task(client.expect_event("tick"))
        with pytest.raises(ConnectionEnded, match="1012 'service restart'"):
            await client.request("health")
        with pytest.raises(ConnectionEnded):
            await waiting
        assert (await client.closed()).code == 1012


async def test_a_connection_closed_before_hello_is_reported_with_code_and_reason() -> None:
    async def refuse(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close(code=1013, message=b"gateway starting")
        return socket

    app = web.Application()
    app.router.add_get("/", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with WsClient.open(f"ws://127.0.0.1:{runner.addresses[0][1]}/") as client:
            ended = await client.closed()
        assert (ended.code, ended.reason) == (1013, "gateway starting")
    finally:
        await runner.cleanup()


def test_the_default_identity_sends_params_that_match_the_contract() -> None:
    params = Identity(caps=("tool-events",), extra={"locale": "en"}).params({"token": "t"})
    contract.validate_params("connect", params)
    assert params["role"] == "operator"
