"""What the gateway tells of itself, also while a plugin's service fails."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from openclaw_kernel.api import Sessions
from openclaw_kernel.api.turns import AgentRuntime
from openclaw_kernel.testing import run_gateway


def fails(*_arguments: Any, **_named: Any) -> Any:
    """Stand for a service with a fault."""
    raise RuntimeError("the database is gone")


async def test_services_that_fail_stop_neither_clock_nor_hello(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with run_gateway(tmp_path) as gateway:
        runtime, sessions = gateway.service(AgentRuntime), gateway.service(Sessions)
        monkeypatch.setattr(runtime, "agents", fails)
        monkeypatch.setattr(runtime, "default_agent_id", fails)
        monkeypatch.setattr(sessions, "summary", fails)
        health = gateway.app.facts.refresh_health()
        assert (health["ok"], health["agents"], health["defaultAgentId"]) == (True, [], "main")
        assert health["sessions"] == {"path": "", "count": 0, "recent": []}
        assert "the database is gone" in caplog.text
        gateway.app._announcements.health()
        await gateway.event("health")
        async with gateway.connected():
            assert (await gateway.call("health"))["ok"] is True
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert {"gateway/clock", "gateway/health"} <= names


async def test_wrong_bearers_on_the_probes_wait_like_any_other_try(tmp_path: Path) -> None:
    import aiohttp

    async with run_gateway(tmp_path) as gateway, aiohttp.ClientSession() as http:
        loop = asyncio.get_running_loop()
        url = f"{gateway.url}/readyz"
        async with http.get(url, headers={"Authorization": f"Bearer {gateway.token}"}) as answer:
            assert "reasons" in await answer.json()
        begun = loop.time()
        for _ in range(2):
            async with http.get(url, headers={"Authorization": "Bearer wrong"}) as answer:
                assert await answer.json() == {"ready": True}
        assert loop.time() - begun >= 0.75
