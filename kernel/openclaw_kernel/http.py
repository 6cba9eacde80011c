"""The one HTTP listener: its limits before anybody proved anything, WebSocket upgrades on any path, health probes, plugins' routes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web, web_urldispatcher
from yarl import URL

from openclaw_kernel.protocol.arrivals import Arrivals
from openclaw_kernel.protocol.limiter import network_of
from openclaw_kernel.protocol.origin import is_loopback_host

if TYPE_CHECKING:
    from openclaw_kernel.api.plugin import HttpRoute

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

logger = logging.getLogger("openclaw.http")

HSTS: Final = "max-age=31536000"
BODY_LIMIT: Final = 1_048_576
BODY_SECONDS: Final = 30.0
IDLE_SECONDS: Final = 30.0
"""Longest a connection may take to send the head of a request, the first or a further one."""
STRANGERS: Final = 512
STRANGERS_PER_ADDRESS: Final = 128
NEWCOMER_SECONDS: Final = 0.25
"""How long after its accept a connection is waited for when the port is closed."""
_ARRIVING_SECONDS: Final = 0.01
_LINGERING_SECONDS: Final = 2.0
_MAX_HEADERS: Final = 64
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Door:
    """Bounds the connections of those who proved nothing yet, in all and by address, from the moment they are accepted.

    Where all places are taken, the oldest connection of the network that holds most of them makes room: who comes with many keeps
    nobody else out.
    """

    def __init__(
        self,
        *,
        limit: int = STRANGERS,
        limit_per_address: int = STRANGERS_PER_ADDRESS,
        is_proxy: Callable[[str], bool] = lambda _address: False,
    ) -> None:
        self._limit = limit
        self._limit_per_address = limit_per_address
        self._is_proxy = is_proxy
        self._networks: dict[str, dict[object, Callable[[], None]]] = {}
        self._network_of: dict[object, str] = {}

    @property
    def strangers(self) -> int:
        """How many connections have proved nothing."""
        return len(self._network_of)

    def inside(self) -> list[object]:
        """The connections that have proved nothing."""
        return list(self._network_of)

    def enter(self, connection: object, address: str, cut: Callable[[], None]) -> bool:
        """Let a new connection in, or tell that there are too many like it. `cut` ends it at once, should it have to make room.

        One that is in already stays in: with TLS it came before its handshake.
        """
        if connection in self._network_of:
            return True
        key = network_of(address)
        here = len(self._networks.get(key, ()))
        # Who is behind a trusted proxy is known with the first request, by `move`.
        if here >= self._limit_per_address and not self._is_proxy(address):
            return False
        if len(self._network_of) >= self._limit:
            crowded = max(self._networks.values(), key=len)
            if len(crowded) <= here:
                return False
            oldest, cut_oldest = next(iter(crowded.items()))
            self.release(oldest)
            cut_oldest()
        self._networks.setdefault(key, {})[connection] = cut
        self._network_of[connection] = key
        return True

    def move(self, connection: object, address: str) -> bool:
        """Count a connection by the client that a proxy spoke for, or tell that there are too many of that client's."""
        key, known = network_of(address), self._network_of.get(connection)
        if known in {None, key}:
            return True
        if len(self._networks.get(key, ())) >= self._limit_per_address:
            return False
        cut = self._networks[known][connection]
        self.release(connection)
        self._networks.setdefault(key, {})[connection] = cut
        self._network_of[connection] = key
        return True

    def release(self, connection: object) -> None:
        """Count a connection no longer: it proved itself, or it is gone."""
        key = self._network_of.pop(connection, None)
        if key is None:
            return
        network = self._networks[key]
        del network[connection]
        if not network:
            del self._networks[key]


