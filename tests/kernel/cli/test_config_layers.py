"""`config explain`, `config schema` and `config validate`: whose word counts, what may stand there, and all that is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from openclaw_config.home import DEFAULT_FILE
from openclaw_config.source import parse
from tests.kernel.cli.command import run_command
from tests.support.source_tree import ROOT

FILES = {
    "openclaw.yaml": "gateway:\n  port: 1\n  auth: {$include: auth.yaml}\nchannels:\n  telegram: {dmPolicy: open}\n",
    "auth.yaml": "mode: token\ntoken: of-the-include\n",
    "openclaw.night.yaml": "gateway: {port: 2, auth: {token: of-the-profile}}\n",
}


def written(folder: Path, files: Mapping[str, str] = FILES) -> Path:
    """A state folder with these files."""
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


async def explained(folder: Path, path: str, *arguments: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What `config explain --json` prints."""
    outcome = await run_command("config", "explain", path, "--json", *arguments, home=folder, env=dict(env or {}))
    assert outcome.status == 0, outcome.err
    told: dict[str, Any] = outcome.json()
    return told


async def test_explain_names_the_layer_and_line_that_won_and_those_that_lost(tmp_path: Path) -> None:
    told = await explained(written(tmp_path), "gateway.port", "--profile", "night", env={"OPENCLAW_CONFIG__GATEWAY__PORT": "3"})
    assert [(row["layer"], row["file"], row["line"], row["column"], row["value"]) for row in told["layers"]] == [
        ("environment", "OPENCLAW_CONFIG__GATEWAY__PORT", 0, 0, 3),
        ("profile", "openclaw.night.yaml", 1, 11, 2),
        ("file", "openclaw.yaml", 2, 3, 1),
        ("default", "", 0, 0, 18789),
    ]
    assert (told["value"], told["layer"]) == (3, "environment")
    shown = await run_command("config", "explain", "gateway.port", "--profile", "night", home=tmp_path)
    assert "gateway.port: 2\n" in shown.out
    assert "wins  profile  openclaw.night.yaml:1:11  2" in shown.out


async def test_explain_knows_what_nobody_sets_and_the_keys_of_plugins(tmp_path: Path) -> None:
    folder = written(tmp_path)
    told = await explained(folder, "gateway.bind")
    assert (told["value"], told["layer"], told["file"]) == ("loopback", "default", "")
    told = await explained(folder, "channels.telegram.dmPolicy")
    assert (told["value"], told["layer"], told["line"]) == ("open", "file", 5)
    assert told["layers"][-1] == {"layer": "default", "file": "", "line": 0, "column": 0, "value": "pairing"}
    assert told["description"]


async def test_explain_shows_no_secret_of_any_layer(tmp_path: Path) -> None:
    told = await explained(written(tmp_path), "gateway.auth", "--profile", "night")
    assert told["value"] == {"mode": "token", "token": "__OPENCLAW_REDACTED__"}
    told = await explained(
        tmp_path, "gateway.auth.token", "--profile", "night", env={"OPENCLAW_CONFIG__GATEWAY__AUTH__TOKEN": "of-the-env"}
    )
    assert [row["layer"] for row in told["layers"]] == ["environment", "profile", "include", "default"]
    assert {row["value"] for row in told["layers"]} == {"__OPENCLAW_REDACTED__", None}


async def test_explain_refuses_a_key_that_there_cannot_be(tmp_path: Path) -> None:
    outcome = await run_command("config", "explain", "gateway.prot", home=written(tmp_path))
    assert (outcome.status, outcome.err) == (1, "config explain: gateway.prot: there is no key 'prot'; did you mean 'port'?\n")


async def test_explain_needs_no_valid_file(tmp_path: Path) -> None:
    told = await explained(written(tmp_path, {"openclaw.yaml": "gateway: {prot: 1, port: many}\n"}), "gateway.port")
    assert told["value"] == "many"


async def test_schema_is_written_beside_the_file_and_says_what_validate_says(tmp_path: Path) -> None:
    folder = written(tmp_path, {"openclaw.yaml": DEFAULT_FILE})
    first = await run_command("config", "schema", "--write", "--json", home=folder)
    path = folder / "openclaw.schema.json"
    assert first.json() == {"path": str(path), "changed": True}
    assert (await run_command("config", "schema", "--write", "--json", home=folder)).json()["changed"] is False
    assert (await run_command("config", "schema", home=folder)).out == path.read_text(encoding="utf-8")
    validator = Draft202012Validator(json.loads(path.read_text(encoding="utf-8")))
    assert list(validator.iter_errors(parse("openclaw.yaml", DEFAULT_FILE))) == []
    for fault in (
        "gateway: {prot: 1}",
        "channels: {telegram: {botTokn: x}}",
        "models: {providers: {echo: {delayMs: fast}}}",
        "models: {providers: {mine: {}}}",
        "plugins: {entries: {control: {config: {x: 1}}}}",
    ):
        (folder / "openclaw.yaml").write_text(fault)
        assert list(validator.iter_errors(parse("openclaw.yaml", fault))), fault
        assert (await run_command("config", "validate", home=folder)).status == 78, fault


