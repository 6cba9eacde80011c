"""`audit`: listing, verification and export, through the gateway and on its files while it is down."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest

from openclaw_kernel.audit.records import digest_of_row
from openclaw_kernel.audit.verifying import rows_of
from openclaw_kernel.cli.exits import FAILED, OK, UNREACHABLE, USAGE
from tests.kernel.cli.command import Outcome, run_command
from tests.support.gateway import RunningGateway


async def audit(gateway: RunningGateway, *arguments: str) -> Outcome:
    """Run the command on the gateway's state folder."""
    return await run_command("audit", *arguments, home=gateway.home)


async def test_a_start_and_a_stop_are_listed_and_sound(gateway: RunningGateway) -> None:
    listed = await audit(gateway)
    assert listed.status == OK
    lines = [line.split() for line in listed.out.splitlines()]
    assert lines[0] == ["ROW", "TIME", "ACTION", "OUTCOME", "BY", "FROM", "ON", "MORE"]
    assert [line[3] for line in lines[1:]] == ["gateway.started", "config.accepted", "plugins.changed", "config.loaded"]
    some = await audit(gateway, "list", "--action", "config.loaded", "--outcome", "done", "--actor", "gateway", "-n", "1", "--json")
    (row,) = some.json()["rows"]
    assert (row["action"], row["surface"], row["subject"], row["before"]) == ("config.loaded", "start", "openclaw.yaml", None)
    assert (await audit(gateway, "list", "--subject", "nobody")).out == "nothing of that kind is recorded\n"
    sound = await audit(gateway, "verify", "--json")
    assert sound.status == OK
    assert (sound.json()["ok"], sound.json()["rows"], sound.json()["fault"]) == (True, 4, None)
    await gateway.stop()
    told = await audit(gateway, "verify")
    assert told.status == OK
    assert told.out.startswith("sound: 5 rows, ")
    assert "signed up to row 5\n" in told.out


async def test_an_export_is_the_same_through_the_gateway_and_from_its_files(gateway: RunningGateway, tmp_path: Path) -> None:
    through = await audit(gateway, "export")
    await gateway.stop()
    file = tmp_path / "rows.jsonl"
    written = await audit(gateway, "export", "-o", str(file))
    assert written.status == OK
    assert written.err == f"5 rows are in {file}\n"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [json.loads(line) for line in through.out.splitlines()] == rows[:4]
    assert [row["sequence"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["hash"] for row in rows] == [digest_of_row(row) for row in rows_of(gateway.home / "state.sqlite3")]
    again = await audit(gateway, "export", "-o", str(file))
    assert again.status == USAGE
    assert "is there already; name another file" in again.err


@pytest.mark.parametrize(
    ("statement", "down", "up"),
    [
        (
            "UPDATE kernel_audit SET subject = 'other' WHERE sequence = 2",
            "row 2 was changed: its content does not fit",
            "row 2 was changed",
        ),
        ("UPDATE kernel_audit SET actor = CAST(x'ff' AS TEXT) WHERE sequence = 2", "row 2 was changed: ", "row 2 was changed: "),
        ("DELETE FROM kernel_audit WHERE sequence = 2", "row 2 is missing: row 3 follows row 1", "row 2 is missing"),
        ("DELETE FROM kernel_audit WHERE sequence = 5", "row 5 is missing at the end: row 5 was signed", "of the rows 1 to 5 one is not"),
    ],
)
async def test_what_was_done_to_the_file_is_told_with_the_row_up_and_down(
    gateway: RunningGateway, statement: str, down: str, up: str
) -> None:
    await gateway.stop()
    with contextlib.closing(sqlite3.connect(gateway.home / "state.sqlite3")) as connection:
        for trigger in ("no_update", "no_delete", "in_order"):
            connection.execute(f"DROP TRIGGER kernel_audit_{trigger}")
        connection.execute(statement)
        connection.commit()
    first = await audit(gateway, "verify")
    assert (first.status, first.out) == (FAILED, "")
    assert first.err.startswith(f"audit verify: {down}")
    gateway.expect_log("the audit log is not as it was left")
    await gateway.start()
    then = await audit(gateway, "verify", "--json")
    assert (then.status, then.json()["ok"]) == (FAILED, False)
    assert then.json()["fault"]["message"].startswith(up)
    recorded = await audit(gateway, "list", "--action", "audit.broken", "--json")
    assert len(recorded.json()["rows"]) == 1


async def test_a_folder_without_a_gateway_and_without_a_database_is_said(tmp_path: Path) -> None:
    for command in ("verify", "export"):
        outcome = await run_command("audit", command, home=tmp_path)
        assert outcome.status == UNREACHABLE
        assert outcome.err.endswith("it has no state.sqlite3; name the state folder with --home\n")
    (tmp_path / "state.sqlite3").write_text("no database at all")
    damaged = await run_command("audit", "verify", home=tmp_path)
    assert damaged.status == FAILED
    assert "the audit log cannot be read" in damaged.err


async def test_a_row_that_was_noted_elsewhere_is_looked_for_up_and_down(gateway: RunningGateway) -> None:
    """Whoever has the key can make another log that is sound in itself, but none with the rows that others know."""
    for _ in range(2):
        verified = (await audit(gateway, "verify")).out
        anchor = verified.split("newest row  ")[1].split("\n")[0]
        assert (await audit(gateway, "verify", "--anchor", anchor)).status == OK
        other = f"{anchor[:-1]}{'0' if anchor[-1] != '0' else '1'}"
        for wrong in (other, f"9{anchor}"):
            refused = await audit(gateway, "verify", "--anchor", wrong)
            assert refused.status == FAILED
            assert "is not the one of the anchor" in refused.err
        await gateway.stop()
    assert (await audit(gateway, "verify", "--anchor", "newest")).status == USAGE


async def test_a_crash_leaves_a_sound_log(gateway: RunningGateway) -> None:
    await gateway.kill()
    assert (await audit(gateway, "verify")).status == OK
