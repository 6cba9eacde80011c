"""The one HTTP listener: WebSocket upgrades on any path, health probes, and the routes that plugins add."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from openclaw_kernel.api.plugin import HttpRoute

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

logger = logging.getLogger("openclaw.http")

BODY_LIMIT: Final = 1_048_576
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Probes:
    """`/healthz`, `/readyz`, `/startupz`; reasons only for callers that proved themselves."""

    def __init__(
        self,
        *,
        started: Callable[[], bool],
        ready: Callable[[], bool],
        reasons: Callable[[], Sequence[str]],
        trusted: Callable[[web.Request], bool],
    ) -> None:
        self._started = started
        self._ready = ready
        self._reasons = reasons
        self._trusted = trusted

    def routes(self) -> Iterable[tuple[str, Handler]]:
        """Paths and handlers, aliases included."""
        named = {"healthz": self._health, "readyz": self._readiness, "startupz": self._startup}
        for name, handler in named.items():
            yield f"/{name}", handler
            yield f"/{name.removesuffix('z')}", handler

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"ok": True, "status": "live"})

    async def _readiness(self, request: web.Request) -> web.Response:
        ready = self._ready()
        body: dict[str, object] = {"ready": ready}
        if self._trusted(request):
            body["reasons"] = list(self._reasons())
        return web.json_response(body, status=200 if ready else 503)

    async def _startup(self, request: web.Request) -> web.Response:
        started = self._started()
        body: dict[str, object] = {"ok": started, "status": "started" if started else "starting"}
        if self._trusted(request):
            body["reasons"] = list(self._reasons())
        return web.json_response(body, status=200 if started else 503)


def build_application(
    *,
    base_path: str,
    upgrade: Handler,
    probes: Probes,
    routes: Iterable[tuple[str, HttpRoute]],
    guard: Callable[[str, Handler], Handler],
) -> web.Application:
    """Assemble the listener's application. `routes` are (plugin id, route); `guard` fences a plugin's handler."""

    @web.middleware
    async def upgrades_first(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "GET" and request.headers.get("Upgrade", "").lower() == "websocket":
            return await upgrade(request)
        return await handler(request)

    application = web.Application(middlewares=[upgrades_first], client_max_size=BODY_LIMIT, handler_args={"access_log": None})
    application.on_response_prepare.append(_harden)
    for path, handler in probes.routes():
        application.router.add_get(base_path + path, handler)
    for owner, route in routes:
        application.router.add_route(route.method, base_path + route.path, guard(owner, route.handler))
    return application


async def _harden(_request: web.Request, response: web.StreamResponse) -> None:
    # What an unauthenticated caller reads names neither product nor version.
    response.headers.pop("Server", None)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
