"""The log, from the gateway and from its file."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

from tests.kernel.cli.command import DEADLINE_SECONDS, run_command, start_command
from tests.support.gateway import RunningGateway

LINE = "2026-01-01 10:00:00 warning somebody: something {number}"


def write_lines(home: Path, *numbers: int) -> None:
    """Add lines to the log as the gateway writes them."""
    with (home / "logs" / "gateway.log").open("a", encoding="utf-8") as file:
        for number in numbers:
            record = {"time": "2026-01-01T10:00:00.5", "level": "warning", "subsystem": "somebody", "message": f"something {number}"}
            file.write(json.dumps(record) + "\n")


async def test_the_last_lines_are_shown(gateway: RunningGateway) -> None:
    write_lines(gateway.home, 1, 2, 3)
    shown = await run_command("logs", "-n", "2", home=gateway.home)
    assert (shown.status, shown.err) == (0, "")
    assert shown.out.splitlines() == [LINE.format(number=2), LINE.format(number=3)]
    raw = await run_command("logs", "-n", "1", "--json", home=gateway.home)
    assert json.loads(raw.out)["message"] == "something 3"
    assert (await run_command("logs", "-n", "0", home=gateway.home)).out == ""


async def test_followed_lines_are_shown_as_they_come(gateway: RunningGateway) -> None:
    write_lines(gateway.home, 1)
    process = await start_command("logs", "--follow", "-n", "1", home=gateway.home)
    assert process.stdout is not None
    assert (await asyncio.wait_for(process.stdout.readline(), DEADLINE_SECONDS)).decode() == f"{LINE.format(number=1)}\n"
    write_lines(gateway.home, 2)
    assert (await asyncio.wait_for(process.stdout.readline(), DEADLINE_SECONDS)).decode() == f"{LINE.format(number=2)}\n"
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    assert process.returncode == 130


async def test_the_file_is_read_where_no_gateway_answers(gateway: RunningGateway) -> None:
    await gateway.stop()
    write_lines(gateway.home, 1, 2)
    shown = await run_command("logs", "-n", "2", home=gateway.home)
    assert shown.status == 0
    assert shown.out.splitlines() == [LINE.format(number=1), LINE.format(number=2)]
    assert "no gateway runs in" in shown.err


async def test_without_gateway_and_log_the_reason_is_told(tmp_path: Path) -> None:
    outcome = await run_command("logs", home=tmp_path)
    assert outcome.status == 69
    assert "there is no log yet" in outcome.err
