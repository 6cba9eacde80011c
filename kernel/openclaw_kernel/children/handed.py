"""A plugin's section as it is handed to its process: over the pipe, with its secrets in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openclaw_config.redaction import names_secret
from openclaw_config.secrets import Secret


def handed_over(value: Any, key: str = "") -> Any:
    """Return the value as JSON. What is a secret by its kind or its key is known as one from then on, wherever the child may show it."""
    if isinstance(value, Secret):
        return value.unwrap()
    if isinstance(value, Mapping):
        return {str(name): handed_over(each, str(name)) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [handed_over(each, key) for each in value]
    if isinstance(value, str) and value and names_secret(key):
        Secret(value)
    return value
