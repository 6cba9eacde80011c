"""The log, from the gateway and from its file."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

from tests.kernel.cli.command import DEADLINE_SECONDS, run_command, start_command
from tests.support.gateway import RunningGateway


async def test_the_last_lines_are_shown(gateway: RunningGateway) -> None:
    await gateway.wait_line("plugin 'webchat' is started")
    shown = await run_command("logs", "-n", "2", home=gateway.home)
    assert (shown.status, shown.err) == (0, "")
    assert len(shown.out.splitlines()) == 2
    assert not shown.out.startswith("{")
    raw = await run_command("logs", "-n", "1", "--json", home=gateway.home)
    assert json.loads(raw.out)["level"]
    assert (await run_command("logs", "-n", "0", home=gateway.home)).out == ""


async def test_followed_lines_are_shown_as_they_come(gateway: RunningGateway) -> None:
    process = await start_command("logs", "--follow", "-n", "1", home=gateway.home)
    assert process.stdout is not None
    await asyncio.wait_for(process.stdout.readline(), DEADLINE_SECONDS)
    gateway.expect_log("told to fail")
    log = gateway.home / "logs" / "gateway.log"
    with log.open("a", encoding="utf-8") as file:
        file.write('{"time": "2026-01-01T10:00:00", "level": "warning", "subsystem": "somebody", "message": "something"}\n')
    line = await asyncio.wait_for(process.stdout.readline(), DEADLINE_SECONDS)
    assert line.decode() == "2026-01-01 10:00:00 warning somebody: something\n"
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    assert process.returncode == 130


async def test_the_file_is_read_where_no_gateway_answers(gateway: RunningGateway) -> None:
    await gateway.stop()
    shown = await run_command("logs", home=gateway.home)
    assert shown.status == 0
    assert "plugin 'webchat' is started" in shown.out
    assert "no gateway answers" in shown.err


async def test_without_gateway_and_log_the_reason_is_told(tmp_path: Path) -> None:
    outcome = await run_command("logs", home=tmp_path)
    assert outcome.status == 69
    assert "there is no log yet" in outcome.err
