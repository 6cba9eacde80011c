"""WebSockets over aiohttp: the I/O around handshake and session, the clock, and the closing of all connections."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any, Final

from aiohttp import WSMsgType, web
from aiohttp.http import WebSocketError
from aiohttp.http_websocket import WSCloseCode

from openclaw_kernel.protocol.arrivals import Arrivals
from openclaw_kernel.protocol.auth import Refused, Verified
from openclaw_kernel.protocol.connection import Connection, Outbound
from openclaw_kernel.protocol.connections import AUTH_CHANGED, AUTHORITIES_CHANGED, INVALIDATED, OpenConnections
from openclaw_kernel.protocol.dispatch import Dispatcher
from openclaw_kernel.protocol.frames import response
from openclaw_kernel.protocol.handshake import Accept, Action, Close, Delay, Handshakes, Peer, Send, Settle
from openclaw_kernel.protocol.limiter import network_of
from openclaw_kernel.protocol.limits import Limits
from openclaw_kernel.protocol.origin import origin_allowed
from openclaw_kernel.protocol.pages import PageSessions
from openclaw_kernel.protocol.proxy import Arrival
from openclaw_kernel.protocol.registry import MethodRegistry
from openclaw_kernel.protocol.session import Invoke, Reply, Session
from openclaw_kernel.tasks import TaskOwner

if TYPE_CHECKING:
    from aiohttp.http_websocket import WebSocketReader

logger = logging.getLogger("openclaw.protocol")

_MESSAGES: Final = frozenset({WSMsgType.TEXT, WSMsgType.BINARY})
_YIELD_EVERY: Final = 64
_TOO_LONG: Final = Close(1009, "payload before hello is over the limit")


async def _nothing(_request: web.Request) -> Verified | Refused | None:
    return None


async def _at_once() -> None:
    return


class GatewayServer:
    """Accepts upgrades and owns every connection."""

    def __init__(
        self,
        *,
        registry: MethodRegistry,
        dispatcher: Dispatcher,
        handshakes: Handshakes,
        pages: PageSessions,
        limits: Limits,
        allowed_origins: Callable[[], Collection[str]],
        hello: Callable[[Connection], bytes],
        opened: Callable[[Connection], Callable[[], None]],
        open_connections: OpenConnections | None = None,
        arrivals: Arrivals | None = None,
    ) -> None:
        self._refusals = handshakes.refusals
        self._registry = registry
        self._dispatcher = dispatcher
        self._handshakes = handshakes
        self._pages = pages
        self._limits = limits
        self._allowed_origins = allowed_origins
        self._hello = hello
        self._opened = opened
        self._arrivals = Arrivals() if arrivals is None else arrivals
        self.open_door: Callable[[], Awaitable[None]] = _at_once
        """Awaited for each upgrade before it is answered."""
        self.prove: Callable[[web.Request], Awaitable[Verified | Refused | None]] = _nothing
        """Asks what an upgrade itself proves of who sends it."""
        self.stands: Callable[[web.Request, Verified], bool] = lambda _request, _verified: True
        """Whether a proof that came with the upgrade holds still, now that somebody is let in."""
        self.auth_epoch: Callable[[], int] = lambda: 0
        """Which settings proofs are checked by: who is let in was checked by those that are in force then."""
        self.proved: Callable[[web.Request], None] = lambda _request: None
        """Told of each upgrade whose client has proved itself."""
        self._unauthenticated: Counter[str] = Counter()
        self._connections = OpenConnections() if open_connections is None else open_connections
        self._outbounds: set[Outbound] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one upgrade request until its socket is gone."""
        arrival = self._arrivals.of(request)
        counted_as = network_of(arrival.address)
        origin = request.headers.get("Origin")
        foreign = self.refuse_foreign(request, surface="ws")
        if foreign is not None:
            return foreign
        if self._unauthenticated[counted_as] >= self._limits.unauthenticated_per_address:
            return web.Response(status=503, text="too many unauthenticated connections from this address; finish or close some\n")
        # Counted before the first await: half-open upgrades must not slip past the bound together.
        self._unauthenticated[counted_as] += 1
        counted = [counted_as]
        epoch = self.auth_epoch()
        try:
            await self.open_door()
            peer = Peer(
                address=arrival.address,
                direct_local=arrival.direct_local,
                crowd=arrival.is_crowd,
                origin=origin,
                page=self._page(request, origin, arrival),
                proof=await self.prove(request),
            )
            return await self._serve(request, peer, counted, epoch)
        finally:
            self._release(counted)

    def refuse_foreign(self, request: web.Request, *, surface: str) -> web.Response | None:
        """The refusal of a page that may not talk to this gateway; None for all others, and for who is no browser."""
        origin, arrival = request.headers.get("Origin"), self._arrivals.of(request)
        allowed = self._allowed_origins()
        if origin is None or origin_allowed(origin, arrival.host, allowed, local_peer=arrival.direct_local, secure=arrival.secure):
            return None
        self._refusals.foreign_origin(origin, arrival.address, surface=surface)
        return _foreign(origin, arrival)

    def _page(self, request: web.Request, origin: str | None, arrival: Arrival) -> Any:
        return None if origin is None else self._pages.grant(request.cookies, origin, arrival.host or request.host)

    def _release(self, counted: list[str]) -> None:
        while counted:
            address = counted.pop()
            self._unauthenticated[address] -= 1
            if self._unauthenticated[address] <= 0:
                del self._unauthenticated[address]

    async def _serve(self, request: web.Request, peer: Peer, counted: list[str], epoch: int) -> web.StreamResponse:
        limits = self._limits
        ws = _Socket(
            # Who reads its close frame later than that still finds it, before the socket is cut.
            timeout=limits.close_seconds / 2,
            autoping=False,
            compress=False,
            # aiohttp refuses a message of this very size.
            max_msg_size=limits.max_payload + 1,
            decode_text=False,
        )
        await ws.prepare(request)
        gate = _PayloadGate.install(request, ws, limits.payload_before_hello)
        outbound = Outbound(ws, request, limits)
        owner = TaskOwner(f"connection/{peer.address}", _task_failed)
        owner.spawn("writer", outbound.write_until_closed())
        self._outbounds.add(outbound)
        self._idle.clear()
        try:
            accepted = await self._shake(ws, outbound, peer)
            if accepted is not None and not self.stands(request, accepted.verified):
                outbound.close(Close(INVALIDATED, f"client invalidated: {AUTHORITIES_CHANGED}"))
                accepted = None
            if accepted is not None and self.auth_epoch() != epoch:
                outbound.close(Close(INVALIDATED, AUTH_CHANGED))
                accepted = None
            if accepted is not None:
                self._release(counted)
                self.proved(request)
                gate.open()
                await self._converse(ws, outbound, owner, accepted, peer)
            await self._wait_closed(ws, outbound)
        except Exception:
            # The peer learns that the fault is not its own; what it was is for the log, to which this goes on.
            outbound.close(Close(1011, "internal error"))
            await self._wait_closed(ws, outbound)
            raise
        finally:
            hung = await owner.close(limits.close_seconds)
            if hung:
                logger.warning("calls of a lost connection do not end when cancelled and were abandoned: %s", ", ".join(hung))
            outbound.finish()
            self._outbounds.discard(outbound)
            if not self._outbounds:
                self._idle.set()
        return ws

    async def _shake(self, ws: web.WebSocketResponse, outbound: Outbound, peer: Peer) -> Accept | None:
        handshake = self._handshakes.begin(peer)
        actions = handshake.open()
        try:
            async with asyncio.timeout(self._limits.handshake_seconds):
                while outbound.closing is None:
                    step = await _perform(actions, outbound)
                    if isinstance(step, Settle):
                        actions = handshake.resume(await self._handshakes.settle(step.claim))
                        continue
                    if step is not None or outbound.closing is not None:
                        return step
                    message = await ws.receive()
                    if message.type in _MESSAGES:
                        # What came in one packet with the upgrade was read before the gate stood.
                        too_long = len(message.data) > self._limits.payload_before_hello
                        actions = [_TOO_LONG] if too_long else handshake.receive(message.data)
                    elif message.type is WSMsgType.PING:
                        outbound.pong(message.data)
                        actions = []
                    elif message.type is not WSMsgType.PONG:
                        return None
        except TimeoutError:
            await _perform(handshake.expire(), outbound)
        return None

    async def _converse(self, ws: web.WebSocketResponse, outbound: Outbound, owner: TaskOwner, accepted: Accept, peer: Peer) -> None:
        connection_id = secrets.token_hex(8)
        connection = Connection(
            connection_id=connection_id, accepted=accepted, address=peer.address, outbound=outbound, limits=self._limits
        )
        session = Session(
            registry=self._registry,
            role=connection.role,
            scopes=connection.effective_scopes,
            limits=self._limits,
            refused=lambda request, error: self._refusals.method(connection, request.method, error, request.traceparent),
        )
        self._connections.add(connection)
        closed = self._opened(connection)
        try:
            connection.send(response(accepted.request_id, self._hello(connection)))
            await self._read(ws, connection, session, owner)
        finally:
            self._connections.remove(connection)
            closed()

    async def _read(self, ws: web.WebSocketResponse, connection: Connection, session: Session, owner: TaskOwner) -> None:
        taken = 0
        while True:
            message = await ws.receive()
            if message.type in _MESSAGES:
                self._take(connection, session, owner, message.data)
            elif message.type is WSMsgType.PONG:
                connection.ponged(asyncio.get_running_loop().time())
            elif message.type is WSMsgType.PING:
                connection.outbound.pong(message.data)
            else:
                return
            if connection.outbound.is_behind():
                await connection.outbound.room()
            taken += 1
            if taken % _YIELD_EVERY == 0:
                # A client that pipelines must not keep the loop from the others.
                await asyncio.sleep(0)

    def _take(self, connection: Connection, session: Session, owner: TaskOwner, data: bytes) -> None:
        if connection.invalidated:
            return
        outcome = session.receive(data)
        if type(outcome) is Invoke:
            if self._dispatcher.waits(outcome):
                owner.spawn(outcome.method.name, self._run(connection, session, outcome))
                return
            try:
                self._dispatcher.run_now(connection, outcome)
            finally:
                session.finished(outcome.request)
        elif type(outcome) is Reply:
            connection.send(outcome.frame)
            if outcome.close is not None:
                connection.outbound.close(outcome.close)

    async def _run(self, connection: Connection, session: Session, invoke: Invoke) -> None:
        try:
            await self._dispatcher.run(connection, invoke)
        finally:
            session.finished(invoke.request)

    async def _wait_closed(self, ws: web.WebSocketResponse, outbound: Outbound) -> None:
        # The writer still owes the peer its last frames and the close, and reads what the peer had sent until it answers: a socket
        # closed with bytes unread is reset, and the close frame lost. The abort timer bounds the wait.
        if outbound.closing is not None:
            await outbound.written.wait()

    def tick(self, now: float) -> None:
        """Ping and cut what is dead, end what has expired; `now` is the loop's clock. Called every second."""
        self._connections.expire(self._handshakes.now_ms())
        for connection in self._connections:
            connection.tick(now)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    async def close(self, close: Close) -> None:
        """Close every socket and wait for them, a second at most."""
        for outbound in list(self._outbounds):
            outbound.close(close)
        try:
            async with asyncio.timeout(self._limits.close_seconds * 2):
                await self._idle.wait()
        except TimeoutError:
            logger.warning("%d sockets did not close in time and were cut", len(self._outbounds))
        await self._dispatcher.close(self._limits.close_seconds)


