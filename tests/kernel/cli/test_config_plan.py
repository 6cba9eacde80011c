"""config plan: what a file would do to each unit, before anything is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel.cli.command import run_command

BEFORE = "gateway: {port: 0, auth: {token: very-secret-token}}\nmodels: {providers: {echo: {}}}\n"
AFTER = """\
gateway: {port: 18790, auth: {token: very-secret-token}}
models: {providers: {echo: {delayMs: 5}}}
session: {queueLimit: 7}
channels: {telegram: {botToken: "1:very-secret-too"}}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "openclaw.yaml").write_text(BEFORE, encoding="utf-8")
    (tmp_path / "draft.yaml").write_text(AFTER, encoding="utf-8")
    return tmp_path


async def test_each_unit_is_told_with_the_keys_that_decide(home: Path) -> None:
    shown = await run_command("config", "plan", str(home / "draft.yaml"), home=home)
    assert shown.status == 0
    lines = shown.out.splitlines()
    assert lines[0] == "no gateway was asked; this is what would happen to one that runs with openclaw.yaml as it is"
    assert lines[1:3] == ["kernel: needs a restart of the gateway", "  gateway.port: the port is opened once, at the start"]
    assert "echo: is replaced by a new instance" in lines
    assert "  channels.telegram.botToken: it starts" in lines
    assert "very-secret" not in shown.out + shown.err
    assert (home / "openclaw.yaml").read_text(encoding="utf-8") == BEFORE


async def test_a_program_gets_the_same_as_json(home: Path) -> None:
    plan = (await run_command("config", "plan", str(home / "draft.yaml"), "--json", home=home)).json()
    assert (plan["running"], plan["outcome"]) == (False, "process")
    assert plan["changed"] == ["channels.telegram.botToken", "gateway.port", "models.providers.echo.delayMs", "session.queueLimit"]
    units = {unit["unit"]: unit["outcome"] for unit in plan["units"]}
    assert units == {"kernel": "process", "conversation": "none", "echo": "unit", "telegram": "unit"}


async def test_in_mode_hot_what_waits_is_told(home: Path) -> None:
    draft = home / "draft.yaml"
    draft.write_text(AFTER.replace("port: 18790", "port: 18790, reload: {mode: hot}"), encoding="utf-8")
    lines = (await run_command("config", "plan", str(draft), home=home)).out.splitlines()
    assert "kernel: needs a restart of the gateway, and waits for it" in lines


async def test_the_same_file_changes_nothing(home: Path) -> None:
    assert (await run_command("config", "plan", str(home / "openclaw.yaml"), home=home)).out.splitlines()[1:] == ["nothing changes"]


async def test_a_file_that_is_wrong_is_told_with_its_place(home: Path) -> None:
    (home / "draft.yaml").write_text("gateway: {prot: 1}", encoding="utf-8")
    shown = await run_command("config", "plan", str(home / "draft.yaml"), home=home)
    assert (shown.status, "did you mean 'port'?" in shown.err) == (78, True)
    missing = await run_command("config", "plan", str(home / "none.yaml"), home=home)
    assert (missing.status, "none.yaml" in missing.err) == (78, True)
