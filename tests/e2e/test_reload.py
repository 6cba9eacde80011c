"""A gateway whose file is edited again and again, while people talk and ask: nobody is dropped, and nothing they say is lost."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.cli.command import run_command
from tests.support.gateway import RunningGateway, StartGateway
from tests.support.ws_client import WsClient

EDITS = 50
TALKERS = 3

pytestmark = pytest.mark.timeout(180)


def save(file: Path, content: dict[str, Any]) -> None:
    """As an editor does: whole, at once."""
    beside = file.with_name(".saved-by-hand")
    beside.write_text(json.dumps(content, indent=1), encoding="utf-8")
    beside.replace(file)


def edited(base: dict[str, Any], number: int) -> dict[str, Any]:
    """Something else each time: read when needed, told, a unit that is replaced, one that comes and goes, and a mistake."""
    changes: list[dict[str, Any]] = [
        {"session": {"queueLimit": 100 + number}},
        {"plugins": {"entries": {"conversation": {"config": {"ledgerDays": 10 + number}}}}},
        {"plugins": {"entries": {"web-tools": {"config": {"maxBytes": 10_000 + number}}}}},
        {"models": {"providers": {**base["models"]["providers"], "parrot": {"api": "echo", "contextWindow": 1_000 + number}}}},
        {"gateway": {**base["gateway"], "controlUi": {"allowedOrigins": [f"https://{number}.example.org"]}}},
        {"logging": {"level": "loud"}},
    ]
    return {**base, **changes[number % len(changes)]}


async def talk(client: WsClient, name: str, done: asyncio.Event) -> int:
    """Say something and have it answered, until the end; how often."""
    count = 0
    while not done.is_set():
        run = f"{name}-{count}"
        await client.request("chat.send", {"sessionKey": f"agent:main:{name}", "message": f"hello {count}", "idempotencyKey": run})
        ended = await client.request("agent.wait", {"runId": run, "timeoutMs": 30_000})
        assert ended["status"] == "ok", ended
        count += 1
    return count


async def ask(client: WsClient, done: asyncio.Event) -> int:
    """Ask how it is, until the end; how often."""
    count = 0
    while not done.is_set():
        await client.request("health")
        count += 1
    return count


async def test_fifty_edits_under_load_drop_nobody_and_lose_nothing(start_gateway: StartGateway) -> None:
    gateway: RunningGateway = await start_gateway({"gateway": {"reload": {"debounceMs": 50}}})
    gateway.expect_log("the edited configuration is not taken")
    file = gateway.config_path
    base: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    async with gateway.connect() as watcher, gateway.connect() as asker:
        talkers = [gateway.connect() for _ in range(TALKERS)]
        clients = [await one.__aenter__() for one in talkers]
        done = asyncio.Event()
        work = [asyncio.ensure_future(talk(client, f"talker{number}", done)) for number, client in enumerate(clients)]
        work.append(asyncio.ensure_future(ask(asker, done)))
        applied = 0
        for number in range(EDITS):
            content = edited(base, number)
            await asyncio.to_thread(save, file, content)
            if content.get("logging", {}).get("level") != "loud":
                await watcher.expect_event("config.changed", deadline=30)
                applied += 1
        done.set()
        counts = await asyncio.gather(*work)
        status = await watcher.request("status")
        for number, client in enumerate(clients):
            history = await client.request("chat.history", {"sessionKey": f"agent:main:talker{number}", "limit": 1000})
            said = [message for message in history["messages"] if message["role"] == "user"]
            answers = [message for message in history["messages"] if message["role"] == "assistant"]
            assert len(said) == len(answers) == counts[number] > 0
        for one in talkers:
            await one.__aexit__(None, None, None)
    assert applied == EDITS - EDITS // 6
    assert status["bootId"] == watcher.hello["server"]["bootId"]


async def test_the_command_line_plans_and_reloads_what_nobody_watches(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"gateway": {"reload": {"mode": "off"}}})
    base: dict[str, Any] = json.loads(gateway.config_path.read_text(encoding="utf-8"))
    save(gateway.config_path, {**base, "session": {"queueLimit": 7}})
    planned = (await run_command("config", "plan", str(gateway.config_path), "--json", home=gateway.home)).json()
    assert (planned["running"], planned["changed"]) == (True, ["session.queueLimit"])
    reloaded = await run_command("config", "reload", home=gateway.home)
    assert reloaded.status == 0
    assert "kernel: goes on with the new values" in reloaded.out.splitlines()
    again = (await run_command("config", "reload", "--json", home=gateway.home)).json()
    assert (again["changed"], again["restart"]) == ([], False)


async def test_sighup_takes_the_file_though_nobody_watches_it(start_gateway: StartGateway) -> None:
    gateway = await start_gateway({"gateway": {"reload": {"mode": "off"}}})
    base: dict[str, Any] = json.loads(gateway.config_path.read_text(encoding="utf-8"))
    async with gateway.connect() as client:
        save(gateway.config_path, {**base, "session": {"mainKey": "other"}})
        gateway.process.send_signal(signal.SIGHUP)
        await client.expect_event("config.changed", deadline=30)
        assert (await client.request("status"))["bootId"] == client.hello["server"]["bootId"]
    async with gateway.connect() as again:
        assert again.hello["snapshot"]["sessionDefaults"]["mainKey"] == "other"
