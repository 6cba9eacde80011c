"""Browser sessions: a one-time code from the printed link becomes a cookie, whose hash is all that is kept."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from openclaw_kernel.api.audit import AuditAction, AuditEntry, AuditOrigin
from openclaw_kernel.api.errors import InvalidRequest
from openclaw_kernel.protocol.arrivals import Arrivals
from openclaw_kernel.protocol.auth import PageGrant, Verified
from openclaw_kernel.protocol.limiter import FailureLimiter, HeldAnswers
from openclaw_kernel.protocol.refusals import Refusals

if TYPE_CHECKING:
    from aiohttp import web

logger = logging.getLogger("openclaw.pages")

COOKIE: Final = "openclaw_session"
CODE_MS: Final = 600_000
SESSION_SECONDS: Final = 30 * 24 * 3600
_BUSY_MS: Final = 1_000
_CODES: Final = 32
_SESSIONS: Final = 100
_SHOWN: Final = 16
"""So much of a session's hash names it."""
_KIND: Final = "bootstrap-token"


class PageSessions:
    """Implements the service `PageAccess`. `save` stores all live sessions durably as one text, and the row of the audit log with it.

    `key` is the gateway's own credential: sessions end with it when it is changed.
    """

    cookie_name = COOKIE
    session_seconds = SESSION_SECONDS

    def __init__(
        self,
        *,
        limiter: FailureLimiter,
        now_ms: Callable[[], int],
        save: Callable[[str, AuditEntry], Awaitable[None]],
        key: bytes = b"",
        arrivals: Arrivals | None = None,
        refusals: Refusals | None = None,
        held: HeldAnswers | None = None,
    ) -> None:
        self._held = held or HeldAnswers()
        self._refusals = refusals or Refusals()
        self._limiter = limiter
        self._now_ms = now_ms
        self._save = save
        self._key = key
        self._arrivals = Arrivals() if arrivals is None else arrivals
        self.prove: Callable[[web.Request], Awaitable[Verified | None]] | None = None
        """Asks what a request itself proves of who sends it."""
        self._codes: dict[str, int] = {}
        self._sessions: dict[str, int] = {}

    def adopt(self, key: bytes) -> None:
        """Take another credential of the gateway: who signed in under the one before has to sign in anew."""
        self._key = key

    def load(self, text: str | None) -> None:
        """Take back what `save` stored; of a damaged text nothing, and everybody signs in anew."""
        if not text:
            return
        try:
            self._sessions = {digest: int(expires) for digest, expires in json.loads(text).items()}
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            logger.warning("the browsers that were signed in are not known, and have to open a new link: %s", error)

    def mint_code(self) -> tuple[str, int]:
        """Return a new code and when it expires; the oldest unused ones give way."""
        code = secrets.token_urlsafe(24)
        expires = self._now_ms() + CODE_MS
        self._codes[self._digest(code)] = expires
        while len(self._codes) > _CODES:
            del self._codes[next(iter(self._codes))]
        return code, expires

    async def exchange(self, request: web.Request, code: str) -> str | None:
        """Consume a code and open a session."""
        now = self._now_ms()
        origin = request.headers.get("Origin")
        arrival = self._arrivals.of(request)
        if origin is None or not same_origin(origin, request.host):
            self._refusals.foreign_origin(origin, arrival.address, surface="http")
            message = f"origin {origin or 'missing'} is not this gateway's page; open the printed link itself"
            raise InvalidRequest(message, details={"code": "CONTROL_UI_ORIGIN_NOT_ALLOWED"})
        caller = arrival.caller(origin)
        locked = self._limiter.locked_for_ms(_KIND, caller, now) or (_BUSY_MS if self._held.full else 0)
        if locked:
            self._refusals.page("rate_limited", arrival.address)
            message = "too many wrong codes; wait, then open a new link"
            raise InvalidRequest(message, details={"code": "AUTH_RATE_LIMITED"}, retry_after_ms=locked)
        expires = self._codes.pop(self._digest(code), 0)
        if expires <= now:
            delay_ms = self._limiter.failed(_KIND, caller, now)
            self._refusals.page("code unknown, used or expired", arrival.address)
            await self._held.hold(delay_ms)
            return None
        cookie = secrets.token_urlsafe(32)
        self._sessions = {digest: end for digest, end in self._sessions.items() if end > now}
        digest = self._digest(cookie)
        self._sessions[digest] = now + SESSION_SECONDS * 1000
        while len(self._sessions) > _SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        who = AuditOrigin(actor=f"page:{digest[:_SHOWN]}", surface="http", address=arrival.address)
        await self._save(json.dumps(self._sessions), AuditEntry(action=AuditAction.PAGE_SIGNED_IN, origin=who, subject=who.actor))
        return cookie

    def authenticated(self, request: web.Request) -> bool:
        """Tell whether the request comes from a page with a live session."""
        return self.grant(request.cookies, request.headers.get("Origin"), request.host) is not None

    async def admits(self, request: web.Request) -> bool:
        """See `openclaw_kernel.api.PageAccess.admits`."""
        if self.authenticated(request):
            return True
        return self.prove is not None and await self.prove(request) is not None

    def grant(self, cookies: Mapping[str, str], origin: str | None, host: str) -> PageGrant | None:
        """Recognise a session; a cookie rides along from other ports of the same host, so the Origin must be exactly ours."""
        cookie = cookies.get(COOKIE)
        if not cookie or (origin is not None and not same_origin(origin, host)):
            return None
        digest = self._digest(cookie)
        return PageGrant(digest[:_SHOWN]) if self._sessions.get(digest, 0) > self._now_ms() else None

    def _digest(self, secret: str) -> str:
        return hmac.new(self._key, secret.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def same_origin(origin: str, host: str) -> bool:
    """Tell whether an Origin names exactly this Host header."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and parts.netloc.lower() == host.lower()
