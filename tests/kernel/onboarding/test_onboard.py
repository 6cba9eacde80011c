"""From nothing to a first answer, by questions and by a file; nothing of what a person wrote is lost."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from openclaw_config.home import config_path, prepare_home
from openclaw_config.secrets import Secret
from openclaw_config.source import parse
from openclaw_kernel.onboarding.answers import Answers, BadAnswers, TelegramAnswers, outcome_of, read_answers
from openclaw_kernel.onboarding.writing import planned, write
from tests.kernel.cli.command import on_terminal, run_command

KEY = "sk-canary-of-onboarding"


def answers_in(folder: Path, text: str) -> Path:
    file = folder / "answers.yaml"
    file.write_text(text)
    return file


def with_a_port(home: Path) -> None:
    """A state folder as a first start makes it, whose port nobody else has."""
    prepare_home(home)
    path = config_path(home)
    path.write_text(path.read_text().replace("port: 18789", "port: 0"))


async def test_a_file_of_answers_leads_to_a_first_answer(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with_a_port(home)
    file = answers_in(tmp_path, "provider: echo\nfirstMessage: -- the heron stands\n")
    outcome = await run_command("onboard", "--answers", str(file), "--json", home=home)
    assert outcome.status == 0, outcome.err
    answer = outcome.json()
    assert "the heron stands" in answer["reply"]
    # It took its gateway away again.
    assert (await run_command("status", home=home)).status == 69


async def test_at_a_terminal_it_asks_shows_and_writes_only_then(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with_a_port(home)
    before = config_path(home).read_text()
    async with on_terminal("onboard", home=home) as terminal:
        await terminal.expect(r"number or name \[1\]")
        terminal.type("nobody\n")
        await terminal.expect(r"there is no nobody")
        terminal.type("openai\n")
        await terminal.expect(r"the key of openai \(not shown\)")
        terminal.type(f"{KEY}\n")
        await terminal.expect(r"model \[gpt-5-mini\]")
        terminal.type("\n")
        await terminal.expect(r"a Telegram bot\?")
        terminal.type("n\n")
        await terminal.expect(r"run the gateway from now on\?")
        terminal.type("n\n")
        shown = await terminal.expect(r"write this\?")
        assert "${file:secrets/openai-api-key}" in shown
        assert KEY not in terminal.shown
        terminal.type("n\n")
        await terminal.expect("nothing was changed")
        await terminal.process.wait()
    assert config_path(home).read_text() == before
    assert not (home / "secrets").exists()


async def test_who_cannot_be_asked_is_told_of_the_file(tmp_path: Path) -> None:
    refused = await run_command("onboard", home=tmp_path / "home")
    assert (refused.status, refused.out) == (2, "")
    assert "give --answers FILE" in refused.err


async def test_a_model_that_does_not_answer_is_said_and_the_answers_are_kept(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with_a_port(home)
    file = answers_in(tmp_path, f"provider: openai\napiKey: {KEY}\nbaseUrl: http://127.0.0.1:9/v1\n")
    outcome = await run_command("onboard", "--answers", str(file), home=home)
    assert outcome.status == 1
    assert "nobody answers yet" in outcome.err
    assert KEY not in outcome.out + outcome.err
    written = parse("openclaw.yaml", config_path(home).read_text())
    assert written["models"]["providers"]["openai"]["baseUrl"] == "http://127.0.0.1:9/v1"


def test_a_key_goes_into_a_file_of_its_own_and_all_else_stays_as_it_was(tmp_path: Path) -> None:
    prepare_home(tmp_path / "home")
    home = tmp_path / "home"
    before = config_path(home).read_text()
    telegram = TelegramAnswers(botToken=Secret("123:abc"), allowFrom=[42])
    outcome = outcome_of(Answers(provider="anthropic", apiKey=Secret(KEY), telegram=telegram))
    text, changes = planned(home, outcome)
    write(home, outcome, text)
    after = config_path(home).read_text()
    assert KEY not in after
    secret = home / "secrets" / "anthropic-api-key"
    assert secret.read_text().strip() == KEY
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    kept = [line for line in before.splitlines() if line.strip().startswith("#")]
    assert kept == [line for line in after.splitlines() if line.strip().startswith("#")]
    assert [sign for _, sign, _ in changes].count("-") == 0
    tree = parse("openclaw.yaml", after)
    assert tree["channels"]["telegram"]["allowFrom"] == [42]
    assert tree["agents"]["defaults"]["model"] == "anthropic/claude-sonnet-4-5"
    # Said again, it changes nothing more.
    assert planned(home, outcome) == (after, [])


def test_a_reference_stays_one_and_a_linked_file_stays_linked(tmp_path: Path) -> None:
    home = tmp_path / "home"
    prepare_home(home)
    elsewhere = tmp_path / "dotfiles.yaml"
    config_path(home).rename(elsewhere)
    config_path(home).symlink_to(elsewhere)
    outcome = outcome_of(Answers(provider="openai", apiKey=Secret("${env:OPENAI_API_KEY}")))
    text, _ = planned(home, outcome)
    write(home, outcome, text)
    assert config_path(home).is_symlink()
    assert "${env:OPENAI_API_KEY}" in elsewhere.read_text()
    assert not (home / "secrets").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("providr: echo\n", "answers.yaml:1: providr: unknown key 'providr'; did you mean 'provider'?"),
        ("provider: openai\n", "apiKey: none, and openai asks for one"),
        ("provider: echo\napiKey: sk-1\n", "answers.yaml:2: apiKey: one for echo, which asks for none"),
        ("provider: [\n", "not valid YAML"),
        ("provider: local\nbaseUrl: http://x\n", "baseUrl: one for local, which has none"),
        ("telegram: {botToken: x, allowFrom: [true]}\n", "telegram.allowFrom.0: found True"),
        ("telegram: {allowFrom: [1]}\n", "telegram.botToken: is missing; add it"),
        ("firstMessage: ' '\n", "answers.yaml:1: firstMessage: an empty text"),
        ("provider: openai\napiKey: ''\n", "answers.yaml:2: apiKey: an empty text"),
        ("telegram: {botToken: ''}\n", "telegram.botToken: an empty text"),
    ],
)
def test_answers_that_make_no_sense_are_placed_and_nothing_is_written(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(BadAnswers) as refused:
        read_answers(answers_in(tmp_path, text))
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (f"apiKey: [{KEY}]\n", "apiKey"),
        (f"apiKey: {{'is-instance[Secret]': {KEY}}}\n", "apiKey"),
        (f"telegram: {KEY}\n", "telegram"),
        ("apiKey: 31337\n", "apiKey"),
        ("telegram: {botToken: 31337}\n", "telegram.botToken"),
    ],
)
def test_a_wrong_key_is_placed_once_and_never_shown(tmp_path: Path, text: str, place: str) -> None:
    with pytest.raises(BadAnswers) as refused:
        read_answers(answers_in(tmp_path, text))
    told = str(refused.value)
    assert told.startswith(f"answers.yaml:1: {place}: found a")
    assert told.count("\n") == 0
    assert KEY not in told
    assert "31337" not in told


def test_a_file_that_is_not_there_is_looked_for_by_its_own_option(tmp_path: Path) -> None:
    with pytest.raises(BadAnswers, match="name another with --answers"):
        read_answers(tmp_path / "none.yaml")


def test_what_somebody_wrote_while_a_person_was_asked_is_not_written_over(tmp_path: Path) -> None:
    home = tmp_path / "home"
    prepare_home(home)
    outcome = outcome_of(Answers(provider="anthropic", apiKey=Secret(KEY)))
    text, _ = planned(home, outcome)
    later = config_path(home).read_text() + "# a line of somebody else\n"
    config_path(home).write_text(later)
    with pytest.raises(BadAnswers, match="changed meanwhile"):
        write(home, outcome, text)
    assert config_path(home).read_text() == later
    assert not (home / "secrets").exists()
