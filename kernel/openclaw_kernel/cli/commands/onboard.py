"""`openclaw-kernel onboard`: from nothing to a first answer, by questions or by a file of answers."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclaw_kernel.cli.errors import BadConfig, BadUsage, CommandFailed
from openclaw_kernel.cli.exits import OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import GREEN, RED, emit, emit_json, note, paint_out, printable

if TYPE_CHECKING:
    from openclaw_kernel.onboarding.answers import Answers, Outcome

_PROVIDERS = {
    "local": "a small model on this machine: no key, no account",
    "openai": "OpenAI, with a key",
    "anthropic": "Anthropic, with a key",
    "claude-cli": "the claude command, with its own login",
    "ollama": "an Ollama on this machine",
}


def add(commands: Commands) -> None:
    """Add the command."""
    details = """\
Asks who is to answer, whether there is a Telegram bot, and whether the gateway is to be a service; shows what it would change in
openclaw.yaml, changes that and nothing else, and has the agent answer once. Keys go into files of their own, readable by you alone.

--answers FILE asks nothing: a YAML file with provider (local, openai, anthropic, claude-cli, ollama, echo), apiKey, baseUrl, model,
telegram: {botToken, allowFrom}, service, firstMessage; all may be left out, keys may be references such as ${env:OPENAI_API_KEY}."""
    parser = commands.add("onboard", "set up a gateway and get a first answer", run=run, details=details)
    parser.add_argument("--answers", metavar="FILE", help="take the answers from this file and ask nothing", default=None)


def run(options: argparse.Namespace) -> int:
    """Ask or read, write, try."""
    from openclaw_config.home import find_home, prepare_home
    from openclaw_kernel.onboarding.answers import BadAnswers, outcome_of, read_answers
    from openclaw_kernel.onboarding.writing import planned, write

    began = time.monotonic()
    home = find_home(options.home)
    try:
        answers = _asked() if options.answers is None else read_answers(Path(options.answers).expanduser().absolute())
        first = prepare_home(home)
        outcome = outcome_of(answers)
        text, changes = planned(home, outcome)
        if not options.json:
            _show(home, outcome, changes)
        if options.answers is None and changes and not _yes("write this?", otherwise=True):
            emit("nothing was changed" + (f", but {home} was made" if first else ""))
            return OK
        write(home, outcome, text)
    except BadAnswers as error:
        raise BadConfig(f"onboard: {error}") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CommandFailed(f"onboard: {error.filename or home}: cannot be written ({reason}); make it writable, or use --home") from error
    reply = _first_reply(options, home, answers, began)
    if answers.service:
        _install_service(options)
    if options.json:
        seconds = round(time.monotonic() - began, 3)
        emit_json({"home": str(home), "changed": len(changes), "reply": reply, "service": answers.service, "seconds": seconds})
    elif not answers.service:
        emit(f"next: openclaw-kernel run{'' if options.home is None else f' --home {home}'}")
    return OK


def _asked() -> Answers:
    from openclaw_config.secrets import Secret
    from openclaw_kernel.onboarding.answers import FIRST_MESSAGE, FIRST_MODELS, NEEDS_KEY, Answers, TelegramAnswers

    if not sys.stdin.isatty():
        raise BadUsage("onboard: nobody can be asked here, for stdin is no terminal; give --answers FILE")
    emit("who answers?")
    for number, (name, what) in enumerate(_PROVIDERS.items(), 1):
        emit(f"  {number}  {name}: {what}")
    provider: Any = _choice(list(_PROVIDERS))
    key = _key(provider, NEEDS_KEY[provider]) if provider in NEEDS_KEY else None
    model = _line(f"model [{FIRST_MODELS[provider]}]: ") if provider in FIRST_MODELS else ""
    telegram = None
    if _yes("a Telegram bot?", otherwise=False):
        token = _secret("its token, from @BotFather")
        people = _line("numeric ids of who may write to it, with spaces between (none: strangers are told theirs): ")
        telegram = TelegramAnswers(botToken=Secret(token), allowFrom=people.replace(",", " ").split())
    service = _yes("have this system run the gateway from now on?", otherwise=False)
    return Answers(
        provider=provider,
        apiKey=None if key is None else Secret(key),
        model=model or None,
        telegram=telegram,
        service=service,
        firstMessage=FIRST_MESSAGE,
    )


def _key(provider: str, variable: str) -> str:
    if os.environ.get(variable) and _yes(f"use the key in {variable}? (it is copied into a file of its own)", otherwise=True):
        return os.environ[variable]
    return _secret(f"the key of {provider}")


def _secret(what: str) -> str:
    while not (value := getpass.getpass(f"{what} (not shown): ").strip()):
        emit("it is empty; paste it again, or stop with Ctrl+C")
    return value


def _choice(names: list[str]) -> str:
    while True:
        answer = _line("number or name [1]: ") or "1"
        if answer in names:
            return answer
        if answer.isdecimal() and 0 < int(answer) <= len(names):
            return names[int(answer) - 1]
        emit(f"there is no {printable(answer)}; give a number from 1 to {len(names)}")


def _yes(question: str, *, otherwise: bool) -> bool:
    while True:
        answer = _line(f"{question} [{'Y/n' if otherwise else 'y/N'}] ").lower()
        if answer in {"", "y", "yes", "n", "no"}:
            return otherwise if not answer else answer[0] == "y"
        emit("say y or n")


def _line(prompt: str) -> str:
    try:
        return input(prompt).strip()
    except EOFError:
        raise CommandFailed("onboard: the input ended; nothing was changed") from None


def _show(home: Path, outcome: Outcome, changes: Any) -> None:
    from openclaw_config.home import config_path

    if not changes:
        emit(f"{config_path(home)} says all this already")
    else:
        emit(f"{config_path(home)}:")
    for number, sign, line in changes:
        emit(paint_out(f"  {number:>4} {sign} {printable(line)}", GREEN if sign == "+" else RED))
    for name in outcome.secrets:
        emit(f"{home / 'secrets' / name}: the secret, readable by you alone")


def _first_reply(options: argparse.Namespace, home: Path, answers: Answers, began: float) -> str | None:
    """Have the agent answer once: by the gateway that runs, or by one that runs for as long as that takes."""
    from openclaw_kernel.onboarding.trying import NoReply, first_reply

    if answers.first_message is False:
        return None
    if not options.json:
        emit(f"\n> {printable(answers.first_message)}")
    try:
        reply = first_reply(home, answers.first_message)
    except NoReply as error:
        raise CommandFailed(f"onboard: openclaw.yaml is written, but nobody answers yet: {error}") from error
    if not options.json:
        emit(printable(reply))
        note(f"a first answer after {time.monotonic() - began:.0f} s")
    return reply


def _install_service(options: argparse.Namespace) -> None:
    from openclaw_kernel.cli.commands.service import facts_of, manager_of
    from openclaw_kernel.service.managers import ServiceError, install

    try:
        install(manager_of(options), facts_of(options), start=True)
    except ServiceError as error:
        raise CommandFailed(f"onboard: all is set up, but the service is not: {error}") from error
    if not options.json:
        emit("the gateway runs as a service; openclaw-kernel service status tells of it")
