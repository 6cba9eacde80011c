"""The reference's command line in remote mode, unmodified: what it prints of our gateway."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.conformance.cli.reference_cli import ReferenceCli
from tests.conformance.method_calls import CHAT
from tests.emulators.telegram_control import TelegramEmulator
from tests.support.gateway import RunningGateway, StartGateway

pytestmark = [pytest.mark.conformance, pytest.mark.requires("reference-cli"), pytest.mark.timeout(400)]

AGENTS = {"agents": {"entries": {"main": {"identity": {"name": "Ada"}}, "work": {}}}}
# Nothing is there, which the log and the health tell.
NOWHERE = {"plugins": {"entries": {"control-ui": {"config": {"root": "/nowhere"}}}}}


@pytest_asyncio.fixture
async def gateway(start_gateway: StartGateway) -> RunningGateway:
    """A gateway with the echo model and two agents."""
    return await start_gateway(AGENTS)


@pytest.fixture
def cli(gateway: RunningGateway, tmp_path: Path) -> ReferenceCli:
    """The command line with the gateway's address and its token."""
    return ReferenceCli(tmp_path / "reference", gateway.ws_url, gateway.token)


async def ask(gateway: RunningGateway, *keys: str) -> None:
    """Have a conversation under each of these keys."""
    async with gateway.connect() as client:
        for key in keys:
            await client.request("chat.send", {"sessionKey": key, "message": f"hello in {key}", "idempotencyKey": key})
            await client.request("agent.wait", {"runId": key})


async def test_health(cli: ReferenceCli) -> None:
    for_programs, for_people = await asyncio.gather(cli.run("health", "--json"), cli.run("health"))
    health = for_programs.json()
    assert health["ok"] is True
    assert [(agent["agentId"], agent["isDefault"]) for agent in health["agents"]] == [("main", True), ("work", False)]
    assert health["channels"]["webchat"]["accounts"][0]["running"] is True
    assert "Web chat: configured" in for_people.text()
    assert "Agents: main (default), work" in for_people.text()
    assert "(0 entries)" in for_people.text()


async def test_status_is_collected_from_the_gateway(gateway: RunningGateway, cli: ReferenceCli) -> None:
    await ask(gateway, "agent:main:garden", "agent:work:desk", "agent:work:lamp")
    for_programs, for_people = await asyncio.gather(cli.run("status", "--json"), cli.run("status"))
    status = for_programs.json()
    assert status["gateway"]["mode"] == "remote"
    assert status["gateway"]["reachable"] is True
    assert status["runtimeVersion"] == (await cli.call("status", {}))["version"]
    agents = {agent["id"]: (agent["name"], agent["sessionsCount"]) for agent in status["agents"]["agents"]}
    assert agents == {"main": ("Ada", 1), "work": ("work", 2)}
    assert status["agents"]["defaultId"] == "main"
    assert status["sessions"]["count"] == status["agents"]["totalSessions"] == 3
    assert status["tasks"]["total"] == 0
    assert status["collection"]["source"] == "gateway"
    # What it lacks for its summary, it names with the fault as reason.
    missed = {field for part in status["collection"]["notCollected"] for field in part["fields"]}
    assert missed.isdisjoint({"agents", "sessions", "heartbeat", "tasks", "agents.defaultId"})
    assert f"remote · {gateway.ws_url.rstrip('/')}" in for_people.text().replace("\n", "")
    assert "reachable" in for_people.text()


async def test_gateway_probe(gateway: RunningGateway, cli: ReferenceCli) -> None:
    probe = (await cli.run("gateway", "probe", "--json")).json()
    assert probe["ok"] is True
    assert probe["primaryTargetId"] == "configRemote"
    (target,) = [target for target in probe["targets"] if target["id"] == "configRemote"]
    assert target["connect"]["ok"] is True
    assert target["server"]["version"] == (await cli.call("status", {}))["version"]
    # A probe has no device of its own: the secret alone lets it in, and gives it no scope.
    assert target["auth"] == {"role": "operator", "scopes": [], "capability": "connected_no_operator_scope"}
    assert "probe_scope_limited" in {warning["code"] for warning in probe["warnings"]}


async def test_a_wrong_token_is_refused_in_words(gateway: RunningGateway, tmp_path: Path) -> None:
    stranger = ReferenceCli(tmp_path / "stranger", gateway.ws_url, "not-the-token")
    refused = await stranger.run("health", "--json")
    assert refused.status == 1
    assert "unauthorized" in refused.out + refused.err


