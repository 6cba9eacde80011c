"""A reference installation becomes one of ours: what is taken works, what is not is told, twice changes nothing, and no secret shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openclaw_config.home import prepare_home
from openclaw_config.source import parse
from openclaw_kernel.cli.exits import FAILED, OK
from tests.kernel.cli.command import Outcome, run_command
from tests.kernel.importing.installation import (
    BOT_TOKEN,
    CANARIES,
    GATEWAY_TOKEN,
    MAIN_ID,
    OLD_ID,
    database_installation,
    everything,
    file_installation,
)
from tests.support.gateway import StartGateway


async def take(source: Path, home: Path, *arguments: str, env: dict[str, str] | None = None) -> Outcome:
    """Run the command."""
    return await run_command("import", "openclaw", str(source), *arguments, "--json", home=home, env=env)


def left(told: dict[str, Any]) -> dict[str, str]:
    """What was not taken, by the end of its path."""
    return {line["path"].rpartition("/")[2]: line["why"] for line in told["notTaken"]}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An installation with files."""
    return file_installation(tmp_path / "reference")


async def test_a_dry_run_tells_all_and_changes_nothing(source: Path, tmp_path: Path) -> None:
    before = everything(source)
    told = await take(source, tmp_path / "home", "--dry-run")
    assert told.status == OK, told.err
    assert not (tmp_path / "home").exists()
    assert everything(source) == before
    done = await take(source, tmp_path / "home")
    assert {key: value for key, value in done.json().items() if key not in {"dryRun", "undo"}} == {
        key: value for key, value in told.json().items() if key not in {"dryRun", "undo"}
    }


