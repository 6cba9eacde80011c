"""An authorization server with the device flow (RFC 8628) and refresh tokens that are good for one use, as a process of its own.

It keeps to the standard by itself: `authorization_pending` until `/_control/approve`, `slow_down` for whoever asks too soon, and the
end of the whole login where an old refresh token comes back. What it is told to do instead is in the script, an answer a request:

`pending`, `slow_down`, `denied`, `expired`, `hang`, `error` (503), `half` (cut in the middle of the body), `redirect`, `odd`, `huge`,
`wait` (answers as it should once it is released).
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from tests.emulators.common import argument_parser, run

CLIENT_ID: Final = "openclaw-test"
DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_SECRET_LIMIT: Final = 100_000


@dataclass
class Login:
    """One device code and what came of it."""

    device_code: str
    user_code: str
    ends: float
    interval: float
    asked_at: float = 0.0
    is_approved: bool = False
    is_used: bool = False


@dataclass
class Settings:
    """What a test may change."""

    interval: float = 0.05
    code_seconds: float = 600.0
    token_seconds: float | None = 3600.0
    refreshes: bool = True
    approved: bool = False
    """Approve every login as soon as it begins."""
    client_secret: str | None = None
    prefix: str = ""
    """In front of every token, so that a test can look for it."""


@dataclass
class AuthorizationServer:
    """The state of the process."""

    settings: Settings = field(default_factory=Settings)
    logins: dict[str, Login] = field(default_factory=dict)
    refresh_tokens: dict[str, bool] = field(default_factory=dict)
    """Whether each is still good."""
    access_tokens: set[str] = field(default_factory=set)
    script: deque[str] = field(default_factory=deque)
    requests: list[dict[str, Any]] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def application(self) -> web.Application:
        """The routes."""
        application = web.Application()
        application.add_routes(
            [
                web.post("/device", self._device),
                web.post("/token", self._token),
                web.post("/elsewhere", self._elsewhere),
                web.post("/_control/settings", self._configure),
                web.post("/_control/approve", self._approve),
                web.post("/_control/script", self._take_script),
                web.post("/_control/revoke", self._revoke),
                web.post("/_control/release", self._release),
                web.get("/_control/requests", self._tell),
            ]
        )
        return application

    async def _device(self, request: web.Request) -> web.StreamResponse:
        form = await self._record(request)
        if self.script and self.script[0].startswith("device:"):
            return await self._misbehave(request, self.script.popleft().removeprefix("device:"))
        refusal = self._refuse_client(form)
        if refusal is not None:
            return refusal
        settings = self.settings
        login = Login(
            device_code=settings.prefix + secrets.token_urlsafe(24),
            user_code=f"{secrets.token_hex(2)}-{secrets.token_hex(2)}".upper(),
            ends=time.monotonic() + settings.code_seconds,
            interval=settings.interval,
            is_approved=settings.approved,
        )
        self.logins[login.device_code] = login
        address = f"http://{request.host}/activate"
        return web.json_response(
            {
                "device_code": login.device_code,
                "user_code": login.user_code,
                "verification_uri": address,
                "verification_uri_complete": f"{address}?user_code={login.user_code}",
                "expires_in": settings.code_seconds,
                "interval": settings.interval,
            }
        )

    async def _token(self, request: web.Request) -> web.StreamResponse:
        form = await self._record(request)
        if self.script and not self.script[0].startswith("device:"):
            how = self.script.popleft()
            if how != "wait":
                return await self._misbehave(request, how)
            await self.released.wait()
        refusal = self._refuse_client(form)
        if refusal is not None:
            return refusal
        if form.get("grant_type") == DEVICE_GRANT:
            return self._poll(form)
        if form.get("grant_type") == "refresh_token":
            return self._refresh(form)
        return _error("unsupported_grant_type")

    def _poll(self, form: dict[str, str]) -> web.Response:
        login = self.logins.get(form.get("device_code", ""))
        now = time.monotonic()
        if login is None or login.is_used:
            return _error("invalid_grant")
        too_soon = now - login.asked_at < login.interval * 0.9
        login.asked_at = now
        if now >= login.ends:
            return _error("expired_token")
        if too_soon:
            login.interval += 5.0
            return _error("slow_down")
        if not login.is_approved:
            return _error("authorization_pending")
        login.is_used = True
        return self._grant()

    def _refresh(self, form: dict[str, str]) -> web.Response:
        token = form.get("refresh_token", "")
        if not self.refresh_tokens.get(token, False):
            # A thief has it, or the client asked twice: nobody keeps anything.
            self.refresh_tokens.clear()
            self.access_tokens.clear()
            return _error("invalid_grant", f"the token {token} was used before")
        self.refresh_tokens[token] = False
        return self._grant()

    def _grant(self) -> web.Response:
        settings = self.settings
        access = settings.prefix + secrets.token_urlsafe(24)
        self.access_tokens = {access}
        answer: dict[str, Any] = {"access_token": access, "token_type": "Bearer"}
        if settings.token_seconds is not None:
            answer["expires_in"] = settings.token_seconds
        if settings.refreshes:
            answer["refresh_token"] = settings.prefix + secrets.token_urlsafe(24)
            self.refresh_tokens[answer["refresh_token"]] = True
        return web.json_response(answer)

    async def _elsewhere(self, request: web.Request) -> web.StreamResponse:
        await self._record(request)
        return self._grant()

    def _refuse_client(self, form: dict[str, str]) -> web.Response | None:
        known = form.get("client_id") == CLIENT_ID and form.get("client_secret") == self.settings.client_secret
        return None if known else _error("invalid_client", status=401)

    async def _misbehave(self, request: web.Request, how: str) -> web.StreamResponse:
        words = {"pending": "authorization_pending", "slow_down": "slow_down", "denied": "access_denied", "expired": "expired_token"}
        if how in words:
            return _error(words[how])
        if how == "hang":
            await asyncio.Event().wait()
        if how == "half":
            response = web.StreamResponse(headers={"Content-Length": "500", "Content-Type": "application/json"})
            await response.prepare(request)
            await response.write(b'{"access_token": "half-of-')
            assert request.transport is not None
            request.transport.close()
            return response
        if how == "redirect":
            raise web.HTTPTemporaryRedirect("/elsewhere")
        bodies = {"error": (503, "the server is down"), "odd": (200, "<html>login</html>"), "huge": (200, "x" * _SECRET_LIMIT)}
        status, text = bodies[how]
        return web.Response(status=status, text=text)

    async def _configure(self, request: web.Request) -> web.Response:
        for name, value in (await request.json()).items():
            setattr(self.settings, name, value)
        return web.json_response({})

    async def _approve(self, _request: web.Request) -> web.Response:
        for login in self.logins.values():
            login.is_approved = True
        return web.json_response({})

    async def _take_script(self, request: web.Request) -> web.Response:
        self.script = deque(await request.json())
        return web.json_response({})

    async def _revoke(self, request: web.Request) -> web.Response:
        if (await request.json()).get("refresh"):
            self.refresh_tokens.clear()
        self.access_tokens.clear()
        return web.json_response({})

    async def _release(self, _request: web.Request) -> web.Response:
        self.released.set()
        return web.json_response({})

    async def _tell(self, request: web.Request) -> web.Response:
        count = int(request.query.get("count", "0"))
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(lambda: len(self.requests) >= count)
        return web.json_response({"requests": self.requests, "accessTokens": sorted(self.access_tokens)})

    async def _record(self, request: web.Request) -> dict[str, str]:
        form = {str(key): str(value) for key, value in (await request.post()).items()}
        async with self.changed:
            self.requests.append({"path": request.path, "url": str(request.url), "form": form, "at": time.monotonic()})
            self.changed.notify_all()
        return form


def _error(code: str, description: str | None = None, *, status: int = 400) -> web.Response:
    body = {"error": code} if description is None else {"error": code, "error_description": description}
    return web.Response(status=status, text=json.dumps(body), content_type="application/json")


if __name__ == "__main__":
    run(AuthorizationServer().application(), argument_parser(__doc__ or "").parse_args())
