"""Why a call failed, read from what the SDK raised; pure and without importing it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from openclaw_kernel.api import ProviderErrorKind

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
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= _FIRST_SERVER_ERROR:
        return ProviderErrorKind.OVERLOADED if _OVERLOADED.search(message) else ProviderErrorKind.UNAVAILABLE
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


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds until a rate limit ends, a week at most, where the headers tell."""
    seconds = _told_wait(headers, now or datetime.now(UTC))
    return None if seconds is None else min(seconds, _LONGEST_WAIT_SECONDS)


def _told_wait(headers: Mapping[str, str], now: datetime) -> float | None:
    """Read the headers.

    The server's `retry-after` comes first; else the reset of the limit that has nothing left, else the latest reset.
    """
    milliseconds = headers.get("retry-after-ms")
    if milliseconds is not None and _is_number(milliseconds):
        return float(milliseconds) / 1000
    told = headers.get("retry-after")
    if told is not None:
        return float(told) if _is_number(told) else _until(told, now)
    resets: dict[str, float] = {}
    for limit in ("requests", "tokens"):
        seconds = _duration(headers.get(f"x-ratelimit-reset-{limit}", ""))
        if seconds is not None:
            resets[limit] = seconds
    used_up = [seconds for limit, seconds in resets.items() if headers.get(f"x-ratelimit-remaining-{limit}") == "0"]
    return max(used_up or resets.values(), default=None)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(?:\.\d+)?", text.strip()) is not None


def _until(date: str, now: datetime) -> float | None:
    try:
        then = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    # "-0000" means UTC too, but is read as a time without a zone.
    return max(0.0, (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds())


def _duration(text: str) -> float | None:
    """Read `1s`, `6m0s`, `250ms`, or seconds alone."""
    if _is_number(text):
        return float(text)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


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
