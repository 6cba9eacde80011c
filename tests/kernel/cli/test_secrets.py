"""secrets list, set and check, all without a gateway, and none shows a value."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from openclaw_config.home import prepare_home
from tests.kernel.cli.command import Outcome, on_terminal, run_command

CONFIG = """\
gateway:
  auth: {token: "${file:gateway.token}"}
secrets:
  entries:
    github: "${file:secrets/github}"
    jira: "${exec:/bin/echo value-of-jira}"
    spare: value-of-spare
models:
  providers:
    openai: {apiKey: "${env:OPENAI_API_KEY}", headers: {X-Team: "${keyring:team/blue}"}}
channels:
  telegram:
    botToken: ${BOT_TOKEN}
agents:
  defaults: {secrets: [github]}
  entries:
    main: {secrets: [github, jira]}
plugins:
  entries:
    shell-tool: {config: {secretVariables: ["GH_TOKEN=github"]}}
"""
VALUES = ("value-of", "from-the-environment", "from-the-file")
VARIABLES = {"OPENAI_API_KEY": "from-the-environment", "BOT_TOKEN": "from-the-environment-too"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "openclaw.yaml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "gateway.token").write_text("from-the-file")
    return tmp_path


def keyring_in(home: Path) -> dict[str, str]:
    """The environment in which the keyring is a file."""
    return {"PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring", "KEYRING_PROPERTY_FILE_PATH": str(home / "keyring.cfg")}


async def secrets(*arguments: str, home: Path, stdin: str = "", **env: str) -> Outcome:
    outcome = await run_command("secrets", *arguments, home=home, stdin=stdin, env=env)
    assert not any(value in outcome.out + outcome.err for value in VALUES)
    return outcome


async def test_each_is_listed_with_its_kind_and_who_uses_it(home: Path) -> None:
    listed = await secrets("list", home=home)
    assert (listed.status, listed.err) == (0, "")
    assert [line.split(maxsplit=2) for line in listed.out.splitlines()[1:]] == [
        ["gateway.auth.token", "file", "gateway"],
        ["secrets.entries.github", "file", "agents.defaults, agents.entries.main, shell-tool as GH_TOKEN"],
        ["secrets.entries.jira", "exec", "agents.entries.main"],
        ["secrets.entries.spare", "this", "file  nobody"],
        ["models.providers.openai.apiKey", "env", "models.providers.openai"],
        ["models.providers.openai.headers.X-Team", "keyring", "models.providers.openai"],
        ["channels.telegram.botToken", "variable", "channels.telegram"],
    ]
    rows = (await secrets("--json", home=home)).json()["secrets"]
    assert rows[1] == {
        "key": "secrets.entries.github",
        "name": "github",
        "kind": "file",
        "file": "openclaw.yaml",
        "line": 5,
        "usedBy": ["agents.defaults", "agents.entries.main", "shell-tool as GH_TOKEN"],
    }


async def test_what_is_stored_in_a_file_is_private_and_found_by_its_reference(home: Path) -> None:
    stored = await secrets("set", "github", home=home, stdin="value-of-github\n")
    assert (stored.status, stored.out) == (0, "${file:secrets/github}\n")
    path = home / "secrets" / "github"
    assert path.read_text() == "value-of-github\n"
    assert [stat.S_IMODE(item.stat().st_mode) for item in (path, path.parent)] == [0o600, 0o700]
    again = await secrets("set", "github", "--json", home=home, stdin="  value-of-another  ")
    assert again.json() == {"name": "github", "reference": "${file:secrets/github}"}
    assert path.read_text() == "value-of-another\n"
    assert [item.name for item in path.parent.iterdir()] == ["github"]


async def test_before_the_first_start_it_makes_a_state_folder_that_a_start_takes(tmp_path: Path) -> None:
    home = tmp_path / "above" / "state"
    await secrets("set", "github", home=home, stdin="value-of-github")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (home.parent, home, home / "secrets")] == [0o700] * 3
    assert prepare_home(home)


async def test_what_is_no_text_is_refused_in_any_locale(home: Path) -> None:
    refused = await secrets("set", "github", home=home, stdin="value-of-\udcff", PYTHONIOENCODING="utf-8:surrogateescape")
    assert refused.status == 1
    assert refused.err == "secrets set: what came on stdin is not UTF-8 text; encode it, e.g. with base64\n"


async def test_a_link_in_its_place_is_replaced_and_not_followed(home: Path) -> None:
    (home / "secrets").mkdir()
    (home / "elsewhere").write_text("untouched")
    (home / "secrets" / "github").symlink_to(home / "elsewhere")
    assert (await secrets("set", "github", home=home, stdin="value-of-github")).status == 0
    assert (home / "elsewhere").read_text() == "untouched"
    assert not (home / "secrets" / "github").is_symlink()


async def test_it_is_typed_unseen_on_a_terminal(home: Path) -> None:
    async with on_terminal("secrets", "set", "github", home=home) as terminal:
        await terminal.expect(r"github \(not shown\): ")
        terminal.type("value-of-github\n")
        await terminal.expect("secrets/github")
        await terminal.process.wait()
        assert "value-of" not in terminal.shown
    assert (home / "secrets" / "github").read_text() == "value-of-github\n"


async def test_it_can_be_stored_in_the_keyring(home: Path) -> None:
    stored = await secrets("set", "blue", "--keyring", home=home, stdin="value-of-blue", **keyring_in(home))
    assert (stored.status, stored.out) == (0, "${keyring:openclaw-kernel/blue}\n")
    assert not (home / "secrets").exists()
    (home / "openclaw.yaml").write_text('secrets: {entries: {blue: "${keyring:openclaw-kernel/blue}"}}')
    checked = await secrets("check", home=home, **keyring_in(home))
    assert (checked.status, checked.out) == (0, "ok  secrets.entries.blue\n1 secrets, 0 fail\n")


async def test_a_keyring_that_cannot_be_used_is_named(home: Path) -> None:
    without = {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    refused = await secrets("set", "blue", "--keyring", home=home, stdin="value-of-blue", **without)
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.startswith("secrets set: there is no keyring on this machine that can be used; use ${file:PATH}")


@pytest.mark.parametrize(
    ("name", "value", "status", "complaint"),
    [
        ("../evil", "value-of", 2, "is no name"),
        ("Git", "value-of", 2, "is no name"),
        (".hidden", "value-of", 2, "is no name"),
        ("oauth", "value-of", 2, "is the folder of what auth login keeps"),
        ("github", " \n", 1, "there is no value; give it on stdin"),
        ("github", "value-of\0", 1, "it holds a NUL character"),
        ("github", "value-of" * 10_000, 1, "longer than 65536 bytes"),
    ],
)
async def test_what_cannot_be_stored_is_refused(home: Path, name: str, value: str, status: int, complaint: str) -> None:
    refused = await secrets("set", name, home=home, stdin=value)
    assert (refused.status, refused.out) == (status, "")
    assert complaint in refused.err
    assert not (home / "secrets").exists()


async def test_check_follows_all_and_says_which_fail(home: Path) -> None:
    checked = await secrets("check", home=home, OPENAI_API_KEY=VARIABLES["OPENAI_API_KEY"], **keyring_in(home))
    assert (checked.status, checked.err) == (1, "")
    assert [line.partition("; ")[0] for line in checked.out.splitlines()] == [
        "ok  gateway.auth.token",
        "fails  secrets.entries.github: openclaw.yaml:5: the file 'secrets/github' cannot be read (no such file or directory)",
        "ok  secrets.entries.jira",
        "ok  secrets.entries.spare",
        "ok  models.providers.openai.apiKey",
        "fails  models.providers.openai.headers.X-Team: openclaw.yaml:10: the keyring has no entry 'blue' of the service 'team'",
        "fails  channels.telegram.botToken: openclaw.yaml:13: the environment variable BOT_TOKEN is not set",
        "7 secrets, 3 fail",
    ]
    answer = (await secrets("check", "--json", home=home)).json()
    assert answer["ok"] is False
    assert [row["ok"] for row in answer["secrets"]] == [True, False, True, True, False, False, False]


async def test_a_config_without_secrets_has_none(tmp_path: Path) -> None:
    (tmp_path / "openclaw.yaml").write_text("gateway: {auth: {mode: none}}")
    for command in ("list", "check"):
        outcome = await secrets(command, home=tmp_path)
        assert (outcome.status, outcome.out) == (0, "openclaw.yaml has no secrets\n")
    (tmp_path / "openclaw.yaml").write_text("gateway: [")
    assert (await secrets("list", home=tmp_path)).status == 78


async def test_odd_shapes_are_listed_without_a_traceback(tmp_path: Path) -> None:
    odd = {"agents": {"defaults": [], "entries": {"main": 1}}, "plugins": {"entries": {"x": {"config": {"secretVariables": 1}}}}}
    (tmp_path / "openclaw.yaml").write_text(json.dumps({**odd, "secrets": {"entries": ["value-of-x"]}, "token": {"a": ["value-of-y"]}}))
    listed = await secrets("list", home=tmp_path)
    assert [line.split()[0] for line in listed.out.splitlines()] == ["SECRET", "secrets.entries.0", "token.a.0"]
