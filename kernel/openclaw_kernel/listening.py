"""The gateway's port: the socket, its certificate, and the application that is served there."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web

from openclaw_config.load import Loaded
from openclaw_kernel.cannot_start import CannotStart, faulty
from openclaw_kernel.host.guard import Guard, PluginFault
from openclaw_kernel.http import Door, Handler, Listener

if TYPE_CHECKING:
    from openclaw_kernel.tls.keeper import TlsKeeper

logger: Final = logging.getLogger("openclaw.gateway")

BACKLOG: Final = 1024
_SHUTDOWN_SECONDS: Final = 1.0
_HOSTS: Final = {"loopback": "127.0.0.1", "lan": "0.0.0.0"}  # noqa: S104 - chosen by the owner, refused without auth


class Port:
    """Where the gateway is reached. `load_tls` comes first, then `serve`; what is opened is closed by the stack that is handed in."""

    def __init__(self, loaded: Loaded, home: Path, *, door: Door, now_ms: Callable[[], int]) -> None:
        self._loaded = loaded
        self._home = home
        self._door = door
        self._now_ms = now_ms
        self.tls: TlsKeeper | None = None
        """What keeps the certificate, None without TLS."""

    async def load_tls(self) -> None:
        """Read the certificate where one is configured; raise `CannotStart` where it cannot be served."""
        settings = self._loaded.config.gateway.tls
        if not settings.enabled:
            return
        # Imported here: who does not encrypt pays nothing for it.
        from openclaw_kernel.tls.faults import TlsFault
        from openclaw_kernel.tls.keeper import TlsKeeper

        try:
            self.tls = await TlsKeeper.open(settings, self._home, now_ms=self._now_ms)
        except TlsFault as fault:
            raise faulty(self._loaded, fault.key, fault.found, fault.cure) from fault

    async def serve(self, application: web.Application, stack: contextlib.AsyncExitStack, farewell: Callable[[], Awaitable[None]]) -> str:
        """Listen; return the URL of the root, without a slash at its end. `farewell` ends the connections when the port is closed.

        Raises:
            CannotStart: the port cannot be had.
        """
        config = self._loaded.config.gateway
        runner = Listener(application, self._door, shutdown_timeout=_SHUTDOWN_SECONDS)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.push_async_callback(farewell)
        site = self._site(runner, _HOSTS[config.bind], config.port)
        try:
            await site.start()
        except OSError as error:
            raise self._cannot_bind(error) from error
        # Stopping begins here: nobody new comes in while the rest is taken down.
        stack.push_async_callback(site.stop)
        port = runner.addresses[0][1]
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{port}"

    def _site(self, runner: Listener, host: str, port: int) -> web.TCPSite:
        if self.tls is None:
            return web.TCPSite(runner, host, port, backlog=BACKLOG)
        from openclaw_kernel.tls.listening import TlsSite

        return TlsSite(runner, host, port, context=self.tls.context, door=self._door, backlog=BACKLOG)

    def _cannot_bind(self, error: OSError) -> CannotStart:
        port = self._loaded.config.gateway.port
        if error.errno == errno.EADDRINUSE:
            found, cure = f"{port} is in use by another program", "stop that program, or set another port"
        elif error.errno == errno.EACCES:
            found, cure = f"{port} needs more rights than this user has", "set a port over 1023"
        else:
            found, cure = f"cannot listen on {port} ({error.strerror or error})", "set another port or bind"
        return faulty(self._loaded, "gateway.port", found, cure, status=75)


def fenced(guard: Guard, owner: str, handler: Handler) -> Handler:
    """A plugin's route behind the guard: what it raises is that plugin's failure, answered with 500."""

    async def serve(request: web.Request) -> web.StreamResponse:
        try:
            return await guard.run(owner, f"route {request.method} {request.path}", lambda: handler(request), None)
        except PluginFault as fault:
            if isinstance(fault.error, web.HTTPException | ConnectionError):
                raise fault.error from None
            logger.error("%s", fault, exc_info=fault.error)  # noqa: TRY400 - the plugin's traceback, not the guard's
            body = {"ok": False, "error": {"type": "internal", "message": f"plugin {owner} failed; the log has the details"}}
            return web.json_response(body, status=500)

    return serve