class _Connection(web.RequestHandler):
    __slots__ = ("_door", "accepted_at", "asked")

    def __init__(self, server: web.Server, *, door: Door, **options: Any) -> None:
        super().__init__(server, **options)
        self._door = door
        self.asked = False
        """Whether the head of a request has come."""
        self.accepted_at = asyncio.get_running_loop().time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        cut = transport.abort if isinstance(transport, asyncio.Transport) else transport.close
        if not self._door.enter(self, str(peer[0]) if peer else "unknown", cut):
            cut()
            return
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._door.release(self)
        super().connection_lost(exc)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what is no HTTP in constant words; what strangers send must not fill the log.

        Raises:
            ConnectionError: the peer is gone, or part of the answer is sent already.
        """
        if isinstance(exc, ConnectionError) and (request.transport is None or request.transport.is_closing()):
            logger.debug("%s left before its answer", request.remote)
            raise ConnectionError("the peer is gone") from exc
        ours = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        level = logging.ERROR if ours else logging.DEBUG
        logger.log(level, "%s from %s cannot be served", "request" if ours else "what came", request.remote, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("part of the answer is sent already")
        response = web.Response(status=status, text="internal error\n" if ours else "bad request\n")
        response.headers.update({**_HEADERS, "Server": ""})
        response.force_close()
        return response


class _Server(web.Server):
    def __init__(self, like: web.Server, door: Door, idle_seconds: float) -> None:
        def asked(message: Any, payload: Any, protocol: _Connection, *rest: Any) -> web.BaseRequest:
            protocol.asked = True
            return like.request_factory(message, payload, protocol, *rest)

        super().__init__(like.request_handler, request_factory=asked)  # type: ignore[arg-type]  # every protocol of ours is a _Connection
        self._door = door
        self._idle_seconds = idle_seconds

    def __call__(self) -> web.RequestHandler:
        return _Connection(
            self,
            door=self._door,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=self._idle_seconds,
            lingering_time=_LINGERING_SECONDS,
            max_headers=_MAX_HEADERS,
            access_log=None,
        )


class Listener(web.AppRunner):
    """Runs the application behind a door."""

    def __init__(self, application: web.Application, door: Door, *, idle_seconds: float = IDLE_SECONDS, shutdown_timeout: float) -> None:
        super().__init__(application, access_log=None, shutdown_timeout=shutdown_timeout)
        self._door = door
        self._idle_seconds = idle_seconds

    async def hear_out_newcomers(self) -> None:
        """Once nobody new is accepted: give who came in last the moment in which a request arrives, so that it gets an answer."""
        loop = asyncio.get_running_loop()
        for _ in range(int(NEWCOMER_SECONDS / _ARRIVING_SECONDS)):
            # Waited first: what was accepted in this very step becomes a connection in the next ones.
            await asyncio.sleep(_ARRIVING_SECONDS)
            newcomers = (one for one in self._door.inside() if isinstance(one, _Connection) and not one.asked)
            if all(loop.time() - one.accepted_at > NEWCOMER_SECONDS for one in newcomers):
                return

    async def _make_server(self) -> web.Server:
        return _Server(await super()._make_server(), self._door, self._idle_seconds)


class Probes:
    """`/healthz`, `/readyz`, `/startupz`; reasons only for callers that proved themselves."""

    def __init__(
        self,
        *,
        started: Callable[[], bool],
        ready: Callable[[], bool],
        reasons: Callable[[], Sequence[str]],
        trusted: Callable[[web.Request], Awaitable[bool]],
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
        if await self._trusted(request):
            body["reasons"] = list(self._reasons())
        return web.json_response(body, status=200 if ready else 503)

    async def _startup(self, request: web.Request) -> web.Response:
        started = self._started()
        body: dict[str, object] = {"ok": started, "status": "started" if started else "starting"}
        if await self._trusted(request):
            body["reasons"] = list(self._reasons())
        return web.json_response(body, status=200 if started else 503)


class PluginRoutes(web_urldispatcher.AbstractResource):
    """The routes of plugins as one resource of the application, whose router is frozen at the start. They are swapped as a whole."""

    def __init__(self, base_path: str, guard: Callable[[str, Handler], Handler]) -> None:
        super().__init__()
        self._base_path = base_path
        self._guard = guard
        self._table = web.UrlDispatcher()

    @property
    def canonical(self) -> str:
        """They may lie anywhere."""
        return "/"

    def build(self, routes: Iterable[tuple[str, HttpRoute]]) -> web.UrlDispatcher:
        """Return a table of these; raise `ValueError` for one that cannot be."""
        table = web.UrlDispatcher()
        for owner, route in routes:
            table.add_route(route.method, self._base_path + route.path, self._guard(owner, route.handler))
        table.freeze()
        return table

    def use(self, table: web.UrlDispatcher) -> None:
        """Answer by this table from now on."""
        self._table = table

    async def resolve(self, request: web.Request) -> tuple[web_urldispatcher.UrlMappingMatchInfo | None, set[str]]:
        """Look the request up in the table in force."""
        found = await self._table.resolve(request)
        if not isinstance(found, web_urldispatcher.MatchInfoError):
            return found, set()
        refusal = found.http_exception
        return None, set(refusal.allowed_methods) if isinstance(refusal, web.HTTPMethodNotAllowed) else set()

    def add_prefix(self, prefix: str) -> None:
        """Not for them: they are in no application below another.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(f"routes of plugins cannot be moved below {prefix!r}")

    def url_for(self, **_kwargs: str) -> URL:
        """Return the root: none of them has a name."""
        return URL("/")

    def get_info(self) -> Any:
        """Return where they lie."""
        return {"path": "/"}

    def raw_match(self, path: str) -> bool:
        """Match nothing: every route is found by `resolve`."""
        return path == ""

    def __iter__(self) -> Iterator[web.AbstractRoute]:
        return iter(self._table.routes())

    def __len__(self) -> int:
        return len(self._table.routes())


