"""`doctor`: a fresh installation, a broken file, fixes that are asked for, made, recorded and taken back; up and down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from openclaw_config.home import prepare_home
from openclaw_kernel.cli.exits import CONFIG, FAILED, OK, USAGE
from tests.kernel.cli.command import Outcome, on_terminal, run_command
from tests.support.gateway import RunningGateway

BROKEN = """\
# the port of the house
gateway:
  prot: 18789   # as ever
  auth: {token: "${file:gateway.token}"}
logging: {level: info}
"""
MENDED = BROKEN.replace("prot", "port")
QUIET = ("config.unknown-key", "config.unreadable-file", "home.mode", "files.mode")


async def doctor(home: Path, *arguments: str) -> Outcome:
    """Run the command."""
    return await run_command("doctor", *arguments, home=home)


def only(*ids: str) -> list[str]:
    """Options for these checks alone: what else is wrong with the machine of the test is not its subject."""
    return [part for check in ids for part in ("--only", check)]


async def test_a_fresh_installation_runs_every_check_and_none_fails(tmp_path: Path) -> None:
    prepare_home(tmp_path)
    told = (await doctor(tmp_path, "--json")).json()
    assert told["checks"] >= 40
    assert [each for each in told["findings"] if each["failed"]] == []
    assert not told["running"]
    assert (await doctor(tmp_path, *only(*QUIET))).status == OK


async def test_a_broken_file_is_told_whole_and_ends_with_78(tmp_path: Path) -> None:
    prepare_home(tmp_path)
    (tmp_path / "openclaw.yaml").write_text("gateway: {prot: 1, port: many}\nmodel: x\n")
    told = await doctor(tmp_path, "--json")
    assert told.status == CONFIG
    ours = [each for each in told.json()["findings"] if each["id"].startswith("config.")]
    assert [(each["id"], each["where"]) for each in ours] == [
        ("config.bad-value", "openclaw.yaml:1:20"),
        ("config.unknown-key", "openclaw.yaml:1:11"),
        ("config.unknown-key", "openclaw.yaml:2:1"),
    ]
    (tmp_path / "openclaw.yaml").write_text("gateway: {port: [\n")
    unreadable = await doctor(tmp_path, *only("config.unreadable-file"))
    assert unreadable.status == CONFIG
    assert "critical  config.unreadable-file openclaw.yaml:2" in unreadable.out


async def test_a_fix_needs_a_person_or_yes_and_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    prepare_home(tmp_path)
    file = tmp_path / "openclaw.yaml"
    file.write_text(BROKEN)
    refused = await doctor(tmp_path, "--fix")
    assert refused.status == USAGE
    assert "add --yes" in refused.err
    dry = await doctor(tmp_path, "--fix", "--dry-run", *only("config.unknown-key"))
    assert dry.status == CONFIG
    assert f"  fix: rename gateway.prot to gateway.port\n    {file}:3: - gateway.prot\n    {file}:3: + gateway.port\n" in dry.out
    assert file.read_text() == BROKEN
    done = await doctor(tmp_path, "--fix", "--yes", "--json", *only("config.unknown-key"))
    assert (done.status, file.read_text()) == (OK, MENDED)
    (fixed,) = done.json()["fixed"]
    asked = await doctor(tmp_path, "--undo", fixed["fix"], "--dry-run")
    assert (asked.status, file.read_text()) == (USAGE, MENDED)
    undone = await doctor(tmp_path, "--undo", fixed["fix"])
    assert (undone.status, file.read_text()) == (OK, BROKEN)


async def test_at_a_terminal_each_fix_is_asked_for(tmp_path: Path) -> None:
    prepare_home(tmp_path)
    file = tmp_path / "openclaw.yaml"
    file.write_text(BROKEN.replace("level", "lvel"))
    async with on_terminal("doctor", "--fix", *only("config.unknown-key"), home=tmp_path) as terminal:
        await terminal.expect(r"rename gateway.prot to gateway.port.*do it\? \[y/N\] ")
        terminal.type("y\n")
        await terminal.expect(r"rename logging.lvel to logging.level.*do it\? \[y/N\] ")
        terminal.type("\n")
        await terminal.expect(r"not fixed: config.unknown-key: was not wanted")
        assert await terminal.process.wait() == CONFIG
    assert file.read_text() == MENDED.replace("level", "lvel")


async def test_it_looks_at_a_running_gateway_and_its_fixes_are_in_the_audit_log(gateway: RunningGateway) -> None:
    token = gateway.home / "gateway.token"
    token.write_text("x")
    token.chmod(0o000)
    told = await doctor(gateway.home, "--json")
    assert told.json()["running"]
    assert [each for each in told.json()["findings"] if each["failed"]] == []
    done = (await doctor(gateway.home, "--fix", "--yes", "--json", *only("files.mode"))).json()
    (fixed,) = done["fixed"]
    assert (fixed["recorded"], token.stat().st_mode & 0o777) == (True, 0o600)
    exported = await run_command("audit", "export", home=gateway.home)
    rows: list[dict[str, Any]] = [json.loads(line) for line in exported.out.splitlines()]
    assert "check:files.mode" in [row["subject"] for row in rows if row["action"] == "security.fixed"]


async def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    prepare_home(tmp_path)
    unknown = await doctor(tmp_path, "--only", "nothing.at.all")
    assert (unknown.status, "there is no check 'nothing.at.all'" in unknown.err) == (USAGE, True)
    missing = await doctor(tmp_path, "--undo", "nothing")
    assert (missing.status, missing.err) == (FAILED, "doctor: there is no fix 'nothing'; there are: none\n")
