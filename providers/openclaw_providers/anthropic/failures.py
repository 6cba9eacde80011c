"""Why a call failed, read from what the SDK raised; pure and without importing it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from openclaw_kernel.api import ProviderErrorKind

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
#: For a proxy that answers in its own form.
_BY_STATUS: Final[dict[int, ProviderErrorKind]] = {
    401: ProviderErrorKind.AUTH,
    402: ProviderErrorKind.AUTH,
    403: ProviderErrorKind.AUTH,
    404: ProviderErrorKind.NOT_FOUND,
    408: ProviderErrorKind.TIMEOUT,
    413: ProviderErrorKind.CONTEXT_LENGTH,
    429: ProviderErrorKind.RATE_LIMIT,
    503: ProviderErrorKind.OVERLOADED,
    504: ProviderErrorKind.TIMEOUT,
    529: ProviderErrorKind.OVERLOADED,
}
_FIRST_SERVER_ERROR: Final = 500
#: A limit that ends later is looked at again before.
_LONGEST_WAIT_SECONDS: Final = 7 * 86_400.0
_LONGEST_TOLD: Final = 400
_SHORTEST_SECRET: Final = 6
_PAGE: Final = re.compile(r"\s*<(?:!doctype|html|head|body|\?xml)", re.IGNORECASE)
_TITLE: Final = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
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
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= _FIRST_SERVER_ERROR:
        return ProviderErrorKind.UNAVAILABLE
    return ProviderErrorKind.CONTEXT_LENGTH if _TOO_LONG.search(message) else ProviderErrorKind.BAD_REQUEST


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds until a rate limit ends, a week at most, where the headers tell."""
    seconds = _told_wait(headers, now or datetime.now(UTC))
    return None if seconds is None else min(seconds, _LONGEST_WAIT_SECONDS)


def _told_wait(headers: Mapping[str, str], now: datetime) -> float | None:
    """Read the headers.

    The server's `retry-after` comes first; else the latest reset among the limits that have nothing left.
    """
    told = headers.get("retry-after")
    if told is not None:
        return float(told) if re.fullmatch(r"\d+(?:\.\d+)?", told.strip()) else _until_date(told, now)
    waits: list[float] = []
    for name in headers:
        found = _RESET.match(name.lower())
        if found and headers.get(f"anthropic-ratelimit-{found['limit']}-remaining") == "0":
            waits.append(_until_stamp(headers[name], now))
    return max(waits, default=None)


def _until_date(date: str, now: datetime) -> float | None:
    try:
        then = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    # "-0000" means UTC too, but is read as a time without a zone.
    return max(0.0, (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds())


def _until_stamp(stamp: str, now: datetime) -> float:
    try:
        then = datetime.fromisoformat(stamp)
    except ValueError:
        return 0.0
    return max(0.0, (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds())


def cause_of(error: BaseException) -> str:
    """Return the innermost reason of a failed connection, in the system's own words."""
    reason: BaseException = error
    # What a library raised `from None` has its own reason no more: that one is an inner affair of the library.
    while (inner := reason.__cause__ or (None if reason.__suppress_context__ else reason.__context__)) is not None:
        reason = inner
    return str(reason) or type(reason).__name__


def shown(told: str) -> str:
    """Return what a server said as one line of bounded length; of a page only its title."""
    if _PAGE.match(told):
        title = _TITLE.search(told)
        told = f"a page, {' '.join(title[1].split())!r}" if title else "a page"
    line = " ".join(told.split())
    return line if len(line) <= _LONGEST_TOLD else f"{line[:_LONGEST_TOLD]} …"


def without_secrets(message: str, secrets: Iterable[str]) -> str:
    """Return a message in which no secret is left, whoever put it there."""
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            message = message.replace(secret, "<secret>")
    return message


def without_password(url: str) -> str:
    """Return a URL without the name and password that may stand before its host."""
    login = urlsplit(url).netloc.rpartition("@")[0]
    return url.replace(f"{login}@", "", 1) if login else url
