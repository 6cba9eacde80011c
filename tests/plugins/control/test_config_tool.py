"""The tool `config`: offered to no agent that does not name it, and open to what is marked as an agent's own, nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from openclaw_kernel.testing import RunningGateway, run_gateway

SECRET = "not-to-be-seen-4c2e"


def config(**entries: Any) -> dict[str, Any]:
    return {"models": {"providers": {"echo": {}}}, "secrets": {"entries": {"one": SECRET}}, "agents": {"entries": entries}}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[RunningGateway]:
    """A gateway whose agent may use the tool."""
    async with run_gateway(tmp_path, config(main={"name": "Ada", "tools": {"allow": ["config"]}})) as running:
        yield running


async def use(gateway: RunningGateway, **arguments: Any) -> str:
    """What the tool told the model."""
    run = f"use-{len(gateway.transcript)}"
    message = f"!tool config {json.dumps(arguments)}"
    await gateway.call("chat.send", {"sessionKey": "agent:main:main", "message": message, "idempotencyKey": run})
    await gateway.call("agent.wait", {"runId": run, "timeoutMs": 20_000})
    messages = (await gateway.call("chat.history", {"sessionKey": "agent:main:main", "limit": 1}))["messages"]
    told = str(messages[-1]["content"][0]["text"])
    assert SECRET not in told
    return told.partition(": ")[2]


async def test_an_agent_changes_its_name_and_the_row_says_that_an_agent_did(gateway: RunningGateway) -> None:
    found = json.loads(await use(gateway, action="get", path="agents.entries.main"))
    assert found["value"]["name"] == "Ada"
    patch = {"agents": {"entries": {"main": {"name": "Grace", "identity": {"emoji": "*"}}}}}
    written = json.loads(await use(gateway, action="patch", patch=patch, baseHash=found["hash"]))
    assert written["changed"] == ["agents.entries.main.identity.emoji", "agents.entries.main.name"]
    assert (await gateway.call("config.get"))["config"]["agents"]["entries"]["main"]["name"] == "Grace"
    rows = (await gateway.call("audit.log.list", {"action": "config.accepted"}))["rows"]
    newest = max(rows, key=lambda row: row["sequence"])
    assert (newest["actor"], newest["surface"], newest["details"]["byAgent"]) == ("agent:main", "tool", True)


@pytest.mark.parametrize(
    ("patch", "key"),
    [
        ({"agents": {"entries": {"main": {"tools": {"allow": ["config", "shell"]}}}}}, "agents.entries.main.tools.allow"),
        ({"agents": {"entries": {"other": {"name": "x"}}}}, "agents.entries.other"),
        ({"gateway": {"auth": {"mode": "none"}}}, "gateway.auth.mode"),
        ({"plugins": {"entries": {"shell-tool": {"config": {"allowShell": True}}}}}, "plugins"),
        ({"secrets": {"entries": {"one": None}}}, "secrets.entries.one"),
    ],
)
async def test_what_is_not_marked_is_refused_by_its_key(gateway: RunningGateway, patch: dict[str, Any], key: str) -> None:
    before = (gateway.home / "openclaw.yaml").read_bytes()
    found = json.loads(await use(gateway, action="get", path="agents.entries.main"))
    told = await use(gateway, action="patch", patch=patch, baseHash=found["hash"])
    assert key in told
    assert "an agent may not write it" in told
    assert (gateway.home / "openclaw.yaml").read_bytes() == before
    plan = json.loads(await use(gateway, action="plan", patch=patch))
    assert any(key in path or path in key for path in plan["changed"])


@pytest.mark.parametrize("action", ["patch", "plan"])
@pytest.mark.parametrize(
    "patch",
    [{"gateway": {"auth": {"token": "PROGRAM"}}}, {"agents": {"entries": {"main": {"name": "PROGRAM"}}}}],
    ids=["a key that is not its own", "a key of its own"],
)
async def test_what_an_agent_wishes_runs_no_program(gateway: RunningGateway, action: str, patch: dict[str, Any]) -> None:
    found = json.loads(await use(gateway, action="get", path="agents.entries.main"))
    wish = json.loads(json.dumps(patch).replace("PROGRAM", "${exec:/usr/bin/touch ran}"))
    told = await use(gateway, action=action, patch=wish, baseHash=found["hash"])
    assert "an agent may" in told
    assert not (gateway.home / "ran").exists()


async def test_an_agent_that_does_not_name_the_tool_has_none(tmp_path: Path) -> None:
    async with run_gateway(tmp_path, config(main={"name": "Ada"})) as gateway:
        told = await use(gateway, action="get")
        assert "Ada" not in told
