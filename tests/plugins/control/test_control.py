"""The control methods over a running gateway: what they tell, to whom, and how they refuse."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from openclaw_kernel.logs import log_path
from openclaw_kernel.testing import CallFailed, RunningGateway, run_gateway

METHODS = {
    "health": "anyone",
    "status": "operator.read",
    "system-presence": "operator.read",
    "system-event": "operator.admin",
    "logs.tail": "operator.read",
    "config.get": "operator.read",
    "config.schema": "operator.read",
    "config.schema.lookup": "operator.read",
    "config.plan": "operator.admin",
    "config.reload": "operator.admin",
    "config.set": "operator.admin",
    "config.patch": "operator.admin",
    "config.apply": "operator.admin",
    "channels.status": "operator.read",
    "channels.start": "operator.admin",
    "channels.stop": "operator.admin",
    "channels.restart": "operator.admin",
    "commands.list": "operator.read",
}

CHANNEL_METHODS = ("channels.start", "channels.stop", "channels.restart")


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[RunningGateway]:
    """A gateway with the echo model."""
    async with run_gateway(tmp_path, {"models": {"providers": {"echo": {}}}}) as running:
        yield running


@asynccontextmanager
async def asking_as(gateway: RunningGateway, *scopes: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A connection with these scopes."""
    async with aiohttp.ClientSession() as http, http.ws_connect(gateway.url + "/") as ws:
        await ws.receive(10)
        introduction = gateway._introduction() | {"scopes": list(scopes)}
        await ws.send_json({"type": "req", "id": "0", "method": "connect", "params": introduction})
        assert (await ws.receive_json(timeout=10))["ok"] is True
        yield ws


