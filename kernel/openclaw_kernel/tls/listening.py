"""The listener's socket with TLS: who does not finish its TLS handshake is counted at the door as any stranger is."""

from __future__ import annotations

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

if TYPE_CHECKING:
    import socket

    from openclaw_kernel.http import Door

HANDSHAKE_SECONDS: Final = 10.0
_SHUTDOWN_SECONDS: Final = 1.0


class _Entrance(SSLProtocol):
    """One connection. asyncio's own way tells nobody of it before its handshake is done, which may be never."""

    max_size = 65_536

    def __init__(self, handler: web.RequestHandler, context: ssl.SSLContext, door: Door, handshake_seconds: float) -> None:
        super().__init__(
            asyncio.get_running_loop(),
            handler,
            context,
            None,  # type: ignore[arg-type]  # nobody waits for the handshake
            server_side=True,
            ssl_handshake_timeout=handshake_seconds,  # type: ignore[arg-type]  # seconds, with a fraction
            ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
        )
        self._door = door
        self._handler = handler

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        cut = transport.abort if isinstance(transport, asyncio.Transport) else transport.close
        if not self._door.enter(self._handler, str(peer[0]) if peer else "unknown", cut):
            cut()
            return
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._door.release(self._handler)


class TlsSite(web.SockSite):
    """Where a runner listens, with TLS. `context` is asked for each connection anew."""

    __slots__ = ("_context", "_door", "_handshake_seconds")

    def __init__(
        self,
        runner: web.AppRunner,
        listener: socket.socket,
        *,
        context: ssl.SSLContext,
        door: Door,
        backlog: int,
        handshake_seconds: float = HANDSHAKE_SECONDS,
    ) -> None:
        super().__init__(runner, listener, ssl_context=context, backlog=backlog)
        self._context = context
        self._door = door
        self._handshake_seconds = handshake_seconds

    async def start(self) -> None:
        """Listen; raise `OSError`."""
        await web.BaseSite.start(self)
        server: Any = self._runner.server

        def entrance() -> SSLProtocol:
            return _Entrance(server(), self._context, self._door, self._handshake_seconds)

        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(entrance, sock=self._sock, backlog=self._backlog)
