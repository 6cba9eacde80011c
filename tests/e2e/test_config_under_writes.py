"""A thousand writes of the config in ten seconds, by hand and over RPC, while people talk: few applies, no restart, nothing lost."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import RunningGateway, StartGateway
from tests.support.ws_client import RequestFailed, WsClient

WRITES = 1_000
SECONDS = 10.0
MOST_BY_HAND = 60
"""Saves that come without a pause are taken once a second or so; a pause is not a promise here, for the machine may have other work."""
STALE = "config changed since last load; re-run config.get and retry"
LEVELS = ("debug", "info", "warning", "error")

pytestmark = pytest.mark.timeout(180)


def save(file: Path, text: str) -> None:
    """As an editor does: whole, at once."""
    beside = file.with_name(".saved-by-hand")
    beside.write_text(text, encoding="utf-8")
    beside.replace(file)


async def write_by_hand(file: Path) -> str:
    """Save it again and again; the text that is there at the end."""
    text = file.read_text(encoding="utf-8")
    begun = time.monotonic()
    for number in range(WRITES):
        text = with_level(file.read_text(encoding="utf-8"), number)
        await asyncio.to_thread(save, file, text)
        due = begun + (number + 1) * SECONDS / WRITES
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    return text


def with_level(text: str, number: int) -> str:
    lines = [line for line in text.splitlines() if not line.startswith("logging:") and not line.startswith("# write ")]
    return "\n".join((*lines, f"# write {number}", f"logging: {{level: {LEVELS[number % 4]}}}", ""))


async def write_by_rpc(client: WsClient, done: asyncio.Event) -> tuple[int, int]:
    """Set one key again and again; how many writes landed, and how many were told of a conflict."""
    landed = conflicts = 0
    while not done.is_set():
        found = await client.request("config.get")
        if not found["valid"]:
            continue
        raw = "\n".join(line for line in found["raw"].splitlines() if not line.startswith("session:"))
        params = {"raw": f"{raw}\nsession: {{queueLimit: {100 + landed}}}\n", "baseHash": found["hash"]}
        try:
            await client.request("config.set", params)
            landed += 1
        except RequestFailed as failed:
            if failed.error["message"] != STALE:
                raise
            conflicts += 1
    return landed, conflicts


async def talk(client: WsClient, done: asyncio.Event) -> int:
    """Say something and have it answered, until the end; how often."""
    count = 0
    while not done.is_set():
        run = f"talk-{count}"
        await client.request("chat.send", {"sessionKey": "agent:main:talk", "message": f"hello {count}", "idempotencyKey": run})
        ended = await client.request("agent.wait", {"runId": run, "timeoutMs": 30_000})
        assert ended["status"] == "ok", ended
        count += 1
    return count


async def in_force(client: WsClient) -> dict[str, Any]:
    """The config as shown, once what is in the file is what is in force."""
    async with asyncio.timeout(30):
        while True:
            found: dict[str, Any] = await client.request("config.get")
            if found["hash"] == found["appliedConfigHash"]:
                return found
            await client.events_until("config.changed")


async def test_a_thousand_writes_are_a_few_applies_and_nobody_notices(start_gateway: StartGateway) -> None:
    gateway: RunningGateway = await start_gateway({"gateway": {"reload": {"debounceMs": 100}}})
    file = gateway.config_path
    save(file, "".join(f"{key}: {json.dumps(value)}\n" for key, value in json.loads(file.read_text(encoding="utf-8")).items()))
    async with gateway.connect() as writer, gateway.connect() as talker, gateway.connect() as reader:
        boot = reader.hello["server"]["bootId"]
        before = {path.name for path in gateway.home.iterdir()}
        done = asyncio.Event()
        by_rpc = asyncio.ensure_future(write_by_rpc(writer, done))
        talking = asyncio.ensure_future(talk(talker, done))
        await write_by_hand(file)
        done.set()
        landed, conflicts = await by_rpc
        said = await talking
        shown = await in_force(reader)
        status = await reader.request("status")
        events = [frame for frame in reader.events if frame["event"] == "config.changed"]
    assert landed + conflicts > 0
    assert said > 0
    assert status["bootId"] == boot
    assert status["reasons"] == []
    assert shown["raw"].count("logging:") == 1
    assert len(events) <= landed + MOST_BY_HAND
    assert {path.name for path in gateway.home.iterdir()} - before <= {"generations", "audit-checkpoints.jsonl"}
