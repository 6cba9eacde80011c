"""What a child wrote, as it may be shown in states, errors and events: unlike the log, these are cleaned by nobody else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openclaw_config.redaction import known_spellings
from openclaw_config.secrets import REDACTED


def without_secrets(text: str) -> str:
    """Return the text with every secret that this process knows replaced by the redaction mark. Clean first and cut then."""
    for secret in known_spellings():
        text = text.replace(secret, REDACTED)
    return text


def data_without_secrets(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `data` of an error with its texts cleaned."""
    return {key: without_secrets(value) if isinstance(value, str) else value for key, value in data.items()}
