"""Every method's result, and every event of a whole conversation, against the machine-readable contract."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from tests.conformance.method_calls import BAD, CHAT, GOOD, OF_CONFIG, OF_DEVICES, OF_PLUGINS
from tests.emulators.telegram_control import TelegramEmulator
from tests.support import contract
from tests.support.gateway import RunningGateway, StartGateway
from tests.support.ws_client import ConnectionEnded, Frame, Identity, Predicate, RequestFailed, WsClient, is_chat, is_event

pytestmark = pytest.mark.requires("contract")

KEY = "agent:main:story"
HIDDEN = {"chat.inject", "device.pair.setupCode", "security.fixes.record", "sessions.get", "sessions.resolve", "webchat.link"}
"""Methods that can be called but are not advertised."""

NOT_IN_THE_CONTRACT = {"security.fixes.record", "webchat.link"}
"""Methods of our own."""

UNKNOWN_KEY = re.compile(r"at ([A-Za-z]+): unknown key")


@pytest_asyncio.fixture
async def gateway_with_a_channel(start_gateway: StartGateway) -> AsyncIterator[RunningGateway]:
    """A gateway whose bot knows the chat."""
    async with TelegramEmulator() as emulator:
        await emulator.open_chat(CHAT)
        bot = {"botToken": emulator.token, "apiRoot": emulator.api_root, "allowFrom": [CHAT], "pollTimeoutSeconds": 1}
        yield await start_gateway({"channels": {"telegram": bot}})


@asynccontextmanager
async def web_page() -> AsyncIterator[int]:
    """A page to fetch; gives its port."""

    async def page(_request: web.Request) -> web.Response:
        return web.Response(text="the page", content_type="text/plain")

    application = web.Application()
    application.router.add_get("/", page)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class Witness:
    """A client that subscribes to everything, and keeps every event after checking it against the contract."""

    def __init__(self, client: WsClient) -> None:
        self.client = client
        self.events: list[Frame] = []

    async def subscribe(self) -> None:
        """Ask for all that a client can ask for."""
        await self.client.request("sessions.subscribe")
        await self.client.request("sessions.messages.subscribe", {"key": KEY})

    async def until(self, wanted: str | Predicate) -> Frame:
        """Check all events up to the one that matches, and return that."""
        taken = await self.client.events_until(wanted)
        self._take(taken)
        return taken[-1]

    async def until_closed(self) -> ConnectionEnded:
        """Check what is left once the gateway has gone."""
        ended = await self.client.closed()
        self._take(self.client.events)
        return ended

    def _take(self, frames: list[Frame]) -> None:
        for frame in frames:
            contract.validate_event(frame)
            self.events.append(dict(frame))

    def payloads(self, name: str) -> list[Mapping[str, Any]]:
        """The payloads of all events of this name."""
        return [frame["payload"] for frame in self.events if frame["event"] == name]


def changed(reason: str) -> Predicate:
    """Matches a sessions.changed event with this reason."""
    return lambda frame: frame["event"] == "sessions.changed" and frame["payload"]["reason"] == reason


async def test_the_table_of_calls_has_every_method_and_no_other(gateway: RunningGateway) -> None:
    async with gateway.connect() as client:
        advertised = set(client.hello["features"]["methods"])
    assert advertised == {call.method for call in GOOD} - HIDDEN | OF_CONFIG | OF_DEVICES | OF_PLUGINS
    assert advertised | HIDDEN == {call.method for call in BAD}


async def test_every_result_fits(gateway_with_a_channel: RunningGateway) -> None:
    async with gateway_with_a_channel.connect() as client:
        for call in GOOD:
            result = await client.request(call.method, call.params, expect_final=call.expect_final)
            contract.validate_params(call.method, call.params)
            contract.validate_result(call.method, result)


async def test_no_key_that_the_contract_allows_is_called_unknown(gateway: RunningGateway) -> None:
    unknown: dict[str, list[str]] = {}
    asked = 0
    async with gateway.connect() as client:
        for method in sorted(({call.method for call in GOOD} | OF_CONFIG) - NOT_IN_THE_CONTRACT):
            for key in allowed_keys(method):
                asked += 1
                # No key takes this value, so nothing happens beside the refusal.
                error = await refusal(client, method, {key: [[["!"]]]})
                if key in UNKNOWN_KEY.findall(error):
                    unknown.setdefault(method, []).append(key)
    assert asked > 200
    assert unknown == {}


def allowed_keys(method: str) -> list[str]:
    """The keys that the contract's definition of a method's params has."""
    name = contract.PARAMS_DEFINITIONS.get(method) or "".join(part[:1].upper() + part[1:] for part in re.split(r"[.\-]", method)) + "Params"
    definition = contract.definitions().get(name, {})
    branches = [definition, *definition.get("anyOf", []), *definition.get("allOf", [])]
    return sorted({key for branch in branches for key in branch.get("properties", {})})


async def refusal(client: WsClient, method: str, params: Mapping[str, Any]) -> str:
    """The text of the error, empty where the call succeeds."""
    try:
        await client.request(method, params)
    except RequestFailed as failed:
        return str(failed.error["message"])
    return ""


async def test_every_event_of_a_conversation_fits(start_gateway: StartGateway) -> None:
    async with web_page() as port:
        fetching = {"web-tools": {"config": {"allowPrivate": [f"127.0.0.1:{port}"]}}}
        gateway = await start_gateway({"plugins": {"entries": fetching}})
        owner_identity = Identity(caps=("tool-events",))
        person = Identity(id="cli", mode="ui")
        async with (
            gateway.connect(identity=owner_identity) as first,
            gateway.connect(identity=Identity()) as second,
        ):
            owner, watcher = Witness(first), Witness(second)
            await owner.subscribe()
            await watcher.subscribe()
            async with gateway.connect(identity=person):
                await owner.until("presence")
            await stream(owner)
            await use_a_tool(owner, f"http://127.0.0.1:{port}/")
            await fail(owner)
            await abort(owner)
            await change(owner)
            await watcher.until(changed("delete"))
            await gateway.stop()
            assert (await owner.until_closed()).code == 1012
            await watcher.until_closed()
    assert_complete(owner, watcher)


async def stream(owner: Witness) -> None:
    message = "!slow 100\n!think about it\none two three"
    await owner.client.request("chat.send", {"sessionKey": KEY, "message": message, "idempotencyKey": "stream"})
    await owner.until(is_chat("final", run="stream"))


async def use_a_tool(owner: Witness, url: str) -> None:
    message = f'!tool fetch {{"url": "{url}"}}'
    await owner.client.request("chat.send", {"sessionKey": KEY, "message": message, "idempotencyKey": "tool"})
    final = await owner.until(is_chat("final", run="tool"))
    assert "the page" in final["payload"]["message"]["content"][0]["text"]


async def fail(owner: Witness) -> None:
    await owner.client.request("chat.send", {"sessionKey": KEY, "message": "!fail rate_limit", "idempotencyKey": "fail"})
    error = await owner.until(is_chat("error", run="fail"))
    assert error["payload"]["errorKind"] == "rate_limit"


async def abort(owner: Witness) -> None:
    message = "half an answer\n!hang"
    await owner.client.request("chat.send", {"sessionKey": KEY, "message": message, "idempotencyKey": "abort"})
    await owner.until(is_chat("delta", run="abort"))
    await owner.client.request("chat.abort", {"sessionKey": KEY, "runId": "abort"})
    await owner.until(is_chat("aborted", run="abort"))


async def change(owner: Witness) -> None:
    await owner.client.request("chat.inject", {"sessionKey": KEY, "message": "a note"})
    await owner.until(lambda frame: frame["event"] == "chat" and frame["payload"]["runId"].startswith("inject-"))
    await owner.client.request("sessions.patch", {"key": KEY, "label": "story", "thinkingLevel": "low"})
    await owner.until(changed("patch"))
    await owner.client.request("sessions.reset", {"key": KEY})
    await owner.until(changed("reset"))
    await owner.client.request("sessions.delete", {"key": KEY})
    await owner.until(changed("delete"))


def assert_complete(owner: Witness, watcher: Witness) -> None:
    """The story has shown every kind of event, each to whom it is meant for."""
    names = {frame["event"] for frame in owner.events + watcher.events}
    assert names >= {"agent", "chat", "presence", "session.message", "session.tool", "sessions.changed", "shutdown"}
    assert {payload["state"] for payload in owner.payloads("chat")} == {"delta", "final", "aborted", "error"}
    assert {payload["stream"] for payload in owner.payloads("agent")} == {"lifecycle", "assistant", "thinking", "tool"}
    assert {frame["payload"]["stream"] for frame in owner.events if is_event("agent")(frame) and "seq" not in frame} == {"tool"}
    assert "tool" not in {payload["stream"] for payload in watcher.payloads("agent")}
    assert [payload["data"]["phase"] for payload in watcher.payloads("session.tool")] == ["start", "result"]
    assert not any(is_event("session.tool")(frame) for frame in owner.events)
    assert {payload["message"]["role"] for payload in owner.payloads("session.message")} >= {"user", "assistant", "toolResult"}
    for run in ("stream", "tool", "fail", "abort"):
        counters = [payload["seq"] for payload in owner.payloads("agent") if payload["runId"] == run]
        assert counters == sorted(set(counters))
        ends = [payload for payload in owner.payloads("chat") if payload["runId"] == run and payload["state"] != "delta"]
        assert len(ends) == 1
