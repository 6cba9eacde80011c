"""config get, file and validate, all without a gateway."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel.cli.command import Outcome, run_command

CONFIG = """\
# mine
gateway:
  port: 1234   # chosen
  auth:
    mode: token
    token: very-secret-token
models:
  providers:
    echo: {}
    openai: {apiKey: "${env:NOSUCH_KEY}"}
    local: {enabled: true}
channels:
  telegram:
    botToken: "123:very-secret-too"
    allowFrom: [1, 2]
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "openclaw.yaml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


async def get(home: Path, *arguments: str) -> Outcome:
    outcome = await run_command("config", "get", *arguments, home=home)
    assert "very-secret" not in outcome.out + outcome.err
    return outcome


async def test_the_file_is_printed_as_it_stands_without_its_secrets(home: Path) -> None:
    shown = await get(home)
    assert shown.status == 0
    expected = CONFIG.replace("very-secret-token", "__OPENCLAW_REDACTED__").replace("123:very-secret-too", "__OPENCLAW_REDACTED__")
    assert shown.out == expected
    whole = (await get(home, "--json")).json()
    assert whole["gateway"] == {"port": 1234, "auth": {"mode": "token", "token": "__OPENCLAW_REDACTED__"}}


async def test_one_key_is_printed(home: Path) -> None:
    assert (await get(home, "gateway.port")).out == "1234\n"
    assert (await get(home, "gateway.auth")).out == "mode: token\ntoken: __OPENCLAW_REDACTED__\n"
    assert (await get(home, "channels.telegram.allowFrom.1")).out == "2\n"
    assert (await get(home, "models.providers.openai.apiKey")).out == "${env:NOSUCH_KEY}\n"
    assert (await get(home, "models.providers.local.enabled")).out == "true\n"
    assert (await get(home, "channels.telegram.botToken")).out == "__OPENCLAW_REDACTED__\n"
    assert (await get(home, "gateway.auth", "--json")).json()["mode"] == "token"


async def test_a_key_that_is_not_there_is_named(home: Path) -> None:
    missing = await get(home, "gateway.prot")
    assert (missing.status, missing.out) == (1, "")
    assert missing.err == "openclaw.yaml: gateway.prot: is not in the file; here are: port, auth\n"
    below = await get(home, "gateway.port.deeper")
    assert below.err == "openclaw.yaml: gateway.port.deeper: is not in the file; nothing is below gateway.port\n"
    for index in ("\u00b2", "2", "9" * 5000):
        beyond = await get(home, f"channels.telegram.allowFrom.{index}")
        assert (beyond.status, beyond.err.endswith("is not in the file; nothing is below channels.telegram.allowFrom\n")) == (1, True)


async def test_the_path_of_the_file_is_printed(home: Path, tmp_path: Path) -> None:
    assert (await run_command("config", "file", home=home)).out == f"{home}/openclaw.yaml\n"
    elsewhere = await run_command("config", "file", "--json", "--home", "/nowhere", home=tmp_path)
    assert elsewhere.json() == {"path": "/nowhere/openclaw.yaml", "exists": False}


async def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    for action in ("get", "validate"):
        outcome = await run_command("config", action, home=tmp_path)
        assert outcome.status == 78
        assert "the file is not there" in outcome.err


async def test_a_good_file_validates(home: Path) -> None:
    outcome = await run_command("config", "validate", home=home, env={"NOSUCH_KEY": "x"})
    assert (outcome.status, outcome.out, outcome.err) == (0, f"{home}/openclaw.yaml is valid\n", "")
    answered = await run_command("config", "validate", "--json", home=home, env={"NOSUCH_KEY": "x"})
    assert answered.json() == {"path": f"{home}/openclaw.yaml", "valid": True, "files": [f"{home}/openclaw.yaml"]}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("gateway:\n  prot: 1\n", "openclaw.yaml:2:3: gateway.prot: unknown key 'prot'; did you mean 'port'?"),
        ("models: {providers: {openai: {apiKey: '${env:NOSUCH}'}}}", "the environment variable NOSUCH is not set"),
        ("channels:\n  telegram:\n    botTokn: x\n", "openclaw.yaml:3:5: channels.telegram.botTokn: unknown key 'botTokn'"),
        (
            "channels:\n\n  telegrm: {}\n",
            "openclaw.yaml:3:3: channels.telegrm: no channel plugin 'telegrm' is installed; did you mean 'telegram'?",
        ),
        ("models: {providers: {echo: {delayMs: fast}}}", "openclaw.yaml:1:29: models.providers.echo.delayMs: "),
        ("plugins:\n  entries:\n    web-tools: {config: {nonsense: 1}}", "openclaw.yaml:3:26: plugins.entries.web-tools.config.nonsense: "),
        ("plugins: {entries: {control: {config: {x: 1}}}}", "the plugin takes no settings"),
    ],
)
async def test_what_is_wrong_is_told_with_its_place(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "openclaw.yaml").write_text(text, encoding="utf-8")
    outcome = await run_command("config", "validate", home=tmp_path)
    assert (outcome.status, outcome.out) == (78, "")
    assert complaint in outcome.err


async def test_sections_of_plugins_that_do_not_run_are_left_alone(tmp_path: Path) -> None:
    text = "channels: {telegram: {enabled: false, nonsense: 1}}\nplugins: {entries: {web-tools: {enabled: false, config: {nonsense: 1}}}}"
    (tmp_path / "openclaw.yaml").write_text(text, encoding="utf-8")
    assert (await run_command("config", "validate", home=tmp_path)).status == 0