async def test_an_agent_turn(cli: ReferenceCli) -> None:
    for_programs, for_people, failed = await asyncio.gather(
        cli.run("agent", "--session-key", "agent:main:garden", "--message", "When do I plant beans?", "--json"),
        cli.run("agent", "--agent", "work", "--message", "Two words"),
        cli.run("agent", "--session-key", "agent:main:fault", "--message", "!fail auth"),
    )
    turn = for_programs.json()
    assert (turn["status"], turn["summary"]) == ("ok", "completed")
    assert [payload["text"] for payload in turn["result"]["payloads"]] == ["When do I plant beans?"]
    assert for_people.text().strip() == "Two words"
    assert failed.status == 1
    assert "auth" in failed.out + failed.err
    listed = await cli.call("sessions.list", {})
    assert {row["key"]: row["status"] for row in listed["sessions"]} == {
        "agent:main:garden": "done",
        "agent:work:main": "done",
        "agent:main:fault": "failed",
    }
    history = await cli.call("chat.history", {"sessionKey": "agent:main:garden"})
    assert [(message["role"], message["content"][0]["text"]) for message in history["messages"]] == [
        ("user", "When do I plant beans?"),
        ("assistant", "When do I plant beans?"),
    ]


async def test_sessions_are_listed_archived_and_deleted(gateway: RunningGateway, cli: ReferenceCli) -> None:
    await ask(gateway, "agent:main:garden", "agent:main:travel", "agent:work:desk")

    async def listed(archived: Any) -> set[str]:
        return {row["key"] for row in (await cli.call("sessions.list", {"archived": archived}))["sessions"]}

    archived, preview = await asyncio.gather(
        cli.run("sessions", "archive", "agent:main:garden"),
        cli.run("sessions", "delete", "agent:main:travel", "--dry-run"),
    )
    assert "agent:main:garden" in archived.text()
    assert "agent:main:travel" in preview.text()
    assert await listed(archived=False) == {"agent:main:travel", "agent:work:desk"}
    assert await listed(archived=True) == {"agent:main:garden"}
    again, deleted = await asyncio.gather(
        cli.run("sessions", "archive", "agent:main:garden"), cli.run("sessions", "delete", "agent:work:desk", "--yes")
    )
    assert "already archived" in again.text().lower()
    assert "Deleted session agent:work:desk." in deleted.text()
    assert await listed("all") == {"agent:main:garden", "agent:main:travel"}


async def test_channels_status(cli: ReferenceCli) -> None:
    for_programs, for_people, probed = await asyncio.gather(
        cli.run("channels", "status", "--json"), cli.run("channels", "status"), cli.run("channels", "status", "--probe", "--json")
    )
    for status in (for_programs.json(), probed.json()):
        assert status["channelOrder"] == ["webchat"]
        assert status["channelAccounts"]["webchat"][0]["connected"] is True
    assert "Gateway reachable." in for_people.text()
    assert "Web chat default: enabled, configured, linked, running, connected" in for_people.text()


