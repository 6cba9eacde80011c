"""`wake`: an event that a program tells an agent of."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from openclaw_kernel.testing import CallFailed, RunningGateway, run_gateway

ECHO: dict[str, Any] = {"models": {"providers": {"echo": {}}}, "agents": {"entries": {"main": {}, "work": {}}}}


async def history(gateway: RunningGateway, key: str) -> list[dict[str, Any]]:
    """The messages of a session so far."""
    messages: list[dict[str, Any]] = (await gateway.call("chat.history", {"sessionKey": key}))["messages"]
    return messages


async def texts(gateway: RunningGateway, key: str, count: int) -> list[str]:
    """The texts of a session, once it has so many."""
    async with asyncio.timeout(10):
        while len(messages := await history(gateway, key)) < count:  # noqa: ASYNC110 - the client has no run to wait for
            await asyncio.sleep(0.02)
    return [message["content"][0]["text"] for message in messages]


@pytest.mark.parametrize(
    ("named", "key"),
    [
        ({}, "agent:main:main"),
        ({"agentId": "work"}, "agent:work:main"),
        ({"sessionKey": "agent:work:desk", "agentId": "work"}, "agent:work:desk"),
        ({"sessionKey": "garden", "someday": "more"}, "agent:main:garden"),
    ],
)
async def test_the_agent_begins_a_turn_about_what_happened(tmp_path: Path, named: dict[str, Any], key: str) -> None:
    async with run_gateway(tmp_path, ECHO) as gateway:
        assert await gateway.call("wake", {"mode": "now", "text": " the build is done ", **named}) == {"ok": True}
        assert await texts(gateway, key, 2) == ["System event: the build is done"] * 2


async def test_an_event_is_no_command(tmp_path: Path) -> None:
    async with run_gateway(tmp_path, ECHO) as gateway:
        await gateway.call("wake", {"mode": "now", "text": "/new"})
        assert await texts(gateway, "main", 2) == ["System event: /new"] * 2


async def test_the_same_event_may_happen_twice(tmp_path: Path) -> None:
    async with run_gateway(tmp_path, ECHO) as gateway:
        for _ in range(2):
            await gateway.call("wake", {"mode": "now", "text": "ping"})
        assert len(await texts(gateway, "main", 4)) == 4


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"mode": "next-heartbeat", "text": "later"}, "no heartbeats; use now"),
        ({"mode": "now", "text": "   "}, "text: has 0 characters"),
        ({"mode": "now", "text": "x" * 16_385}, "text: has 16385 characters"),
        ({"mode": "now", "text": "hi", "agentId": "nobody"}, "nobody"),
    ],
)
async def test_what_cannot_be_told_is_refused(tmp_path: Path, params: dict[str, Any], said: str) -> None:
    async with run_gateway(tmp_path, ECHO) as gateway:
        with pytest.raises(CallFailed, match=said):
            await gateway.call("wake", params)
        assert (await gateway.call("sessions.list"))["count"] == 0