PLUGIN_ROUTES: Final = web.AppKey("plugin_routes", PluginRoutes)


def build_application(
    *,
    base_path: str,
    upgrade: Handler,
    probes: Probes,
    routes: Iterable[tuple[str, HttpRoute]],
    guard: Callable[[str, Handler], Handler],
    body_seconds: float = BODY_SECONDS,
    arrivals: Arrivals | None = None,
    door: Door | None = None,
    refuse_foreign: Callable[[web.Request], web.Response | None] = lambda _request: None,
) -> web.Application:
    """Assemble the listener's application. `routes` are (plugin id, route); `guard` fences a plugin's handler.

    Those of plugins are in `application[PLUGIN_ROUTES]`, where they can be swapped. A request whose body has not arrived after
    `body_seconds` is answered 408. Behind a trusted proxy of `arrivals` the handlers see the client's address, host and scheme, and the
    `door` counts the connection by its client. What changes something is answered as `refuse_foreign` says where a page of another site
    asks for it.
    """
    known = Arrivals() if arrivals is None else arrivals

    @web.middleware
    async def upgrades_first(request: web.Request, handler: Handler) -> web.StreamResponse:
        arrival = known.of(request)
        if door is not None and arrival.trusted and not door.move(request.protocol, arrival.address):
            return web.Response(status=503, text="too many connections from this address; close some\n")
        if request.method == "GET" and request.headers.get("Upgrade", "").lower() == "websocket":
            return await upgrade(request)
        foreign = None if request.method in _SAFE else refuse_foreign(request)
        return foreign or await _in_time(known.as_seen_by_client(request), handler, body_seconds)

    application = web.Application(middlewares=[upgrades_first], client_max_size=BODY_LIMIT, handler_args={"access_log": None})
    application.on_response_prepare.append(_harden)
    for path, handler in probes.routes():
        application.router.add_get(base_path + path, handler)
    plugins = application[PLUGIN_ROUTES] = PluginRoutes(base_path, guard)
    plugins.use(plugins.build(routes))
    application.router.register_resource(plugins)
    return application


async def _in_time(request: web.Request, handler: Handler, seconds: float) -> web.StreamResponse:
    if not request.can_read_body:
        return await handler(request)
    loop = asyncio.get_running_loop()
    deadline = asyncio.timeout(None)

    def look() -> None:
        if not request.content.is_eof():
            deadline.reschedule(loop.time())

    # Only the body is timed: what a handler does with it, it may do for long.
    timer = loop.call_later(seconds, look)
    try:
        async with deadline:
            return await handler(request)
    except TimeoutError:
        if not deadline.expired():
            raise
        response = web.Response(status=408, text="the body did not arrive in time\n")
        response.force_close()
        return response
    finally:
        timer.cancel()


async def _harden(request: web.Request, response: web.StreamResponse) -> None:
    # What an unauthenticated caller reads names neither product nor version.
    response.headers.pop("Server", None)
    # For this machine's own name it would bind whatever else is served here. Where a proxy does TLS, that is the proxy's to say.
    if request.get_extra_info("ssl_object") is not None and not is_loopback_host(request.host):
        response.headers.setdefault("Strict-Transport-Security", HSTS)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
