"""What the reference's own command line makes of an installation is taken over by `import openclaw`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openclaw_config.source import parse
from tests.conformance.cli.reference_cli import ReferenceCli
from tests.kernel.cli.command import run_command
from tests.kernel.importing.installation import BOT_TOKEN, everything

pytestmark = [pytest.mark.conformance, pytest.mark.requires("reference-cli"), pytest.mark.timeout(400)]


async def test_an_installation_of_the_reference_is_taken_over(tmp_path: Path) -> None:
    cli = ReferenceCli(tmp_path / "reference", "ws://127.0.0.1:1/", "unused")
    source = tmp_path / "reference" / ".openclaw"
    (source / "openclaw.json").write_text("{}")
    telegram = {"botToken": BOT_TOKEN, "allowFrom": ["7"], "dmPolicy": "allowlist"}
    for arguments in (
        ("config", "set", "gateway.port", "19002"),
        ("config", "set", "channels.telegram", json.dumps(telegram)),
        ("agents", "add", "work", "--workspace", str(tmp_path / "work"), "--non-interactive"),
    ):
        (await cli.run(*arguments)).text()
    assert (tmp_path / "work" / "AGENTS.md").exists()
    before = everything(source)
    home = tmp_path / "home"
    told = await run_command("import", "openclaw", str(source), "--json", home=home)
    assert told.status == 0, told.err
    assert everything(source) == before
    config = parse("f", (home / "openclaw.yaml").read_text())
    assert config["gateway"]["port"] == 19002
    assert config["channels"]["telegram"] == {**telegram, "botToken": "${file:secrets/channels-telegram-bottoken}"}
    assert set(config["agents"]["entries"]) == {"main", "work"}
    assert (home / "workspace" / "work" / "AGENTS.md").read_bytes() == (tmp_path / "work" / "AGENTS.md").read_bytes()
    assert BOT_TOKEN not in told.out
    assert (await run_command("config", "validate", home=home)).status == 0