async def test_schema_of_one_key(tmp_path: Path) -> None:
    told = (await run_command("config", "schema", "channels.telegram.dmPolicy", home=written(tmp_path))).json()
    assert told["default"] == "pairing"
    assert "open" in told["anyOf"][0]["enum"]
    outcome = await run_command("config", "schema", "gatway", home=tmp_path)
    assert outcome.status == 1
    assert "no schema knows this key; at the top there are: gateway, " in outcome.err


async def test_validate_tells_everything_at_once_with_pointer_and_fix(tmp_path: Path) -> None:
    text = "channels:\n  telegram:\n    botTokn: x\n    groups: {'a/b': {requireMentoin: true}}\n  telegrm: {}\n"
    folder = written(tmp_path, {"openclaw.yaml": text})
    shown = await run_command("config", "validate", home=folder)
    assert shown.status == 78
    assert (
        "openclaw.yaml:3:5: channels.telegram.botTokn: unknown key 'botTokn'; did you mean 'botToken'?\n"
        "    pointer /channels/telegram/botTokn, fix config.unknown-key\n"
    ) in shown.err
    told = json.loads((await run_command("config", "validate", "--json", home=folder)).err)["error"]
    assert told["exit"] == 78
    assert {(issue["pointer"], issue["line"], issue["column"], issue["fix"]) for issue in told["issues"]} >= {
        ("/channels/telegram/botTokn", 3, 5, "config.unknown-key"),
        ("/channels/telegram/groups/a~1b/requireMentoin", 4, 22, "config.unknown-key"),
        ("/channels/telegrm", 5, 3, "config.unknown-plugin"),
    }


async def test_validate_checks_a_draft_as_if_it_stood_in_the_place_of_the_file(tmp_path: Path) -> None:
    folder = written(tmp_path)
    draft = tmp_path / "somewhere" / "draft.yaml"
    draft.parent.mkdir()
    draft.write_text("gateway: {auth: {$include: auth.yaml}}\n")
    assert (await run_command("config", "validate", str(draft), "--json", home=folder)).json() == {
        "path": str(draft),
        "valid": True,
        "files": [str(folder / "draft.yaml"), str(folder / "auth.yaml")],
    }
    draft.write_text("gateway: {prot: 1}\n")
    outcome = await run_command("config", "validate", str(draft), home=folder)
    assert (outcome.status, outcome.err.splitlines()[0]) == (78, "draft.yaml:1:11: gateway.prot: unknown key 'prot'; did you mean 'port'?")


@pytest.mark.parametrize("arguments", [["config", "validate"], ["status"]])
async def test_a_profile_that_is_not_there_is_told_by_every_command(arguments: list[str], tmp_path: Path) -> None:
    outcome = await run_command(*arguments, "--profile", "nigt", home=written(tmp_path))
    assert outcome.status == 78
    assert outcome.err.startswith("openclaw.nigt.yaml: the profile 'nigt': the file is not there; write that file, or ")


@pytest.mark.not_recorded("it is refused before there is a gateway")
async def test_a_start_that_is_refused_tells_programs_each_issue(tmp_path: Path) -> None:
    folder = written(tmp_path, {"openclaw.yaml": "gateway: {auth: {$include: auth.yaml}}\n", "auth.yaml": "mode: tokn\n"})
    outcome = await run_command("run", "--json", home=folder)
    told = json.loads(outcome.err)["error"]
    assert (outcome.status, told["exit"]) == (78, 78)
    assert [(issue["file"], issue["line"], issue["column"], issue["pointer"], issue["fix"]) for issue in told["issues"]] == [
        ("auth.yaml", 1, 1, "/gateway/auth/mode", "config.bad-value")
    ]


def test_the_schema_in_the_reference_takes_the_default_file_and_no_misspelt_one() -> None:
    validator = Draft202012Validator(json.loads((ROOT / "docs" / "reference" / "openclaw.schema.json").read_text(encoding="utf-8")))
    assert list(validator.iter_errors(parse("openclaw.yaml", DEFAULT_FILE))) == []
    for fault in ("gatway: {}", "channels: {telegram: {botTokn: x}}", "models: {providers: {openai: {apiKei: x}}}", "bindings: [{}]"):
        assert list(validator.iter_errors(parse("openclaw.yaml", fault))), fault
