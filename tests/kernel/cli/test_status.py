"""status on one screen: what is under way, what today cost, and all that anew while one watches."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

import pytest

from tests.kernel.cli.command import DEADLINE_SECONDS, on_terminal, run_command, start_command
from tests.support.gateway import RunningGateway, StartGateway
from tests.support.ws_client import is_chat

SLOW = {"models": {"providers": {"echo": {"delayMs": 60_000}}}}


async def test_what_runs_and_what_waits_is_counted(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(SLOW)
    async with gateway.connect() as client:
        for number in range(3):
            params = {"sessionKey": "agent:main:main", "message": "hello", "idempotencyKey": f"run-{number}"}
            await client.request("chat.send", params)
        await client.expect_event("agent")
        shown = await run_command("status", home=gateway.home)
        assert "queue     1 running, 2 waiting, 0 on their way out" in shown.out
        for number in range(3):
            await client.request("chat.abort", {"sessionKey": "agent:main:main", "runId": f"run-{number}"})


async def test_what_today_used_is_shown(gateway: RunningGateway) -> None:
    async with gateway.connect() as client:
        await client.request("chat.send", {"sessionKey": "agent:main:main", "message": "hello", "idempotencyKey": "one"})
        await client.expect_event(is_chat("final", run="one"))
    answered: Any = (await run_command("status", "--json", home=gateway.home)).json()
    assert answered["usage"]["totalTokens"] > 0
    assert f"today     {answered['usage']['totalTokens']:,} tokens" in (await run_command("status", home=gateway.home)).out


async def test_who_watches_sees_the_gateway_go_and_come_back(gateway: RunningGateway) -> None:
    watching = await start_command("status", "--watch", "--every", "0.05", "--json", home=gateway.home)
    assert watching.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            first = json.loads(await watching.stdout.readline())
            assert first["ready"] is True
            await gateway.stop()
            while "error" not in json.loads(await watching.stdout.readline()):
                pass
            await gateway.start()
            while (again := json.loads(await watching.stdout.readline())).get("bootId") in {None, first["bootId"]}:
                pass
            assert again["ready"] is True
    finally:
        watching.send_signal(signal.SIGINT)
        await watching.communicate()
    assert watching.returncode == 130


async def test_on_a_terminal_the_screen_is_drawn_anew(gateway: RunningGateway) -> None:
    async with on_terminal("status", "--watch", "--every", "0.05", home=gateway.home) as terminal:
        await terminal.expect(r"\x1b\[H\x1b\[2J[^J]*plugins[^J]*\x1b\[H\x1b\[2J[^J]*plugins")
        terminal.type("\x03")
        await terminal.process.wait()


async def test_an_interval_of_nothing_is_refused(gateway: RunningGateway) -> None:
    for wrong in ("0", "nan", "inf"):
        refused = await run_command("status", "--watch", "--every", wrong, home=gateway.home)
        assert (refused.status, refused.err) == (2, f"--every: found {wrong}; give a number of seconds over 0, at most 86400\n")


def test_how_late_the_event_loop_is_and_who_kept_it_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    from openclaw_kernel.cli.commands.status import show

    loop = {"delayP50Ms": 0.2, "delayP99Ms": 1750.0, "delayMaxMs": 2000.0, "blockedBy": [{"plugin": "bells", "ms": 2000}]}
    show(
        {
            "version": "0",
            "url": "http://x",
            "ready": True,
            "uptimeMs": 1,
            "plugins": [],
            "agents": [],
            "channels": {},
            "sessions": {"count": 0},
            "connections": 0,
            "reasons": [],
            "eventLoop": loop,
        }
    )
    assert "0.2 ms late in the median, p99 1750 ms, at most 2000 ms; blocked by bells for 2.0 s" in capsys.readouterr().out
