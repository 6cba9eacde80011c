"""`security audit`: what it says of a fresh installation, of one that is not, and how it mends; up and down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openclaw_config.home import prepare_home
from openclaw_kernel.cli.exits import CONFIG, FAILED, OK, USAGE
from tests.kernel.cli.command import Outcome, run_command
from tests.support.gateway import RunningGateway, StartGateway


async def audit(home: Path, *arguments: str) -> Outcome:
    """Run the command."""
    return await run_command("security", "audit", *arguments, home=home)


async def rows(home: Path) -> list[dict[str, Any]]:
    """What the audit log says of fixes."""
    exported = await run_command("audit", "export", home=home)
    parsed = [json.loads(line) for line in exported.out.splitlines()]
    return [row for row in parsed if row["action"].startswith("security.")]


async def test_a_fresh_installation_has_nothing_above_info(tmp_path: Path) -> None:
    home = tmp_path / "home"
    prepare_home(home)
    before = await audit(home, "--json")
    assert (before.status, before.json()["ok"]) == (OK, True), before.out
    assert before.json()["checks"] >= 40


async def test_after_the_first_start_too_up_and_down(gateway: RunningGateway) -> None:
    # The fixture writes its token out, into a file of its own making, which the first start does not.
    await gateway.stop()
    gateway.config["gateway"]["auth"]["token"] = "${file:gateway.token}"
    token = gateway.home / "gateway.token"
    token.touch(mode=0o600)
    token.write_text("kX7v-3mQ9_tRz2LwYb8NcHdJ5sPfGa4u")
    await gateway.start()
    (gateway.home / "openclaw.yaml").chmod(0o600)
    up = await audit(gateway.home, "--deep", "--json")
    assert (up.status, up.json()["running"]) == (OK, True), up.out
    await gateway.stop()
    down = await audit(gateway.home, "--json")
    assert (down.status, down.json()["counts"]["warn"], down.json()["counts"]["critical"]) == (OK, 0, 0), down.out
    assert up.json()["checks"] > down.json()["checks"] >= 40


async def test_what_is_wrong_is_told_with_its_cure_and_what_a_fix_would_change(gateway: RunningGateway) -> None:
    token = gateway.home / "gateway.token"
    token.write_text("x")
    token.chmod(0o644)
    told = await audit(gateway.home)
    assert told.status == FAILED
    assert f"warn  files.token.open {token}\n" in told.out
    assert f"  cure: chmod 0600 {token}\n  fix: set the mode of gateway.token to 0600\n    {token}: mode 0644 -> 0600\n" in told.out
    assert "security audit --fix does what stands behind `fix`" in told.out
    assert token.stat().st_mode & 0o777 == 0o644
    assert not (gateway.home / "fixes").exists()


@pytest.mark.parametrize("running", [True, False], ids=["up", "down"])
async def test_a_fix_and_its_undoing_are_rows_of_the_audit_log(gateway: RunningGateway, *, running: bool) -> None:
    token = gateway.home / "gateway.token"
    token.write_text("x")
    token.chmod(0o644)
    if not running:
        await gateway.stop()
    done = (await audit(gateway.home, "--fix", "--json")).json()
    (fixed,) = [each for each in done["fixed"] if each["id"] == "files.token.open"]
    assert fixed["recorded"] is True
    assert fixed["changes"] == [f"{token}: mode 0644 -> 0600"]
    assert "files.token.open" not in [finding["id"] for finding in done["findings"]]
    assert token.stat().st_mode & 0o777 == 0o600
    undone = await audit(gateway.home, "--undo", fixed["fix"], "--json")
    assert (undone.status, undone.json()["undone"], undone.json()["recorded"]) == (OK, fixed["fix"], True)
    assert token.stat().st_mode & 0o777 == 0o644
    ours = [row for row in await rows(gateway.home) if row["details"]["fix"] == fixed["fix"]]
    assert [(row["action"], row["actor"], row["surface"], row["subject"]) for row in ours] == [
        ("security.fixed", *(("token", "ws") if running else ("owner", "cli")), "check:files.token.open"),
        ("security.undone", *(("token", "ws") if running else ("owner", "cli")), "check:files.token.open"),
    ]
    assert (ours[0]["before"], ours[0]["after"]) == (ours[1]["after"], ours[1]["before"])
    assert (await run_command("audit", "verify", home=gateway.home)).status == OK


async def test_what_could_not_be_recorded_is_by_the_next_start(tmp_path: Path, start_gateway: StartGateway) -> None:
    gateway = await start_gateway({})
    await gateway.stop()
    database = gateway.home / "state.sqlite3"
    database.rename(tmp_path / "elsewhere")
    (gateway.home / "openclaw.yaml").chmod(0o644)
    done = await audit(gateway.home, "--fix")
    assert "the audit log gets its row when the gateway starts" in done.out
    (tmp_path / "elsewhere").rename(database)
    await gateway.start()
    assert "security.fixed" in [row["action"] for row in await rows(gateway.home)]
    # And once alone.
    await gateway.stop()
    await gateway.start()
    assert len([row for row in await rows(gateway.home) if row["subject"] == "check:files.config.open"]) == 1


async def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    prepare_home(tmp_path)
    refused = await audit(tmp_path, "--undo", "nothing")
    assert (refused.status, refused.err) == (FAILED, "security audit: there is no fix 'nothing'; there are: none\n")
    deep = await audit(tmp_path, "--deep")
    assert deep.status == USAGE
    assert "--deep needs a running gateway" in deep.err
    both = await audit(tmp_path, "--fix", "--undo", "x")
    assert both.status == USAGE
    (tmp_path / "openclaw.yaml").write_text("gateway: {prot: 1}\n")
    broken = await audit(tmp_path)
    assert (broken.status, broken.err) == (CONFIG, "openclaw.yaml:1:11: gateway.prot: unknown key 'prot'; did you mean 'port'?\n")


async def test_a_reference_that_leads_nowhere_does_not_end_it(tmp_path: Path) -> None:
    prepare_home(tmp_path)
    models = "models: {providers: {anthropic: {apiKey: '${env:NOT_SET_HERE}'}, openai: {apiKey: '${exec:/bin/false}'}}}\n"
    (tmp_path / "openclaw.yaml").write_text(models)
    told = await audit(tmp_path, "--json")
    assert told.status == OK, told.out
