"""What of a kept config is shown: redacted as `config.get` is. No pydantic."""

from __future__ import annotations

from typing import Any

from openclaw_config.redaction import redact_source, secrets_in
from openclaw_config.secrets import known_secrets
from openclaw_config.source import ConfigError, parse


def redacted_text(name: str, text: str) -> str | None:
    """The text without its secrets; None where it cannot be read, or they cannot be told from the rest."""
    try:
        source = parse(name, text)
    except ConfigError:
        return None
    return redact_source(text, source, known_secrets() | frozenset(secrets_in(source)), lambda cleaned: _read_again(name, cleaned))


def _read_again(name: str, text: str) -> Any:
    try:
        return parse(name, text)
    except ConfigError as error:
        raise ValueError(str(error)) from error