async def test_logs(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway(NOWHERE)
    cli = ReferenceCli(tmp_path / "reference", gateway.ws_url, gateway.token)
    for_programs, for_people = await asyncio.gather(cli.run("logs", "--json", "--limit", "50"), cli.run("logs", "--plain"))
    meta, *lines = for_programs.lines()
    assert meta["type"] == "meta"
    assert meta["file"] == str(gateway.home / "logs" / "gateway.log")
    assert meta["size"] > 0
    (told,) = [line for line in lines if "no index.html in /nowhere" in line["message"]]
    assert told["level"] == "warning"
    assert "no index.html in /nowhere" in for_people.text()


async def test_system_presence(gateway: RunningGateway, cli: ReferenceCli) -> None:
    await cli.call("system-event", {"text": "a laptop", "host": "laptop", "instanceId": "laptop-1", "mode": "ui"})
    presence = (await cli.run("system", "presence", "--json")).json()
    hosts = {entry.get("host"): entry for entry in presence}
    assert hosts["laptop"]["text"] == "a laptop"
    (own,) = [entry for entry in presence if entry.get("reason") == "self"]
    assert own["mode"] == "gateway"


async def test_system_event(cli: ReferenceCli) -> None:
    for_programs, for_people, later = await asyncio.gather(
        cli.run("system", "event", "--mode", "now", "--text", "the build is done", "--json"),
        cli.run("system", "event", "--mode", "now", "--text", "the oven is hot", "--session-key", "agent:work:kitchen"),
        cli.run("system", "event", "--text", "at some time"),
    )
    assert for_programs.json() == {"ok": True}
    assert for_people.text().strip() == "ok"
    assert later.status == 1
    assert "this gateway has no heartbeats; use now" in later.out + later.err
    listed = await cli.call("sessions.list", {"includeLastMessage": True})
    told = {row["key"]: row["lastMessagePreview"] for row in listed["sessions"]}
    assert told == {"agent:main:main": "System event: the build is done", "agent:work:kitchen": "System event: the oven is hot"}


async def test_message_send(telegram: TelegramEmulator, start_gateway: StartGateway, tmp_path: Path) -> None:
    bot = {"botToken": telegram.token, "apiRoot": telegram.api_root, "allowFrom": [CHAT], "pollTimeoutSeconds": 1}
    gateway = await start_gateway({"channels": {"telegram": bot}})
    cli = ReferenceCli(tmp_path / "reference", gateway.ws_url, gateway.token)
    place = ("--channel", "telegram", "--target", str(CHAT))
    sent, pinned = await asyncio.gather(
        cli.run("message", "send", *place, "--message", "The oven is **hot**", "--json"),
        cli.run("message", "send", *place, "--message", "never", "--pin"),
    )
    assert sent.status == 0, sent
    assert [message["text"] for message in await telegram.visible(CHAT)] == ["The oven is hot"]
    told = sent.json()
    assert told["payload"]["channel"] == "telegram"
    assert told["payload"]["messageId"]
    assert pinned.status == 1
    assert "cannot be sent by this gateway" in pinned.out + pinned.err


async def test_models_list(cli: ReferenceCli) -> None:
    for_programs, for_people, everything, none = await asyncio.gather(
        cli.run("models", "list", "--json"),
        cli.run("models", "list"),
        cli.run("models", "list", "--all", "--provider", "echo", "--json"),
        cli.run("models", "list", "--provider", "nobody", "--json"),
    )
    for listed in (for_programs.json(), everything.json()):
        assert listed["count"] == 1
        (model,) = listed["models"]
        assert (model["key"], model["name"], model["available"]) == ("echo/echo", "Echo", True)
        assert model["contextWindow"] > 0
    assert "echo/echo" in for_people.text()
    assert none.json()["models"] == []


async def test_agents_list(cli: ReferenceCli) -> None:
    # `agents list` itself reads the local file even in remote mode; what our gateway has it shows by a call.
    listed = await cli.call("agents.list", {})
    assert listed["defaultId"] == "main"
    assert {agent["id"]: agent["name"] for agent in listed["agents"]} == {"main": "Ada", "work": "work"}
    assert {agent["model"]["primary"] for agent in listed["agents"]} == {"echo/echo"}


async def test_usage_cost(gateway: RunningGateway, cli: ReferenceCli) -> None:
    await ask(gateway, "agent:main:garden")
    usage = (await cli.run("gateway", "usage-cost", "--json", "--days", "2")).json()
    assert usage["days"] == 2
    assert usage["totals"]["totalTokens"] > 0


async def test_what_is_not_there_is_refused_in_words(cli: ReferenceCli) -> None:
    unknown, compact = await asyncio.gather(
        cli.run("gateway", "call", "sessions.nothing", "--json"), cli.run("sessions", "compact", "agent:main:main")
    )
    assert unknown.status == compact.status == 1
    assert "unknown method: sessions.nothing" in unknown.out + unknown.err or "missing scope" in unknown.out + unknown.err
    assert "unknown method: sessions.compact" in compact.out + compact.err


async def test_the_config_is_read_patched_applied_and_guarded_by_its_hash(gateway: RunningGateway, cli: ReferenceCli) -> None:
    got, looked = await asyncio.gather(cli.call("config.get", {}), cli.call("config.schema.lookup", {"path": "logging.level"}))
    assert got["valid"] is True
    assert got["config"]["gateway"]["auth"]["token"] == "__OPENCLAW_REDACTED__"
    assert looked["reloadKind"] == "hot"
    patched = await cli.call("config.patch", {"raw": "{logging: {level: 'debug'}}", "baseHash": got["hash"]})
    assert patched["changedPaths"] == ["logging.level"]
    written = gateway.config_path.read_text()
    assert '"debug"' in written
    assert "__OPENCLAW_REDACTED__" not in written
    stale = await cli.run(
        "gateway", "call", "config.patch", "--params", json.dumps({"raw": "{logging: {level: 'error'}}", "baseHash": got["hash"]}), "--json"
    )
    assert stale.status == 1
    assert "config changed since last load; re-run config.get and retry" in stale.out + stale.err
    invalid = await cli.run(
        "gateway", "call", "config.apply", "--params", json.dumps({"raw": "{gatway: {}}", "baseHash": patched["hash"]}), "--json"
    )
    assert invalid.status == 1
    assert "gatway" in invalid.out + invalid.err
    assert gateway.config_path.read_text() == written
    again = await cli.call("config.apply", {"raw": (await cli.call("config.get", {}))["raw"], "baseHash": patched["hash"]})
    assert again["noop"] is True
