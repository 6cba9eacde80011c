"""HTTP for the page: files as they are, packed where the build packed them, and the page at every other address."""

from __future__ import annotations

import asyncio
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from openclaw_kernel.api import HttpRoute
from openclaw_plugins.control_ui.document import ASSET_POLICY, WORKER_POLICY, Document, facts, prepare
from openclaw_plugins.control_ui.files import PART_BYTES, OpenFile, open_below

if TYPE_CHECKING:
    from aiohttp import web

TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json; charset=utf-8",
    ".webmanifest": "application/manifest+json; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".ico": "image/x-icon",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".wasm": "application/wasm",
}
INDEX: Final = "index.html"
FACTS: Final = "control-ui-config.json"
_PACKED: Final = {"br": ".br", "gzip": ".gz"}
_LARGEST_INDEX_BYTES: Final = 4 * 1024 * 1024


class ControlUiRoutes:
    """Serves the folder `root` at `mount`; `base_path` is the mount as browsers see it."""

    def __init__(self, root: Path, *, mount: str, base_path: str) -> None:
        self._root = root
        self._mount = mount
        self._base_path = base_path
        self._document: tuple[str, Document] | None = None

    def routes(self) -> list[HttpRoute]:
        """The mount and everything below it."""
        below = f"{self._mount}/{{name:.*}}"
        routes = [HttpRoute(method=method, path=below, handler=self._below) for method in ("GET", "HEAD")]
        return [*routes, *(HttpRoute(method=method, path=self._mount, handler=self._enter) for method in ("GET", "HEAD"))]

    async def _enter(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
        return web.Response(status=302, headers={"Location": f"{self._base_path}/{query}"})

    async def _below(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        name = request.match_info["name"]
        if name == FACTS:
            return web.json_response(facts(self._base_path), headers={"Cache-Control": "no-cache"})
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in TYPES and suffix != ".html":
            return await self._file(request, name, suffix)
        if name in {"", INDEX} or "text/html" in request.headers.get("Accept", ""):
            return await self._page(request)
        return _missing()

    async def _page(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        document = await asyncio.to_thread(self._load)
        if document is None:
            return _missing()
        headers = {
            "Content-Security-Policy": document.policy,
            "Content-Type": TYPES[".html"],
            "Cache-Control": "no-cache",
            "ETag": document.tag,
        }
        if _has(request, document.tag):
            return web.Response(status=304, headers=headers)
        return web.Response(body=document.body, headers=headers)

    def _load(self) -> Document | None:
        file = open_below(self._root, INDEX)
        if file is None or file.size > _LARGEST_INDEX_BYTES:
            return None
        try:
            kept = self._document
            if kept is not None and kept[0] == file.tag:
                return kept[1]
            content = b""
            while part := file.read(_LARGEST_INDEX_BYTES):
                content += part
        finally:
            file.close()
        document = prepare(content.decode("utf-8", "replace"), self._base_path)
        self._document = (file.tag, document)
        return document

    async def _file(self, request: web.Request, name: str, suffix: str) -> web.StreamResponse:
        found = await asyncio.to_thread(self._open, name, _accepted(request))
        if found is None:
            return _missing()
        file, encoding = found
        try:
            return await _send(request, file, suffix, encoding)
        finally:
            file.close()

    def _open(self, name: str, encodings: list[str]) -> tuple[OpenFile, str | None] | None:
        plain = open_below(self._root, name)
        if plain is None:
            return None
        for encoding in encodings:
            packed = open_below(self._root, name + _PACKED[encoding])
            if packed is not None:
                plain.close()
                return packed, encoding
        return plain, None


async def _send(request: web.Request, file: OpenFile, suffix: str, encoding: str | None) -> web.StreamResponse:
    from aiohttp import web

    is_script = suffix in {".js", ".mjs"}
    headers = {
        "Content-Security-Policy": WORKER_POLICY if is_script else ASSET_POLICY,
        "Content-Type": TYPES[suffix],
        "Cache-Control": "no-cache",
        "ETag": file.tag,
        "Vary": "Accept-Encoding",
    }
    if _has(request, file.tag):
        return web.Response(status=304, headers=headers)
    if encoding is not None:
        headers["Content-Encoding"] = encoding
    response = web.StreamResponse(headers=headers)
    response.content_length = file.size
    await response.prepare(request)
    left = 0 if request.method == "HEAD" else file.size
    # In parts, as fast as the reader takes them: what a stranger asks for is never held whole.
    while left > 0 and (part := await asyncio.to_thread(file.read, min(left, PART_BYTES))):
        left -= len(part)
        await response.write(part)
    if left > 0:
        response.force_close()
    await response.write_eof()
    return response


def _has(request: web.Request, tag: str) -> bool:
    offered = request.headers.get("If-None-Match", "")
    return offered.strip() == "*" or tag in {item.strip().removeprefix("W/") for item in offered.split(",")}


def _accepted(request: web.Request) -> list[str]:
    """The encodings that a build may have packed files in and the caller reads, best first."""
    refused = {"0", "0.0", "0.00", "0.000"}
    offered = set()
    for item in request.headers.get("Accept-Encoding", "").lower().split(","):
        encoding, _, weight = item.partition(";")
        if weight.strip().removeprefix("q=") not in refused:
            offered.add(encoding.strip())
    return [encoding for encoding in _PACKED if encoding in offered]


def _missing() -> web.Response:
    from aiohttp import web

    return web.Response(status=404, text="not found\n")