async def _perform(actions: list[Action], outbound: Outbound) -> Accept | Settle | None:
    for action in actions:
        if isinstance(action, Send):
            outbound.put(action.frame)
        elif isinstance(action, Delay):
            await asyncio.sleep(action.milliseconds / 1000)
        elif isinstance(action, Close):
            outbound.close(action)
        else:
            return action
    return None


def _foreign(origin: str, arrival: Arrival) -> web.Response:
    cure = "add it to gateway.controlUi.allowedOrigins"
    if arrival.ignored and not arrival.trusted:
        cure += f", or the proxy that speaks for it ({arrival.peer}) to gateway.trustedProxies"
    message = f"origin {origin[:200]} is not allowed; {cure}"
    error = {"type": "forbidden", "message": message, "details": {"code": "CONTROL_UI_ORIGIN_NOT_ALLOWED"}}
    return web.json_response({"ok": False, "error": error}, status=403)


def _task_failed(name: str, error: BaseException) -> None:
    logger.error("task %s failed", name, exc_info=error)


class _Socket(web.WebSocketResponse):
    """Ends its transport when the other end has answered the close frame, or has had the time for it.

    aiohttp would do so at once where a `receive` waits. Over TLS frame and end then arrive together, and the other end is cut off from
    what it was to answer: some clients take that for a connection that broke.
    """

    def _set_closing(self, code: WSCloseCode) -> None:
        # Set by its own message that wakes `receive`, it tells `close` not to read on; a client's code is a plain number.
        if not (self.closed and code is WSCloseCode.OK):
            super()._set_closing(code)


