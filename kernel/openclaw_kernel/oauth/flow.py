"""The device flow and the refresh as they stand in RFC 8628 and RFC 6749: what is sent, what an answer means, when to ask again. No I/O."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from openclaw_config.oauth import OAuthClient
from openclaw_config.redaction import replace_all
from openclaw_config.secrets import Secret, known_secrets

DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
DEFAULT_INTERVAL: Final = 5.0
SLOWER: Final = 5.0
"""What `slow_down` adds to the interval, for good."""
LONGEST_INTERVAL: Final = 60.0
LONGEST_ANSWER: Final = 65_536
_LONGEST_LIFE: Final = 10 * 365 * 86_400
_LONGEST_TOLD: Final = 200
_EARLY_MS: Final = 60_000
_OK: Final = 200
_TOO_MANY: Final = 429
_FIRST_SERVER_ERROR: Final = 500


class OAuthFailed(Exception):
    """The server said no, or nothing of use. `code` is its word, or one of ours; `temporary` means that asking again may help."""

    def __init__(self, code: str, message: str, *, temporary: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.temporary = temporary


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCode:
    """A login that has begun: what a person has to do, and what asks for the result."""

    device_code: Secret
    user_code: str
    verification_uri: str
    verification_uri_complete: str | None
    expires_in: float
    interval: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a login leaves. `login_id` stays through refreshes and is no secret."""

    login_id: str
    access: Secret
    refresh: Secret | None
    obtained_ms: int
    expires_ms: int | None
    """Unix milliseconds; None where the server does not say."""

    def is_stale(self, now_ms: int) -> bool:
        """Tell whether it is time for another: a minute before its end, or a tenth of a short life."""
        if self.expires_ms is None:
            return False
        return now_ms >= self.expires_ms - min(_EARLY_MS, (self.expires_ms - self.obtained_ms) // 10)

    def is_over(self, now_ms: int) -> bool:
        """Tell whether it has expired."""
        return self.expires_ms is not None and now_ms >= self.expires_ms


def device_form(client: OAuthClient) -> dict[str, str]:
    """Return what begins a login."""
    return {**_identity(client), **({"scope": " ".join(client.scopes)} if client.scopes else {})}


def poll_form(client: OAuthClient, code: DeviceCode) -> dict[str, str]:
    """Return what asks for the result of a login."""
    return {**_identity(client), "grant_type": DEVICE_GRANT, "device_code": code.device_code.unwrap()}


def refresh_form(client: OAuthClient, refresh: Secret) -> dict[str, str]:
    """Return what asks for another access token."""
    return {**_identity(client), "grant_type": "refresh_token", "refresh_token": refresh.unwrap()}


def _identity(client: OAuthClient) -> dict[str, str]:
    secret = {} if client.client_secret is None else {"client_secret": client.client_secret.unwrap()}
    return {"client_id": client.client_id, **secret}


def read_device_code(status: int, body: bytes) -> DeviceCode:
    """Read the answer to the beginning of a login; raise `OAuthFailed`."""
    answer = _answer(status, body)
    code, user_code, uri = (_text(answer, name) for name in ("device_code", "user_code", "verification_uri"))
    if not (code and user_code and uri):
        raise _odd("has no device_code, user_code or verification_uri")
    expires_in = _seconds(answer.get("expires_in"))
    if expires_in is None:
        raise _odd("does not say when the code expires (expires_in)")
    complete = _text(answer, "verification_uri_complete")
    interval = _seconds(answer.get("interval"), at_least=0.0)
    for address in (uri, complete or uri):
        if not address.startswith(("https://", "http://")):
            raise _odd("names an address that is none of the web")
    return DeviceCode(
        device_code=Secret(code),
        user_code=user_code,
        verification_uri=uri,
        verification_uri_complete=complete or None,
        expires_in=expires_in,
        interval=DEFAULT_INTERVAL if interval is None else min(interval, LONGEST_INTERVAL),
    )


def read_tokens(status: int, body: bytes, *, login_id: str, now_ms: int, before: Tokens | None = None) -> Tokens:
    """Read the answer of the token endpoint; raise `OAuthFailed`. A refresh that brings no new refresh token keeps the one before."""
    answer = _answer(status, body)
    access = _text(answer, "access_token")
    if not access:
        raise _odd("has no access_token")
    if _text(answer, "token_type").lower() != "bearer":
        raise _odd("brings a token that is no bearer token")
    expires_in = _seconds(answer.get("expires_in"))
    refresh = _text(answer, "refresh_token")
    kept = before.refresh if before is not None else None
    return Tokens(
        login_id=login_id,
        access=Secret(access),
        refresh=Secret(refresh) if refresh else kept,
        obtained_ms=now_ms,
        expires_ms=None if expires_in is None else now_ms + int(expires_in * 1000),
    )


class Polling:
    """When to ask again for the result of a login; `now` is monotonic seconds."""

    def __init__(self, code: DeviceCode, now: float) -> None:
        self._ends = now + code.expires_in
        self._interval = code.interval
        self._pause = code.interval

    def wait(self, now: float, failed: OAuthFailed | None = None) -> float:
        """Return the seconds to wait after this answer, None before the first; raise `OAuthFailed` where there is no point in waiting."""
        if failed is not None:
            self._take(failed)
        if now + self._pause >= self._ends:
            raise OAuthFailed("expired_token", "nobody confirmed the code in time; begin the login again")
        return self._pause

    def _take(self, failed: OAuthFailed) -> None:
        if failed.code == "slow_down":
            self._interval += SLOWER
        elif failed.temporary:
            # RFC 8628, 3.5: after a timeout the client asks less often, by doubling.
            self._pause = min(max(self._pause * 2, 0.1), LONGEST_INTERVAL)
            return
        elif failed.code != "authorization_pending":
            raise failed
        self._pause = self._interval


_WORDS: Final = {
    "access_denied": "the login was refused by the person who was asked",
    "expired_token": "nobody confirmed the code in time; begin the login again",
    "invalid_grant": "the server no longer takes the login; log in again",
    "invalid_client": "the server does not take this client; check clientId and clientSecret",
    "unauthorized_client": "the server does not let this client log in by a device code",
    "invalid_scope": "the server does not give these scopes; check scopes",
    "authorization_pending": "nobody has confirmed the code yet",
    "slow_down": "the server asks to be asked less often",
}


def _answer(status: int, body: bytes) -> Mapping[str, Any]:
    if len(body) > LONGEST_ANSWER:
        raise _odd(f"is longer than {LONGEST_ANSWER} bytes")
    if status >= _FIRST_SERVER_ERROR or status == _TOO_MANY:
        raise OAuthFailed("unavailable", f"the authorization server answered {status}; try again later", temporary=True)
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    # Some servers tell of their errors with the status 200.
    if isinstance(answer, dict) and _text(answer, "error"):
        code = _text(answer, "error")
        told = _shown(_text(answer, "error_description"))
        words = _WORDS.get(code, f"the server answered {_shown(code)!r}")
        raise OAuthFailed(code, f"{words} ({told})" if told else words)
    if status != _OK:
        raise _odd(f"has the status {status} and no error of OAuth")
    if not isinstance(answer, dict):
        raise _odd("is no JSON object")
    return answer


def _odd(what: str) -> OAuthFailed:
    return OAuthFailed("odd-answer", f"the answer of the authorization server {what}; check the addresses in the section oauth")


def _text(answer: Mapping[str, Any], name: str) -> str:
    value = answer.get(name)
    return value if isinstance(value, str) and value.isprintable() and value.isascii() else ""


def _seconds(value: Any, *, at_least: float = 1e-9) -> float | None:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        # Not of the standard, and seen.
        value = float(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < at_least:
        return None
    return float(min(value, _LONGEST_LIFE))


def _shown(told: str) -> str:
    # A server may tell back what it was sent.
    line = " ".join(replace_all(told, known_secrets()).split())
    return line if len(line) <= _LONGEST_TOLD else f"{line[:_LONGEST_TOLD]}..."
