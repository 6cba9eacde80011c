"""The published reference client against the real gateway: what a stranger's program does with it."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.conformance.method_calls import BAD, CHAT, GOOD, OF_CONFIG, OF_DEVICES, OF_PLUGINS
from tests.conformance.reference_client import Line, ReferenceClient, reference_client
from tests.emulators.telegram_control import TelegramEmulator
from tests.kernel.events.test_real_connections import cutter, port_of
from tests.support import contract
from tests.support.gateway import RunningGateway, StartGateway
from tests.support.ws_client import RequestFailed

pytestmark = pytest.mark.requires("node24", "gateway-client")

QUESTION = "What is the capital of France?"
LOCAL_SECONDS = 50.0
ABORT_SECONDS = 5.0


def of_run(run: str, state: str | None = None) -> Callable[[Line], bool]:
    """Matches the payload of a chat event."""
    return lambda payload: payload["runId"] == run and state in (None, payload["state"])


def said_by(role: str) -> Callable[[Line], bool]:
    """Matches the payload of a session.message event."""
    return lambda payload: payload["message"]["role"] == role


@pytest_asyncio.fixture
async def client(gateway: RunningGateway) -> AsyncIterator[ReferenceClient]:
    """A connected client of a gateway with the echo model."""
    async with reference_client(gateway.ws_url, token=gateway.token) as connected:
        await connected.wait("hello")
        yield connected
        assert connected.kinds().isdisjoint({"gap", "connectError", "paused"})


@pytest.mark.requires("xllamacpp")
async def test_a_question_is_answered_by_the_model_on_this_machine(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"models": {"providers": {"echo": None, "local": {}}}})
    async with reference_client(gateway.ws_url, token=gateway.token) as client:
        await client.wait("hello")
        params = {"sessionKey": "main", "message": QUESTION, "idempotencyKey": "paris"}
        assert (await client.request("chat.send", params))["runId"] == "paris"
        ended = await client.request("agent.wait", {"runId": "paris", "timeoutMs": int(LOCAL_SECONDS * 1000)}, deadline=LOCAL_SECONDS)
        assert ended["status"] == "ok"
        final = await client.event("chat", of_run("paris", "final"))
        assert "Paris" in final["message"]["content"][0]["text"]
        deltas = [payload for payload in client.payloads("chat") if payload["state"] == "delta"]
        assert deltas
        assert final["message"]["content"][0]["text"].startswith(deltas[0]["message"]["content"][0]["text"])
        history = await client.request("chat.history", {"sessionKey": "main"})
        assert [message["role"] for message in history["messages"]] == ["user", "assistant"]
        assert "Paris" in str(history["messages"][-1]["content"])


async def test_hello_is_what_the_client_relies_on(client: ReferenceClient) -> None:
    hello = (await client.wait("hello"))["hello"]
    contract.validate_hello(hello)
    assert hello["auth"]["role"] == "operator"
    assert hello["auth"]["scopes"] == ["operator.admin"]
    assert hello["policy"]["tickIntervalMs"] == 30_000


async def test_deltas_grow_to_the_final_text(client: ReferenceClient) -> None:
    words = "one two three four five six"
    await client.request("chat.send", {"sessionKey": "main", "message": f"!slow 120\n{words}", "idempotencyKey": "grow"})
    final = await client.event("chat", of_run("grow", "final"))
    texts = [payload["message"]["content"][0]["text"] for payload in client.payloads("chat") if payload["state"] == "delta"]
    assert len(texts) > 1
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert final["message"]["content"][0]["text"] == words
    assert len([payload for payload in client.payloads("chat") if payload["state"] != "delta"]) == 1


async def test_agent_is_answered_twice_and_can_be_waited_for(client: ReferenceClient) -> None:
    params = {"message": "to a program", "sessionKey": "agent:main:program", "idempotencyKey": "twice"}
    result = await client.request("agent", params, expect_final=True)
    accepted = await client.wait("accepted", lambda line: line["payload"]["runId"] == "twice")
    assert accepted["payload"]["status"] == "accepted"
    assert result["status"] == "ok"
    assert result["result"]["payloads"][0]["text"] == "to a program"
    waited = await client.request("agent.wait", {"runId": "twice"})
    assert waited["status"] == "ok"
    assert waited["endedAt"] >= waited["startedAt"]
    repeated = await client.request("agent", params, expect_final=True)
    assert repeated["result"]["payloads"] == result["result"]["payloads"]


async def test_a_turn_that_fails_is_an_error_of_the_client(client: ReferenceClient) -> None:
    with pytest.raises(RequestFailed, match="told to fail with auth") as failed:
        await client.request("agent", {"message": "!fail auth", "idempotencyKey": "failed"}, expect_final=True)
    assert failed.value.code == "UNAVAILABLE"
    error = await client.event("chat", of_run("failed", "error"))
    assert "auth" in error["errorMessage"]


async def test_abort_ends_a_slow_turn(client: ReferenceClient) -> None:
    message = "!slow 200\n" + "word " * 200
    await client.request("chat.send", {"sessionKey": "main", "message": message, "idempotencyKey": "slow"})
    await client.event("chat", of_run("slow", "delta"))
    aborted = await client.request("chat.abort", {"sessionKey": "main", "runId": "slow"}, deadline=ABORT_SECONDS)
    assert aborted == {"ok": True, "aborted": True, "runIds": ["slow"]}
    end = await client.event("chat", of_run("slow", "aborted"))
    assert "word" in end["message"]["content"][0]["text"]
    assert (await client.request("agent.wait", {"runId": "slow"}))["status"] == "error"


async def test_subscribers_hear_of_messages_and_sessions(client: ReferenceClient) -> None:
    key = "agent:main:heard"
    assert (await client.request("sessions.subscribe"))["subscribed"]
    assert await client.request("sessions.messages.subscribe", {"key": key}) == {"subscribed": True, "key": key}
    await client.request("chat.send", {"sessionKey": key, "message": "listen", "idempotencyKey": "heard"})
    for role in ("user", "assistant"):
        heard = await client.event("session.message", said_by(role))
        assert heard["sessionKey"] == key
    changed = await client.event("sessions.changed", lambda payload: payload.get("sessionKey") == key)
    assert changed["ts"] > 0
    rows = (await client.request("sessions.list", {}))["sessions"]
    assert key in [row["key"] for row in rows]


async def test_every_method_answers_and_refuses_without_a_lost_connection(telegram: TelegramEmulator, start_gateway: StartGateway) -> None:
    bot = {"botToken": telegram.token, "apiRoot": telegram.api_root, "allowFrom": [CHAT], "pollTimeoutSeconds": 1}
    gateway = await start_gateway({"channels": {"telegram": bot}})
    async with reference_client(gateway.ws_url, token=gateway.token) as client:
        hello = (await client.wait("hello"))["hello"]
        assert set(hello["features"]["methods"]) <= {call.method for call in GOOD} | OF_CONFIG | OF_DEVICES | OF_PLUGINS
        for bad in BAD:
            await refused(client, bad.method, bad.params, bad.named)
        for good in GOOD:
            result = await client.request(good.method, good.params, expect_final=good.expect_final)
            if good.method in hello["features"]["methods"]:
                contract.validate_result(good.method, result)
        await refused(client, "no.such.method", {}, "no.such.method")
        assert client.kinds().isdisjoint({"gap", "connectError", "paused", "closed"})
        assert len([line for line in client.lines if line["kind"] == "hello"]) == 1


async def refused(client: ReferenceClient, method: str, params: Any, named: str) -> None:
    with pytest.raises(RequestFailed) as failed:
        await client.request(method, params)
    assert failed.value.code == "INVALID_REQUEST", failed.value
    assert named in failed.value.error["message"], failed.value


async def test_the_client_comes_back_after_the_gateway_was_killed(gateway: RunningGateway) -> None:
    async with reference_client(gateway.ws_url, token=gateway.token) as client:
        first = (await client.wait("hello"))["hello"]
        await client.request("chat.send", {"sessionKey": "main", "message": "before the crash", "idempotencyKey": "before"})
        await client.event("chat", of_run("before", "final"))
        position = len(client.lines)
        await gateway.kill()
        await client.wait("closed", after=position)
        await gateway.start()
        second = (await client.wait("hello", after=position))["hello"]
        assert second["server"]["bootId"] != first["server"]["bootId"]
        history = await client.request("chat.history", {"sessionKey": "main"})
        assert [message["content"][0]["text"] for message in history["messages"]] == ["before the crash", "before the crash"]
        await client.request("chat.send", {"sessionKey": "main", "message": "after it", "idempotencyKey": "after"})
        await client.event("chat", of_run("after", "final"))
        assert "gap" not in client.kinds()


async def test_a_gateway_that_stops_tells_the_client_and_is_found_again(gateway: RunningGateway) -> None:
    async with reference_client(gateway.ws_url, token=gateway.token) as client:
        await client.wait("hello")
        position = len(client.lines)
        await gateway.stop()
        assert (await client.event("shutdown", after=position))["reason"]
        assert (await client.wait("closed", after=position))["code"] == 1012
        await gateway.start()
        await client.wait("hello", after=position)


async def test_a_wrong_token_is_the_clients_own_error(gateway: RunningGateway) -> None:
    async with reference_client(gateway.ws_url, token="not the token") as client:
        error = (await client.wait("connectError"))["error"]
        assert "gateway token mismatch" in error["message"]
        assert error["details"]["code"] == "AUTH_TOKEN_MISMATCH"
        paused = await client.wait("paused")
        assert paused["detailCode"] == "AUTH_TOKEN_MISMATCH"
        assert "hello" not in client.kinds()


async def test_p25_the_client_comes_back_with_its_cursor_and_misses_nothing(gateway: RunningGateway) -> None:
    """Its socket is cut in the middle of what it is told; back again, it has every event that one has who was never cut."""
    lengths = iter([60_000])
    async with (
        cutter(port_of(gateway), lambda: next(lengths, 1 << 40)) as way,
        reference_client(gateway.ws_url, token=gateway.token) as whole,
        reference_client(way, token=gateway.token) as client,
    ):
        for one in (whole, client):
            await one.wait("hello")
            assert "gap" not in await one.request("events.subscribe", {})
        runs = 0
        while "closed" not in client.kinds():
            runs += 1
            await whole.request("chat.send", {"sessionKey": "main", "message": "long " * 400, "idempotencyKey": f"run-{runs}"})
            await whole.event("events.item", is_end_of(f"run-{runs}"))
        position = next(number for number, line in enumerate(client.lines) if line["kind"] == "closed")
        await client.wait("hello", after=position)
        again = await client.request("events.subscribe", {"since": client.payloads("events.item")[-1]["cursor"]})
        assert "gap" not in again
        await client.event("events.item", is_end_of(f"run-{runs}"))
        assert told_of_runs(client, f"run-{runs}") == told_of_runs(whole, f"run-{runs}")
        assert client.payloads("events.gap") == []


def is_end_of(run: str) -> Callable[[Line], bool]:
    """Matches the item with the end of a run."""
    return lambda item: item["event"] == "chat" and of_run(run, "final")(item["payload"])


def told_of_runs(client: ReferenceClient, last: str) -> list[str]:
    """The items up to the end of the last run, but for the pieces of answers: who was away is told the newest of them alone."""
    items = client.payloads("events.item")
    end = next(number for number, item in enumerate(items) if is_end_of(last)(item))
    return [
        json.dumps(item)
        for item in items[: end + 1]
        if item["payload"].get("state") != "delta" and item["payload"].get("stream") != "assistant"
    ]
