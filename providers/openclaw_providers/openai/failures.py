"""Why a call failed, read from what the SDK raised; pure and without importing it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from openclaw_kernel.api import ProviderErrorKind
from openclaw_kernel.api.remote import is_number, kind_of_status

#: The words of OpenAI, vLLM, Ollama and LM Studio for a prompt that does not fit.
_TOO_LONG: Final = re.compile(
    r"context_length_exceeded|maximum context length|context (?:length|window|size)|prompt is too long"
    r"|too many tokens|exceeds? the (?:available )?context|input (?:is )?too long",
    re.IGNORECASE,
)
_REFUSED: Final = re.compile(r"content[_ ](?:policy|filter)|safety system|moderation", re.IGNORECASE)
_OVERLOADED: Final = re.compile(r"overloaded|at capacity|temporarily unavailable", re.IGNORECASE)
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def error_fields(body: object) -> tuple[str, str]:
    """Return (code or type, message) of an error body, empty where it has none."""
    inner = body.get("error", body) if isinstance(body, Mapping) else None
    if isinstance(inner, str):
        return "", inner
    if not isinstance(inner, Mapping):
        return "", body if isinstance(body, str) else ""
    code = inner.get("code") or inner.get("type") or ""
    return str(code), str(inner.get("message") or "")


def kind_of(status: int | None, code: str, message: str) -> ProviderErrorKind:
    """Decide the kind of a failure; `status` is None for an error inside a stream that had begun."""
    if status is None and code.isdigit():
        status = int(code)
    # Money that is used up comes as 429, but no waiting mends it.
    if code in ("insufficient_quota", "billing_hard_limit_reached"):
        return ProviderErrorKind.AUTH
    if status is None:
        return _kind_by_words(code, message)
    kind = kind_of_status(status)
    if kind is ProviderErrorKind.UNAVAILABLE and _OVERLOADED.search(message):
        return ProviderErrorKind.OVERLOADED
    if kind is not None:
        return kind
    if _TOO_LONG.search(f"{code} {message}"):
        return ProviderErrorKind.CONTEXT_LENGTH
    if _REFUSED.search(f"{code} {message}"):
        return ProviderErrorKind.REFUSAL
    return ProviderErrorKind.BAD_REQUEST


def _kind_by_words(code: str, message: str) -> ProviderErrorKind:
    if "rate_limit" in code:
        return ProviderErrorKind.RATE_LIMIT
    if _OVERLOADED.search(f"{code} {message}"):
        return ProviderErrorKind.OVERLOADED
    if _TOO_LONG.search(f"{code} {message}"):
        return ProviderErrorKind.CONTEXT_LENGTH
    return ProviderErrorKind.UNAVAILABLE


def reset_of(headers: Mapping[str, str], _now: datetime) -> float | None:
    """Return the seconds until the limit that has nothing left is reset, else until the latest reset."""
    resets: dict[str, float] = {}
    for limit in ("requests", "tokens"):
        seconds = _duration(headers.get(f"x-ratelimit-reset-{limit}", ""))
        if seconds is not None:
            resets[limit] = seconds
    used_up = [seconds for limit, seconds in resets.items() if headers.get(f"x-ratelimit-remaining-{limit}") == "0"]
    return max(used_up or resets.values(), default=None)


def _duration(text: str) -> float | None:
    """Read `1s`, `6m0s`, `250ms`, or seconds alone."""
    if is_number(text):
        return float(text)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)