class _PayloadGate:
    """Stands before aiohttp's frame reader until hello: more than the allowed bytes end the connection before they are kept.

    aiohttp fixes a socket's message limit once, but the protocol's limit grows a hundredfold when the client is known.
    """

    def __init__(self, reader: WebSocketReader, ws: web.WebSocketResponse, protocol: Any, allowed: int) -> None:
        self._reader = reader
        self._ws = ws
        self._protocol = protocol
        self._left = allowed

    @classmethod
    def install(cls, request: web.Request, ws: web.WebSocketResponse, allowed: int) -> _PayloadGate:
        """Put a gate into the connection."""
        protocol = request.protocol
        gate = cls(protocol._payload_parser, ws, protocol, allowed + 1024)  # noqa: SLF001 - aiohttp has no public way
        protocol._payload_parser = gate  # noqa: SLF001 - as above
        return gate

    def open(self) -> None:
        """Let everything through from now on."""
        if self._protocol._payload_parser is self:  # noqa: SLF001 - as above
            self._protocol._payload_parser = self._reader  # noqa: SLF001 - as above

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Pass data on while the allowance lasts."""
        self._left -= len(data)
        if self._left < 0:
            queue = self._ws._reader  # noqa: SLF001 - as above
            if queue is not None:
                queue.set_exception(WebSocketError(WSCloseCode.MESSAGE_TOO_BIG, "payload before hello is over the limit"))
            return True, b""
        return self._reader.feed_data(data)

    def feed_eof(self) -> None:
        """Pass the end on."""
        self._reader.feed_eof()
