"""A plugin's section as it is handed to its process: over the pipe, with its secrets in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from openclaw_config.redaction import names_secret
from openclaw_config.secrets import Secret
from openclaw_kernel.api.errors import ConfigRejected


def handed_over(value: Any, place: str, key: str = "") -> Any:
    """Return the value as JSON. What is a secret by its kind or its key is known as one from then on, wherever the child may show it.

    `place` is where it stands in the config. Raise `ConfigRejected` for what JSON does not have: a date, a number that is none.
    """
    if isinstance(value, Secret):
        return value.unwrap()
    if isinstance(value, Mapping):
        return {str(name): handed_over(each, f"{place}.{name}", str(name)) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [handed_over(each, f"{place}.{number}", key) for number, each in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigRejected(place, f"found {value}", "give a finite number: settings are handed over as JSON")
    if value is not None and not isinstance(value, str | int | float):
        raise ConfigRejected(place, f"found a {type(value).__name__}", "write it as a text, in quotes: settings are handed over as JSON")
    if isinstance(value, str) and value and names_secret(key):
        Secret(value)
    return value
