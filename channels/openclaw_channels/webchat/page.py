"""The chat page's files, and how a browser gets its session: the one-time code of the link for a cookie."""

from __future__ import annotations

import gzip
import json
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from openclaw_kernel.api import (
    AuditAction,
    AuditEntry,
    AuditLog,
    Call,
    Gateway,
    HttpRoute,
    InvalidRequest,
    PageAccess,
    Params,
    PluginContext,
    Scope,
    origin_of,
    rpc,
)

if TYPE_CHECKING:
    from aiohttp import web

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_CODE_LIMIT: Final = 256
_BODY_LIMIT: Final = 4_096


class LinkParams(Params):
    """No params."""


class PageRoutes:
    """Serves the page; reads its files once."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        items = resources.files(__package__).joinpath("static").iterdir()
        self._files = {item.name: item.read_bytes() for item in items if item.is_file() and item.name.endswith(tuple(_TYPES))}
        # Compressed once: a stranger's request must not cost more than the sending.
        self._packed = {name: gzip.compress(content, mtime=0) for name, content in self._files.items()}

    def routes(self) -> list[HttpRoute]:
        """All routes of the page."""
        files = [HttpRoute(method="GET", path=f"/{name}", handler=self._file) for name in sorted(self._files)]
        return [
            HttpRoute(method="GET", path="/", handler=self._index),
            *files,
            HttpRoute(method="POST", path="/auth/exchange", handler=self._exchange),
            HttpRoute(method="GET", path="/auth/session", handler=self._session),
        ]

    @property
    def _access(self) -> PageAccess:
        return self._context.service(PageAccess)

    async def _index(self, request: web.Request) -> web.Response:
        return self._respond(request, "index.html")

    async def _file(self, request: web.Request) -> web.Response:
        return self._respond(request, request.path.rpartition("/")[2])

    def _respond(self, request: web.Request, name: str) -> web.Response:
        from aiohttp import web

        suffix = name[name.rindex(".") :]
        headers = {
            "Content-Type": _TYPES[suffix],
            "Content-Security-Policy": _POLICY,
            "Cache-Control": "no-cache",
            "Vary": "Accept-Encoding",
        }
        if "gzip" in request.headers.get("Accept-Encoding", "").lower():
            return web.Response(body=self._packed[name], headers=headers | {"Content-Encoding": "gzip"})
        return web.Response(body=self._files[name], headers=headers)

    async def _session(self, request: web.Request) -> web.Response:
        from aiohttp import web

        authenticated = await self._access.admits(request)
        return web.json_response({"authenticated": authenticated}, status=200 if authenticated else 401)

    async def _exchange(self, request: web.Request) -> web.Response:
        from aiohttp import web

        if request.content_type != "application/json":
            # Another site's form cannot send this type without asking first.
            return _refused(415, "invalid_request_error", "send the code as application/json")
        content = await _read(request, _BODY_LIMIT)
        if content is None:
            return _refused(413, "invalid_request_error", f"the body is longer than {_BODY_LIMIT} bytes")
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            body = None
        code = body.get("code") if isinstance(body, dict) else None
        if not isinstance(code, str) or not 1 <= len(code) <= _CODE_LIMIT:
            return _refused(400, "invalid_request_error", "code is missing; open the printed link itself")
        try:
            cookie = await self._access.exchange(request, code)
        except InvalidRequest as error:
            if not error.retry_after_ms:
                return _refused(403, "forbidden", error.message)
            refused = _refused(429, "rate_limited", error.message)
            refused.headers["Retry-After"] = str(-(-error.retry_after_ms // 1000))
            return refused
        if cookie is None:
            return _refused(401, "unauthorized", 'this code was used or has expired; run the gateway\'s command "open" to print a new link')
        response = web.json_response({"authenticated": True})
        response.set_cookie(
            self._access.cookie_name,
            cookie,
            max_age=self._access.session_seconds,
            path=f"{self._context.config.gateway.control_ui.base_path}/",
            httponly=True,
            samesite="Strict",
            secure=request.secure,
        )
        return response

    @rpc(
        "webchat.link",
        scope=Scope.ADMIN,
        params=LinkParams,
        result=dict[str, Any],
        advertised=False,
        repeatable="each link opens the page once and expires by itself",
    )
    def link(self, call: Call, _params: LinkParams) -> dict[str, Any]:
        """Make a link that opens the chat page once, within ten minutes."""
        code, expires = self._access.mint_code()
        issued = AuditEntry(action=AuditAction.PAGE_CODE_ISSUED, origin=origin_of(call), subject="page", details={"expiresMs": expires})
        self._context.service(AuditLog).note(issued)
        url = self._context.service(Gateway).url
        return {"url": f"{url}/#code={code}", "expiresAtMs": expires}


async def _read(request: web.Request, limit: int) -> bytes | None:
    """The body, None where it is longer; no more than that is ever held."""
    content = b""
    while part := await request.content.read(limit + 1 - len(content)):
        content += part
        if len(content) > limit:
            return None
    return content


def _refused(status: int, kind: str, message: str) -> web.Response:
    from aiohttp import web

    return web.json_response({"error": {"type": kind, "message": message}}, status=status)
