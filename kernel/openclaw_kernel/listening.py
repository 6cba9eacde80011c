"""The gateway's port: its sockets, their certificate, and the application that is served there."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web

from openclaw_config.load import Loaded
from openclaw_kernel.cannot_start import CannotStart, faulty
from openclaw_kernel.exposure import refusal_of
from openclaw_kernel.handover.sockets import HeldSocket, Opener
from openclaw_kernel.host.guard import Guard, PluginFault
from openclaw_kernel.http import Door, Handler, Listener
from openclaw_kernel.protocol.origin import is_loopback

if TYPE_CHECKING:
    from openclaw_kernel.tls.keeper import TlsKeeper

logger: Final = logging.getLogger("openclaw.gateway")

BACKLOG: Final = 1024
_SHUTDOWN_SECONDS: Final = 1.0
_HOSTS: Final = {"loopback": "127.0.0.1", "lan": "0.0.0.0"}  # noqa: S104 - chosen by the owner, refused without auth


class Port:
    """Where the gateway is reached. `take` comes first, then `load_tls`, then `serve`.

    `given` are sockets that somebody else opened: those of the service manager are served wherever they listen; those of the process
    before are, unless the configuration has another port by now. The port's master sockets stay open until `close`, also while nobody
    accepts: who connects then waits in their queue.
    """

    def __init__(self, loaded: Loaded, home: Path, *, door: Door, now_ms: Callable[[], int], given: Sequence[HeldSocket] = ()) -> None:
        self._loaded = loaded
        self._home = home
        self._door = door
        self._now_ms = now_ms
        self._held = list(given)
        self._elsewhere: str | None = None
        self._passes_on = False
        self.closed_at: float | None = None
        """When it stopped to accept, by the monotonic clock."""
        self.tls: TlsKeeper | None = None
        """What keeps the certificate, None without TLS."""

    def take(self) -> None:
        """Have the sockets, bound and not yet listening where they are new.

        Raises:
            CannotStart: the port cannot be had, or what was passed would open a door that the configuration keeps shut.
        """
        gateway = self._loaded.config.gateway
        try:
            if not self._held:
                self._held = [_bound(gateway.bind, gateway.port)]
            elif self._held[0].opener is Opener.CONFIG:
                self._held = [self._moved(self._held[0])]
        except OSError as error:
            raise self._cannot_bind(error) from error
        for held in self._held:
            beyond = None if is_loopback(held.address[0]) else held.shown
            refusal = refusal_of(gateway, listens_at=beyond if gateway.bind == "loopback" else None)
            if refusal is not None:
                raise faulty(self._loaded, refusal.key, refusal.found, refusal.cure)

    def _moved(self, held: HeldSocket) -> HeldSocket:
        gateway = self._loaded.config.gateway
        if (held.bind, held.port) == (gateway.bind, gateway.port):
            return held
        # One port cannot be bound for this machine and for all of its addresses at once.
        in_the_way = held.address[1] == gateway.port
        if in_the_way:
            held.give_up()
        try:
            moved = _bound(gateway.bind, gateway.port)
        except OSError as error:
            kept = _bound(held.bind, gateway.port) if in_the_way else held
            self._elsewhere = f"gateway.port: cannot listen on {gateway.port} ({error.strerror or error}); {kept.shown} is served as before"
            return kept
        held.socket.close()
        return moved

    def problems(self) -> list[str]:
        """Where it listens elsewhere than the configuration says, a line each that begins with the key."""
        gateway = self._loaded.config.gateway
        wanted = (_HOSTS[gateway.bind], gateway.port)
        others = [held for held in self._held if held.opener is Opener.MANAGER and gateway.port and held.address != wanted]
        said = f"gateway.port: {gateway.port} with gateway.bind {gateway.bind} is not what is served, for the service manager opened"
        cure = "let the socket unit and openclaw.yaml say the same"
        return [*([] if self._elsewhere is None else [self._elsewhere]), *(f"{said} {held.shown}; {cure}" for held in others)]

    def pass_on(self) -> None:
        """Leave the sockets open when serving ends: they are for the next process."""
        self._passes_on = True

    def hand_over(self) -> list[HeldSocket]:
        """The sockets, which are the caller's from now on."""
        held, self._held = self._held, []
        return held

    def close(self) -> None:
        """Close the sockets, unless they are passed on."""
        if not self._passes_on:
            for held in self._held:
                held.socket.close()

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
        runner = Listener(application, self._door, shutdown_timeout=_SHUTDOWN_SECONDS)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.push_async_callback(farewell)
        # Stopping begins there: nobody new comes in while the rest is taken down.
        stack.push_async_callback(self._end, runner)
        for held in self._held:
            # What is served is a second descriptor: asyncio closes what it was given, and the queue of the first goes on.
            copy = held.socket.dup()
            try:
                await self._site(runner, copy).start()
            except OSError as error:
                copy.close()
                raise self._cannot_bind(error) from error
        return f"{'http' if self.tls is None else 'https'}://{self._held[0].reached_at}"

    async def _end(self, runner: Listener) -> None:
        self.closed_at = time.monotonic()
        for site in list(runner.sites):
            await site.stop()
        self.close()
        await runner.hear_out_newcomers()

    def _site(self, runner: Listener, listener: socket.socket) -> web.SockSite:
        if self.tls is None:
            return web.SockSite(runner, listener, backlog=BACKLOG)
        from openclaw_kernel.tls.listening import TlsSite

        return TlsSite(runner, listener, context=self.tls.context, door=self._door, backlog=BACKLOG)

    def _cannot_bind(self, error: OSError) -> CannotStart:
        port = self._loaded.config.gateway.port
        if error.errno == errno.EADDRINUSE:
            found, cure = f"{port} is in use by another program", "stop that program, or set another port"
        elif error.errno == errno.EACCES:
            found, cure = f"{port} needs more rights than this user has", "set a port over 1023"
        else:
            found, cure = f"cannot listen on {port} ({error.strerror or error})", "set another port or bind"
        return faulty(self._loaded, "gateway.port", found, cure, status=75)


def _bound(bind: str, port: int) -> HeldSocket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((_HOSTS[bind], port))
        made.setblocking(False)  # noqa: FBT003 - the standard library's signature
    except OSError:
        made.close()
        raise
    return HeldSocket(socket=made, opener=Opener.CONFIG, bind=bind, port=port)


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
