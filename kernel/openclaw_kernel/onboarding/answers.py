"""The answers, from a person or a file, and what they change in `openclaw.yaml`. Pure but for `read_answers`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StrictInt, StrictStr, ValidationError

from openclaw_config.load import explain
from openclaw_config.models import Model
from openclaw_config.secrets import Secret
from openclaw_config.source import ConfigError, Issue, KeyPath, dotted, line_of, parse, read_text

ProviderName = Literal["local", "openai", "anthropic", "claude-cli", "ollama", "echo"]

NEEDS_KEY: Final = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
"""Providers that ask for a key, and the variable in which people have it."""
FIRST_MODELS: Final = {"openai": "gpt-5-mini", "anthropic": "claude-sonnet-4-5"}
FIRST_MESSAGE: Final = "Say hello in one short sentence."
_SECRET: Final = frozenset({"apiKey", "botToken"})
_REFERENCE: Final = re.compile(r"^\$\{.+\}$", re.DOTALL)


class TelegramAnswers(Model):
    bot_token: Secret
    """The token that @BotFather gave, or a reference such as `${env:TELEGRAM_BOT_TOKEN}`."""
    allow_from: list[StrictInt | StrictStr] = []
    """Numeric ids of who may write; with nobody the bot tells a stranger its id."""


class Answers(Model):
    """The file of `--answers`; what is not in it is answered by its default."""

    provider: ProviderName = "local"
    """Who answers: a model on this machine, or a service."""
    api_key: Secret | None = None
    """The key of openai or anthropic, or a reference such as `${env:OPENAI_API_KEY}`."""
    base_url: Annotated[str, Field(min_length=1)] | None = None
    """Another server that speaks the provider's protocol."""
    model: Annotated[str, Field(min_length=1)] | None = None
    """The provider's name of the model; unset means its first."""
    telegram: TelegramAnswers | None = None
    """A Telegram bot; none without."""
    service: bool = False
    """Have systemd or launchd run the gateway from now on."""
    first_message: str | Literal[False] = FIRST_MESSAGE
    """What the agent is asked at the end; false asks nothing."""


class BadAnswers(Exception):
    """The answers cannot be used; the message names file, line, key and cure."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the answers make: a merge patch for `openclaw.yaml`, and secrets by the name of their file below `secrets/`."""

    patch: Mapping[str, Any]
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


def read_answers(path: Path) -> Answers:
    """Read a file of answers; raise `BadAnswers`."""
    if not path.exists():
        raise BadAnswers(f"{path}: the file is not there; name another with --answers")
    try:
        source = parse(path.name, read_text(path))
    except ConfigError as error:
        raise BadAnswers(str(error)) from error
    try:
        answers = Answers.model_validate(_with_secrets(source))
    except ValidationError as error:
        # A key that may be one thing or another has a fault for each; the first says enough.
        issues = {_place(source, item["loc"]): item for item in reversed(error.errors(include_url=False))}
        told = [_issue(path.name, source, where, item) for where, item in reversed(issues.items())]
        raise BadAnswers("\n".join(map(str, told))) from None
    fault = fault_of(answers)
    if fault is not None:
        key, found, cure = fault
        raise BadAnswers(str(Issue(path.name, line_of(source, (key,)), key, found, cure)))
    return answers


def fault_of(answers: Answers) -> tuple[str, str, str] | None:
    """What the answers lack together: key, what was found, cure."""
    token = None if answers.telegram is None else answers.telegram.bot_token
    texts = {"apiKey": answers.api_key, "telegram.botToken": token, "firstMessage": answers.first_message}
    for key, text in texts.items():
        if not (text.unwrap() if isinstance(text, Secret) else text or "-").strip():
            return key, "an empty text", "write one, or leave the key out"
    variable = NEEDS_KEY.get(answers.provider)
    if variable is not None and answers.api_key is None and answers.base_url is None:
        return "apiKey", f"none, and {answers.provider} asks for one", f"give it, or the reference ${{env:{variable}}}"
    if variable is None and answers.api_key is not None:
        return "apiKey", f"one for {answers.provider}, which asks for none", "remove it, or choose another provider"
    if answers.base_url is not None and answers.provider not in {"openai", "anthropic", "ollama"}:
        return "baseUrl", f"one for {answers.provider}, which has none", "remove it, or choose another provider"
    return None


def outcome_of(answers: Answers) -> Outcome:
    """What is to be written. A literal secret goes into a file of its own, and the configuration names that."""
    secrets: dict[str, str] = {}
    provider: dict[str, Any] = {}
    if answers.api_key is not None:
        provider["apiKey"] = _kept(answers.api_key, f"{answers.provider}-api-key", secrets)
    if answers.base_url is not None:
        provider["baseUrl"] = answers.base_url
    model = answers.model or FIRST_MODELS.get(answers.provider)
    patch: dict[str, Any] = {"models": {"providers": {answers.provider: provider}}}
    # A bare id means the first model of that provider, and no other provider.
    patch["agents"] = {"defaults": {"model": f"{answers.provider}/{model}" if model else answers.provider}}
    if answers.telegram is not None:
        token = _kept(answers.telegram.bot_token, "telegram-bot-token", secrets)
        telegram: dict[str, Any] = {"botToken": token}
        if answers.telegram.allow_from:
            telegram |= {"dmPolicy": "allowlist", "allowFrom": list(answers.telegram.allow_from)}
        patch["channels"] = {"telegram": telegram}
    return Outcome(patch, secrets)


def _kept(secret: Secret, name: str, secrets: dict[str, str]) -> str:
    text = secret.unwrap()
    if _REFERENCE.match(text):
        return text
    secrets[name] = text
    return f"${{file:secrets/{name}}}"


def _with_secrets(source: Mapping[str, Any]) -> dict[str, Any]:
    # References are kept as they are: it is the gateway that follows them.
    plain = {str(key): value for key, value in source.items()}
    if isinstance(plain.get("apiKey"), str):
        plain["apiKey"] = Secret(str(plain["apiKey"]))
    telegram = plain.get("telegram")
    if isinstance(telegram, dict) and isinstance(telegram.get("botToken"), str):
        plain["telegram"] = {**telegram, "botToken": Secret(str(telegram["botToken"]))}
    return plain


def _place(source: Any, loc: Sequence[str | int]) -> KeyPath:
    """The key that a fault is of: what comes behind a value names one of the forms that it may have."""
    where: list[str | int] = []
    node = source
    for part in loc:
        if not isinstance(node, dict) and not (isinstance(node, list) and isinstance(part, int)):
            break
        where.append(part)
        node = node.get(part) if isinstance(node, dict) else node[int(part)]
        if part in _SECRET:
            break
    return tuple(where)


def _issue(name: str, source: Mapping[str, Any], where: KeyPath, item: Any) -> Issue:
    # Who writes the token in the place of the section would see it on the screen.
    found, cure = explain(item, Answers, is_secret=bool(set(where) & _SECRET) or where == ("telegram",))
    return Issue(name, line_of(source, where), dotted(where), found, cure)