async def answer_to(ws: aiohttp.ClientWebSocketResponse, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The response to a request, events left out."""
    await ws.send_json({"type": "req", "id": method, "method": method, "params": dict(params)})
    while True:
        frame: dict[str, Any] = await ws.receive_json(timeout=10)
        if frame.get("id") == method:
            return frame


async def test_each_method_asks_for_its_scope(gateway: RunningGateway) -> None:
    config = await gateway.call("config.get")
    whole, nothing = {"raw": config["raw"], "baseHash": config["hash"]}, {"raw": "{}", "baseHash": config["hash"]}
    params: dict[str, dict[str, Any]] = {
        "system-event": {"text": "x"},
        **{name: {"channel": "webchat"} for name in CHANNEL_METHODS},
        "config.schema.lookup": {"path": "gateway"},
        "config.plan": {"patch": "{}"},
        "config.set": whole,
        "config.apply": whole,
        "config.patch": nothing,
    }
    for scopes in ([], ["operator.read"], ["operator.write"], ["operator.admin"], ["operator.pairing"]):
        held = set(scopes) | ({"operator.read"} if {"operator.write", "operator.admin"} & set(scopes) else set())
        async with asking_as(gateway, *scopes) as ws:
            for method, scope in METHODS.items():
                frame = await answer_to(ws, method, params.get(method, {}))
                if scope == "anyone" or scope in held:
                    assert frame["ok"] is True, (method, scopes, frame)
                else:
                    assert frame["error"]["details"]["missingScope"] == scope, (method, scopes)


@pytest.mark.parametrize("method", METHODS)
async def test_an_unknown_param_is_named(gateway: RunningGateway, method: str) -> None:
    with pytest.raises(CallFailed, match="surprise"):
        await gateway.call(method, {"surprise": 1})


async def test_status_tells_versions_plugins_and_what_is_wrong(gateway: RunningGateway) -> None:
    status = await gateway.call("status")
    assert status["ready"] is True
    assert status["url"] == gateway.url
    states = {plugin["id"]: plugin["state"] for plugin in status["plugins"]}
    assert (states["control"], states["telegram"]) == ("started", "disabled")
    assert status["uptimeMs"] >= 0
    assert status["channels"].keys() == {"webchat"}


async def test_a_beacon_is_seen_by_all_and_cut(gateway: RunningGateway) -> None:
    await gateway.call("system-event", {"text": "x" * 10_000, "instanceId": "me", "tags": ["t"] * 1000, "lastInputSeconds": 3})
    event = await gateway.event("presence", lambda payload: any(entry.get("instanceId") == "me" for entry in payload["presence"]))
    listed = await gateway.call("system-presence")
    (entry,) = [one for one in listed if one.get("instanceId") == "me"]
    assert entry in event["presence"]
    assert len(json.dumps(entry)) < 1_000
    assert entry["lastInputSeconds"] == 3


@pytest.mark.parametrize("params", [{"text": ""}, {}, {"text": 5}, {"text": "x", "lastInputSeconds": -1}, {"text": "x", "tags": "a"}])
async def test_a_bad_beacon_is_refused(gateway: RunningGateway, params: dict[str, Any]) -> None:
    with pytest.raises(CallFailed, match="invalid system-event params"):
        await gateway.call("system-event", params)


async def test_the_config_is_shown_without_its_secrets(tmp_path: Path) -> None:
    canary = "canary-3b77-not-to-be-seen"
    config = {
        "models": {
            "providers": {
                "echo": {},
                "openai": {"apiKey": canary, "baseUrl": f"http://user:{canary}@127.0.0.1:1/v1", "headers": {"X-Anything": canary}},
                "nobodys": {"luggage": {"password": canary}, "tokens": [canary]},
            }
        },
        "channels": {"nobodys": {"bearer": canary, "credentials": {"a": {"b": canary}}}},
    }
    async with run_gateway(tmp_path, config) as gateway:
        told = await gateway.call("config.get")
        everything = json.dumps([told, await gateway.call("status"), await gateway.call("health"), gateway.transcript])
        assert canary not in everything
        assert gateway.token not in everything
        assert told["valid"] is True
        assert told["config"]["gateway"]["auth"]["mode"] == "token"
        assert told["hash"]
        (tmp_path / "openclaw.yaml").write_text("gateway: [")
        broken = await gateway.call("config.get")
        assert (broken["valid"], broken["raw"], broken["config"], broken["resolved"]) == (False, None, {}, {})
        assert broken["issues"][0]["file"] == "openclaw.yaml"
        assert (broken["appliedConfigHash"], broken["hash"] == told["hash"]) == (told["hash"], False)


async def test_the_schema_has_the_sections_of_the_plugins(gateway: RunningGateway) -> None:
    schema = await gateway.call("config.schema")
    assert schema["schema"]["properties"]["gateway"]
    assert "webchat" in schema["schema"]["properties"]["channels"]["properties"]
    assert schema["uiHints"]["gateway.auth.token"] == {"sensitive": True}


async def test_config_get_tells_the_file_from_what_counts(tmp_path: Path) -> None:
    (tmp_path / "log.yaml").write_text("level: warning\n")
    async with run_gateway(tmp_path, {"models": {"providers": {"echo": {}}}, "logging": {"$include": "log.yaml"}}) as gateway:
        told = await gateway.call("config.get")
        for written in ("parsed", "config", "sourceConfig"):
            assert told[written]["logging"] == {"$include": "log.yaml"}
        for counting in ("resolved", "runtimeConfig"):
            assert told[counting]["logging"] == {"level": "warning"}
        assert told["hash"] == told["appliedConfigHash"] != hashlib.sha256((tmp_path / "openclaw.yaml").read_bytes()).hexdigest()


async def test_a_channel_stops_and_starts_again(gateway: RunningGateway) -> None:
    stopped = await gateway.call("channels.stop", {"channel": "webchat"})
    assert stopped == {"channel": "webchat", "accountId": "default", "stopped": True}
    status = await gateway.call("channels.status", {"channel": "webchat"})
    assert status["channels"]["webchat"]["running"] is False
    started = await gateway.call("channels.start", {"channel": "webchat"})
    assert (started["started"], started["outcome"]) == (True, "started")
    again = await gateway.call("channels.start", {"channel": "webchat"})
    assert (again["started"], again["outcome"]) == (False, "already-running")
    status = await gateway.call("channels.status")
    assert status["channels"]["webchat"]["running"] is True
    assert status["channelDefaultAccountId"] == {"webchat": "default"}


async def test_a_channel_is_restarted_whether_it_runs_or_not(gateway: RunningGateway) -> None:
    restarted = {"channel": "webchat", "accountId": "default", "restarted": True}
    assert await gateway.call("channels.restart", {"channel": "webchat"}) == restarted
    await gateway.call("channels.stop", {"channel": "webchat"})
    assert await gateway.call("channels.restart", {"channel": "webchat"}) == restarted
    assert (await gateway.call("channels.status"))["channels"]["webchat"]["running"] is True


@pytest.mark.parametrize("method", [*CHANNEL_METHODS, "channels.status"])
async def test_a_channel_that_is_not_here_is_named_with_those_that_are(gateway: RunningGateway, method: str) -> None:
    with pytest.raises(CallFailed) as refused:
        await gateway.call(method, {"channel": "carrier-pigeon"})
    assert refused.value.error["code"] == "INVALID_REQUEST"
    assert "webchat" in refused.value.error["message"]
    with pytest.raises(CallFailed) as refused:
        await gateway.call(method, {"channel": "carrier-pigeon" * 1000})
    assert len(refused.value.error["message"]) < 200


async def test_commands_are_listed_with_their_aliases(gateway: RunningGateway) -> None:
    commands = {command["name"]: command for command in (await gateway.call("commands.list"))["commands"]}
    assert {"new", "stop", "status", "model", "help"} <= commands.keys()
    assert commands["stop"]["textAliases"][0] == "/stop"


async def test_the_log_is_read_from_a_cursor_on(gateway: RunningGateway) -> None:
    path = log_path(gateway.home)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"one\ntwo\n")
    first = await gateway.call("logs.tail")
    assert (first["lines"], first["cursor"], first["size"]) == (["one", "two"], 8, 8)
    with path.open("ab") as file:
        file.write(b"three\nhal")
    assert (await gateway.call("logs.tail", {"cursor": 8}))["lines"] == ["three"]
    path.write_bytes(b"new\n")
    assert (await gateway.call("logs.tail", {"cursor": 14}))["reset"] is True
    path.unlink()
    assert (await gateway.call("logs.tail"))["lines"] == []


@pytest.mark.parametrize("params", [{"limit": 0}, {"limit": 5001}, {"maxBytes": 1_000_001}, {"cursor": -1}, {"cursor": 1e300}])
async def test_bad_limits_of_the_log_are_refused(gateway: RunningGateway, params: dict[str, Any]) -> None:
    with pytest.raises(CallFailed, match=r"invalid logs\.tail params"):
        await gateway.call("logs.tail", params)
