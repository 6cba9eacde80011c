"""Why a call failed, read from what the SDK raised; pure and without importing it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from openclaw_kernel.api import ProviderErrorKind
from openclaw_kernel.api.remote import kind_of_status, seconds_until

_BY_TYPE: Final[dict[str, ProviderErrorKind]] = {
    "authentication_error": ProviderErrorKind.AUTH,
    "billing_error": ProviderErrorKind.AUTH,
    "permission_error": ProviderErrorKind.AUTH,
    "not_found_error": ProviderErrorKind.NOT_FOUND,
    "request_too_large": ProviderErrorKind.CONTEXT_LENGTH,
    "rate_limit_error": ProviderErrorKind.RATE_LIMIT,
    "timeout_error": ProviderErrorKind.TIMEOUT,
    "overloaded_error": ProviderErrorKind.OVERLOADED,
    "api_error": ProviderErrorKind.UNAVAILABLE,
}
_TOO_LONG: Final = re.compile(r"prompt is too long|exceeds? (?:the )?context (?:limit|window)", re.IGNORECASE)
_NO_CREDIT: Final = re.compile(r"credit balance is too low", re.IGNORECASE)
_RESET: Final = re.compile(r"^anthropic-ratelimit-(?P<limit>.+)-reset$")


def error_fields(body: object) -> tuple[str, str]:
    """Return (type, message) of an error body, empty where it has none."""
    inner = body.get("error", body) if isinstance(body, Mapping) else None
    if not isinstance(inner, Mapping):
        return "", str(inner or body or "")
    return str(inner.get("type") or ""), str(inner.get("message") or "")


def kind_of(status: int, error_type: str, message: str) -> ProviderErrorKind:
    """Decide the kind of a failure; the type wins, for an error inside a stream comes with the status 200."""
    if _NO_CREDIT.search(message):
        return ProviderErrorKind.AUTH
    if error_type in _BY_TYPE:
        return _BY_TYPE[error_type]
    # A proxy answers in a form of its own.
    kind = kind_of_status(status)
    if kind is not None:
        return kind
    return ProviderErrorKind.CONTEXT_LENGTH if _TOO_LONG.search(message) else ProviderErrorKind.BAD_REQUEST


def reset_of(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds until the latest reset among the limits that have nothing left."""
    waits: list[float] = []
    for name in headers:
        found = _RESET.match(name.lower())
        if found and headers.get(f"anthropic-ratelimit-{found['limit']}-remaining") == "0":
            waits.append(_until_stamp(headers[name], now))
    return max(waits, default=None)


def _until_stamp(stamp: str, now: datetime) -> float:
    try:
        return seconds_until(datetime.fromisoformat(stamp), now)
    except ValueError:
        return 0.0
