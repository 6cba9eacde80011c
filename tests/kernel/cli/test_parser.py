"""The command line as one meets it: help, usage, where options may stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from openclaw_kernel.cli.main import build_parser, main
from openclaw_kernel.cli.parsing import Commands
from tests.kernel.cli.command import run_command

COMMANDS = (
    *("onboard", "run", "open", "status", "health", "restart", "chat", "call", "logs", "why", "dead"),
    *("devices", "qr", "audit", "plugins", "config", "secrets", "security", "doctor", "service", "backup"),
    *("import", "auth", "version", "completion"),
)
WRITES = {"set": ["gateway.port", "1"], "unset": ["gateway.port"], "patch": ["-"], "apply": ["-"]}
TAKES_AN_ID = {"explain", "restore", "set", "login", "logout", "reject", "remove", "rotate", "revoke", "why", "show", "retry", "forget"}
TAKE_ONE = [
    ["backup", "verify"],
    ["config", "plan"],
    *(["plugins", name] for name in ("enable", "disable", "reload", "install", "upgrade")),
]


async def test_help_names_every_command_and_exit_code(tmp_path: Path) -> None:
    shown = await run_command("--help", home=tmp_path)
    assert shown.status == 0
    for name in COMMANDS:
        assert f"\n    {name} " in shown.out
    for code in (0, 1, 2, 69, 71, 75, 78):
        assert f"\n  {code} " in shown.out


def test_every_command_takes_a_home_and_json() -> None:
    parser, commands = build_parser()
    paths = _paths(commands)
    assert [path[0] for path in paths if len(path) == 1] == list(COMMANDS)
    for path in paths:
        further = {"rollback": ["1", "--reason", "some"], "openclaw": ["some"]}
        arguments = {"completion": ["bash"], "info": ["echo"], "rename": ["some", "name"], **further}.get(
            path[-1], ["some"] if path[-1] in TAKES_AN_ID or path in TAKE_ONE else []
        )
        arguments = WRITES.get(path[-1], arguments) if path[0] == "config" else arguments
        if path in (["config"], ["backup"], ["import"]):
            continue
        options = parser.parse_args([*path, *arguments, "--home", "/somewhere", "--json"])
        assert (options.home, options.json) == ("/somewhere", True), path
        options = parser.parse_args(["--home", "/somewhere", "--json", *path, *arguments])
        assert (options.home, options.json) == ("/somewhere", True), path


def _paths(commands: Commands) -> list[list[str]]:
    below = {name: [[name, *path] for path in _paths(commands.below[name])] if name in commands.below else [] for name in commands.parsers}
    return [path for name in commands.parsers for path in ([name], *below[name])]


def test_help_of_each_command_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0
        assert "--home" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["status", "--nonsense"],
        ["config"],
        ["call"],
        ["call", "health", "[1]"],
        ["call", "health", "{"],
        ["chat", "-m", " "],
        ["chat", "--json"],
        ["logs", "-n", "many"],
        ["completion", "tcsh"],
        ["status", "--url", "ftp://nowhere"],
    ],
)
async def test_a_wrong_command_line_ends_with_2(arguments: list[str], tmp_path: Path) -> None:
    outcome = await run_command(*arguments, home=tmp_path)
    assert outcome.status == 2
    assert outcome.out == ""
    assert outcome.err
    assert "Traceback" not in outcome.err


async def test_version_is_printed(tmp_path: Path) -> None:
    assert (await run_command("version", home=tmp_path)).out == "openclaw-kernel 0.1.0\n"
    assert (await run_command("--version", home=tmp_path)).out == "openclaw-kernel 0.1.0\n"
    assert (await run_command("version", "--json", home=tmp_path)).json()["protocol"] == 4


async def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    outcome = await run_command("completion", "fish", home=tmp_path)
    assert outcome.status == 0
    import asyncio

    from tests.kernel.cli.command import COMMAND, environment

    shell = f"{' '.join(COMMAND)} completion fish | head -n 1"
    process = await asyncio.create_subprocess_shell(
        shell, env=environment(tmp_path), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert out.startswith(b"# fish completion")
    assert err == b""
