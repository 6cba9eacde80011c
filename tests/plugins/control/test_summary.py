"""The part of `status` that clients of the reference print."""

from __future__ import annotations

from pathlib import Path

from openclaw_kernel.testing import run_gateway

ECHO = {"models": {"providers": {"echo": {}}}, "agents": {"entries": {"main": {"identity": {"name": "Ada"}}, "work": {}}}}


async def test_sessions_are_counted_for_all_and_for_each_agent(tmp_path: Path) -> None:
    async with run_gateway(tmp_path, ECHO) as gateway:
        for run, key in (("one", "agent:main:garden"), ("two", "agent:work:main"), ("three", "agent:work:desk")):
            await gateway.call("chat.send", {"sessionKey": key, "message": "hello", "idempotencyKey": run})
            await gateway.call("agent.wait", {"runId": run})
        sessions = (await gateway.call("status"))["sessions"]
        assert sessions["count"] == 3
        assert sessions["paths"] == [str(tmp_path)]
        assert sessions["defaults"]["model"] == "echo/echo"
        assert sessions["defaults"]["contextTokens"] > 0
        counted = {agent["agentId"]: (agent["count"], {row["key"] for row in agent["recent"]}) for agent in sessions["byAgent"]}
        assert counted == {"main": (1, {"agent:main:garden"}), "work": (2, {"agent:work:main", "agent:work:desk"})}


async def test_the_projection_for_a_command_line_comes_only_when_asked_for(tmp_path: Path) -> None:
    async with run_gateway(tmp_path, ECHO) as gateway:
        plain = await gateway.call("status")
        assert "cliProjection" not in plain
        assert plain["tasks"]["total"] == 0
        assert [agent["enabled"] for agent in plain["heartbeat"]["agents"]] == [False, False]
        asked = await gateway.call("status", {"includeChannelSummary": False, "includeCliProjection": True})
        assert asked["cliProjection"]["agents"] == {
            "defaultId": "main",
            "ownership": "explicit",
            "selectionRequired": False,
            "rows": [{"id": "main", "name": "Ada"}, {"id": "work", "name": "work"}],
        }


async def test_status_is_told_without_agents(tmp_path: Path) -> None:
    config = {"plugins": {"entries": {"agents": {"enabled": False}}}}
    async with run_gateway(tmp_path, config) as gateway:
        sessions = (await gateway.call("status"))["sessions"]
        assert sessions["defaults"] == {"model": None, "contextTokens": None}
