"""Why a call to a server failed, read from what it answered; pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from openclaw_kernel.api.errors import ProviderErrorKind

#: A limit that ends later is looked at again before.
LONGEST_WAIT_SECONDS: Final = 7 * 86_400.0

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
_LONGEST_TOLD: Final = 400
_SHORTEST_SECRET: Final = 6
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")
_PAGE: Final = re.compile(r"\s*<(?:!doctype|html|head|body|\?xml)", re.IGNORECASE)
_TITLE: Final = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)


def kind_of_status(status: int) -> ProviderErrorKind | None:
    """Return what an HTTP status alone says: None where the words of the answer have to be read (400, 422 and their like).

    A server error without a meaning of its own is `UNAVAILABLE`.
    """
    if status >= _FIRST_SERVER_ERROR:
        return _BY_STATUS.get(status, ProviderErrorKind.UNAVAILABLE)
    return _BY_STATUS.get(status)


def retry_after(
    headers: Mapping[str, str],
    *,
    otherwise: Callable[[Mapping[str, str], datetime], float | None] | None = None,
    now: datetime | None = None,
) -> float | None:
    """Return the seconds until a rate limit ends, a week at most, or None where nothing tells.

    `retry-after-ms` and `retry-after`, a number of seconds or a date, come first. Without them `otherwise` is asked, which gets the
    headers and the present, for a server with headers of its own.
    """
    seconds = _told_wait(headers, otherwise, now or datetime.now(UTC))
    return None if seconds is None else min(seconds, LONGEST_WAIT_SECONDS)


def _told_wait(
    headers: Mapping[str, str], otherwise: Callable[[Mapping[str, str], datetime], float | None] | None, now: datetime
) -> float | None:
    milliseconds = headers.get("retry-after-ms")
    if milliseconds is not None and is_number(milliseconds):
        return float(milliseconds) / 1000
    told = headers.get("retry-after")
    if told is None:
        return None if otherwise is None else otherwise(headers, now)
    if is_number(told):
        return float(told)
    try:
        return seconds_until(parsedate_to_datetime(told), now)
    except (ValueError, OverflowError):
        return None


def is_number(text: str) -> bool:
    """Tell whether a header is a number of seconds, without sign, exponent or name."""
    return _NUMBER.fullmatch(text.strip()) is not None


def seconds_until(then: datetime, now: datetime) -> float:
    """Return the seconds from `now` to `then`, 0 where it is past; a time without a zone is in UTC."""
    # "-0000" means UTC too, but is read as a time without a zone.
    return max(0.0, (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds())


def cause_of(error: BaseException) -> str:
    """Return the innermost reason of a failed connection, in the system's own words."""
    reason: BaseException = error
    # What a library raised `from None` has its own reason no more: that one is an inner affair of the library.
    while (inner := reason.__cause__ or (None if reason.__suppress_context__ else reason.__context__)) is not None:
        reason = inner
    return str(reason) or type(reason).__name__


def one_line(told: str) -> str:
    """Return what a server said as one line of at most 400 characters; of a page only its title."""
    if _PAGE.match(told):
        title = _TITLE.search(told)
        told = f"a page, {' '.join(title[1].split())!r}" if title else "a page"
    line = " ".join(told.split())
    return line if len(line) <= _LONGEST_TOLD else f"{line[:_LONGEST_TOLD]} …"


def without_secrets(message: str, secrets: Iterable[str]) -> str:
    """Return a message in which no secret is left, whoever put it there; what is shorter than 6 characters is no secret."""
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            message = message.replace(secret, "<secret>")
    return message


def without_password(url: str) -> str:
    """Return a URL without the name and password that may stand before its host."""
    login = urlsplit(url).netloc.rpartition("@")[0]
    return url.replace(f"{login}@", "", 1) if login else url