async def test_what_is_alike_is_taken_and_what_is_called_otherwise_renamed(source: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    told = (await take(source, home)).json()
    config = json.loads(json.dumps(parse("f", (home / "openclaw.yaml").read_text())))
    assert config["gateway"] | {"auth": {}} == {
        "port": 19001,
        "bind": "lan",
        "mode": "local",
        "auth": {},
        "reload": {"mode": "hot", "debounceMs": 500},
    }
    assert config["agents"] == {
        "defaults": {
            "timeoutSeconds": 900,
            "model": {"primary": "openai/gpt-5-mini", "fallbacks": ["anthropic/claude-sonnet-4-5"]},
            "thinking": "low",
        },
        "entries": {
            "main": {"default": True, "identity": {"name": "Clawd", "emoji": "x"}},
            "work": {"name": "Worker", "model": "anthropic/claude-sonnet-4-5", "tools": {"deny": ["shell"]}},
        },
    }
    assert config["bindings"][0] == {
        "agentId": "work",
        "match": {"channel": "telegram", "accountId": "second", "peer": {"kind": "direct", "id": "4711"}},
    }
    telegram = config["channels"]["telegram"]
    assert telegram["allowFrom"] == ["7", 8, "4242"]
    assert telegram["streaming"] == "partial"
    assert list(config["channels"]) == ["telegram"]
    assert (config["logging"], config["session"]["dmScope"]) == ({"level": "warning"}, "per-channel-peer")
    assert sorted(config["models"]["providers"]) == ["anthropic", "local", "openai", "openrouter"]
    assert (home / "workspace" / "main" / "memory" / "2026-07-01.md").read_text() == "milk\n"
    assert (home / "workspace" / "work" / "SOUL.md").read_text() == "work\n"
    assert not (home / "workspace" / "main" / "node_modules").exists()
    why = left(told)
    assert "there is nothing like it here" in why["gateway.tailscale"]
    assert "no channel plugin 'whatsapp'" in why["channels.whatsapp"]
    assert "NOT_SET_ANYWHERE" in why["models.providers.mistral.apiKey"]
    assert "unknown key 'skills'" in why["channels.telegram.groups.-100200.skills"]
    assert "it is a link" in why["elsewhere"]
    assert "no person led" in why["44444444-dddd.jsonl"]
    assert "log in anew" in why["auth-profiles.json#openai-codex:default"]
    assert "agents.json5" not in why
    assert told["sessions"] == 2


async def test_what_was_written_is_valid_and_doctor_finds_no_fault_in_it(source: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    await take(source, home)
    assert (await run_command("config", "validate", home=home)).status == OK
    only = [
        part
        for check in ("config.unknown-key", "config.bad-value", "config.section", "config.unresolved-reference")
        for part in ("--only", check)
    ]
    assert (await run_command("doctor", *only, home=home)).status == OK


async def test_twice_changes_nothing_more(source: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    await take(source, home)
    after = everything(home)
    again = (await take(source, home)).json()
    assert everything(home) == after
    assert (again["taken"], again["changed"], again["written"], again["sessions"], again["undo"]) == ([], [], [], 0, None)
    assert again["alreadyHere"] > 20


async def test_no_secret_is_printed_or_stands_outside_its_file(source: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = await take(source, home)
    shown = done.out + done.err + (await run_command("import", "openclaw", str(source), home=home)).out
    assert not [canary for canary in CANARIES if canary in shown]
    files = everything(home)
    for canary in CANARIES:
        holders = [name for name, content in files.items() if canary.encode() in content]
        assert len(holders) == 1, (canary, holders)
        assert holders[0].startswith("secrets/")
        assert (home / holders[0]).stat().st_mode & 0o777 == 0o600
    assert GATEWAY_TOKEN in (home / "secrets" / "gateway-auth-token").read_text()


@pytest.mark.parametrize(
    ("named", "stands"),
    [
        ("~/.openclaw/ours", "reference/ours"),
        ("~/elsewhere", "person/elsewhere"),
        ("~/.openclaw-other/ours", "person/.openclaw-other/ours"),
        ("~of-nobody-here/ours", "reference/~of-nobody-here/ours"),
    ],
)
async def test_a_workspace_whose_name_begins_with_a_tilde_is_found(tmp_path: Path, named: str, stands: str) -> None:
    source = tmp_path / "reference"
    source.mkdir()
    (source / "openclaw.json").write_text(json.dumps({"agents": {"entries": {"main": {"workspace": named}}}}))
    person = {"HOME": str(tmp_path / "person")}
    told = await take(source, tmp_path / "home", "--dry-run", env=person)
    assert told.status == OK, told.err
    assert left(told.json())["ours" if named.endswith("ours") else "elsewhere"].startswith("the workspace of agent 'main' is not there")

    (tmp_path / stands).mkdir(parents=True)
    (tmp_path / stands / "NOTES.md").write_text("of the agent")
    told = await take(source, tmp_path / "home", env=person)
    assert told.status == OK, told.err
    assert (tmp_path / "home" / "workspace" / "main" / "NOTES.md").read_text() == "of the agent"


async def test_what_openclaw_yaml_says_already_stays(source: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    prepare_home(home)
    file = home / "openclaw.yaml"
    mine = file.read_text().replace("port: 18789 ", "port: 18999 ") + "# mine\nlogging: {level: error}\n"
    file.write_text(mine)
    (home / "workspace" / "main").mkdir(parents=True)
    (home / "workspace" / "main" / "AGENTS.md").write_text("be strict\n")
    told = (await take(source, home)).json()
    assert "port: 18999 " in file.read_text()
    assert "# mine\nlogging: {level: error}\n" in file.read_text()
    assert (home / "workspace" / "main" / "AGENTS.md").read_text() == "be strict\n"
    why = left(told)
    assert "openclaw.yaml says something else at gateway.port, which stays" in why["gateway.port"]
    assert "is there already, and says something else" in why["AGENTS.md"]
    undone = await run_command("doctor", "--undo", told["undo"], home=home)
    assert (undone.status, file.read_text()) == (OK, mine)


async def test_a_variable_of_this_machine_becomes_a_reference_to_it(tmp_path: Path) -> None:
    folder = tmp_path / "reference"
    folder.mkdir()
    config = "{channels: {telegram: {botToken: '${HERE}', webhookUrl: 'https://${NAME}.example.org/telegram-webhook', allowFrom: ['7']}}}"
    (folder / "openclaw.json").write_text(config)
    home = tmp_path / "home"
    told = await take(folder, home, env={"HERE": BOT_TOKEN, "NAME": "bot"})
    assert told.status == OK, told.err
    telegram = parse("f", (home / "openclaw.yaml").read_text())["channels"]["telegram"]
    assert telegram["botToken"] == "${env:HERE}"
    assert telegram["webhookUrl"] == "https://bot.example.org/telegram-webhook"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "there is no openclaw.json"),
        ({"openclaw.json": "{a: "}, "is no JSON5"),
        ({"openclaw.json": "[1]"}, "where the reference has a mapping"),
        ({"openclaw.json": "{$include: './a.json'}", "a.json": "{$include: './openclaw.json'}"}, "includes itself"),
        ({"openclaw.json": "{$include: '../outside.json'}", "../outside.json": "{}"}, "lies outside"),
        ({"openclaw.json": "{$include: 'none.json'}"}, "is not there"),
        ({"openclaw.json": "{$include: 7}"}, "it names a file"),
    ],
)
async def test_what_cannot_be_read_is_named_and_nothing_is_made(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    folder = tmp_path / "reference"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    told = await take(folder, tmp_path / "home")
    assert told.status == FAILED
    assert expected in told.err
    assert not (tmp_path / "home").exists()


async def test_a_file_of_ours_that_is_broken_is_left_alone(source: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    prepare_home(home)
    (home / "openclaw.yaml").write_text("gateway: [\n")
    told = await take(source, home)
    assert (told.status, "openclaw-kernel doctor" in told.err) == (FAILED, True)
    assert (home / "openclaw.yaml").read_text() == "gateway: [\n"
    assert not (home / "secrets").exists()


async def test_a_source_within_the_state_folder_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    prepare_home(home)
    told = await take(file_installation(home / "reference"), home)
    assert "lie in each other" in told.err


@pytest.mark.parametrize("kind", ["files", "database"])
async def test_sessions_are_there_once_the_gateway_serves_and_go_on(tmp_path: Path, start_gateway: StartGateway, kind: str) -> None:
    folder = tmp_path / "reference"
    source, session_id = (file_installation(folder), MAIN_ID) if kind == "files" else (database_installation(folder), OLD_ID)
    before = everything(source)
    gateway = await start_gateway({})
    await gateway.stop()
    told = await take(source, gateway.home)
    assert told.status == OK, told.err
    assert everything(source) == before
    await gateway.start()
    async with gateway.connect() as client:
        found = await _session(client, "agent:main:main")
        assert found["sessionId"] == session_id
        history = await client.request("chat.history", {"sessionKey": "agent:main:main"})
        roles = [message["role"] for message in history["messages"]]
        assert roles == ["user", "assistant", "toolResult", "assistant"]
        assert "rewound" not in json.dumps(history)
        assert history["messages"][-1]["content"] == [{"type": "text", "text": "Milk."}]
    await gateway.stop()
    waiting = list((gateway.home / "imports" / "sessions").glob("*.jsonl"))
    assert waiting == []
    again = (await take(source, gateway.home)).json()
    assert again["sessions"] == 0
    if kind == "database":
        assert [line for line in told.json()["notTaken"] if line["path"].endswith(OLD_ID) and "Zstandard" in line["why"]]
        config = parse("f", (gateway.home / "openclaw.yaml").read_text())
        assert config["channels"]["telegram"]["allowFrom"] == ["7", "4242"]


async def _session(client: Any, key: str) -> dict[str, Any]:
    """Ask until it is there: it is taken up behind what people wait for."""
    import asyncio

    for _ in range(200):
        rows = (await client.request("sessions.list", {}))["sessions"]
        found = [row for row in rows if row["key"] == key]
        if found:
            return dict(found[0])
        await asyncio.sleep(0.05)
    raise AssertionError(f"{key} did not come")


async def test_a_secret_that_was_given_anew_here_is_not_written_over(source: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    await take(source, home)
    secret = home / "secrets" / "channels-telegram-bottoken"
    secret.write_text("123456:given-anew\n")
    told = (await take(source, home)).json()
    assert secret.read_text() == "123456:given-anew\n"
    assert not (home / "secrets" / "channels-telegram-bottoken-2").exists()
    assert "which stays" in left(told)["channels.telegram.botToken"]
    assert told["written"] == []
