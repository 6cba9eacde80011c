"""The connection to an IRC server: kept alive, paced, and every line accepted durably before the next is read."""

from __future__ import annotations

import asyncio
import ssl
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from openclaw_irc.settings import IrcSettings
from openclaw_irc.wire import ACCOUNT, lines_of, read_message
from openclaw_kernel.api import (
    AccountStatus,
    ChannelCapabilities,
    Ingress,
    NotReady,
    OutboundMessage,
    PluginContext,
    Progress,
    Receipt,
    SendFailed,
)

if TYPE_CHECKING:
    from irc.client import Event
    from irc.client_aio import AioConnection

CONNECT_SECONDS: Final = 15.0
PING_SECONDS: Final = 60.0
LONGEST_DELAY: Final = 60.0
WAITING_LINES: Final = 1_000


class IrcChannel:
    """One nick on one server."""

    id = "irc"
    label = "IRC"
    capabilities = ChannelCapabilities(groups=True)

    def __init__(self, context: PluginContext, settings: IrcSettings) -> None:
        self._context = context
        self._settings = settings
        self._connection: AioConnection | None = None
        self._task: asyncio.Task[Any] | None = None
        self._lines: asyncio.Queue[Event] = asyncio.Queue(WAITING_LINES)
        self._welcome = asyncio.Event()
        self._lost = asyncio.Event()
        self._pace = asyncio.Lock()
        self._error: str | None = None
        self._last_inbound: int | None = None
        self._last_outbound: int | None = None

    async def start(self) -> None:
        """Connect; a server that is away is tried again with back-off, for ever."""
        self._task = self._context.spawn("connection", self._stay_connected())
        self._context.spawn("intake", self._take_lines())
        try:
            async with asyncio.timeout(CONNECT_SECONDS / 2):
                await self._welcome.wait()
        except TimeoutError:
            if self._error:
                self._context.degrade(self._error)

    async def stop(self) -> None:
        """Say goodbye and close."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._close("the gateway stops")

    def status(self) -> Sequence[AccountStatus]:
        """One account."""
        return (
            AccountStatus(
                account_id=ACCOUNT,
                running=self._task is not None,
                connected=self._welcome.is_set(),
                last_error=self._error,
                last_inbound_at=self._last_inbound,
                last_outbound_at=self._last_outbound,
                detail=f"{self._settings.nick} on {self._settings.server}",
            ),
        )

    async def show_progress(self, progress: Progress) -> None:
        """Never called: IRC shows no progress."""

    async def send(self, message: OutboundMessage) -> Receipt:
        """Send line by line at the server's pace."""
        lines = lines_of(message.text)
        if not lines:
            raise SendFailed("the message has no text that IRC could carry", permanent=True)
        sent = 0
        async with self._pace:
            for line in lines:
                connection = self._connection
                if connection is None or not self._welcome.is_set():
                    raise SendFailed(f"not connected to {self._settings.server}", unknown=sent > 0, retry_after=5.0)
                connection.privmsg(message.target.peer_id, line)
                sent += 1
                self._last_outbound = self._context.now_ms()
                await asyncio.sleep(1 / self._settings.messages_per_second)
        return Receipt(message_ids=(message.outbox_id,))

    async def _stay_connected(self) -> None:
        delay = 1.0
        while True:
            try:
                await self._connect()
                delay = 1.0
                await self._watch()
            except (OSError, NotReady, TimeoutError) as error:
                host, port = self._settings.address
                self._error = f"channels.irc.server: {host}:{port} {_describe(error)}; check server, port and tls"
                self._context.degrade(self._error)
            finally:
                self._close("reconnecting")
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY)

    async def _connect(self) -> None:
        from irc.client_aio import AioReactor
        from irc.connection import AioFactory
        from jaraco.stream.buffer import LenientDecodingLineBuffer

        settings = self._settings
        self._lost.clear()
        reactor = AioReactor(loop=asyncio.get_running_loop())
        connection: AioConnection = reactor.server()
        connection.buffer_class = LenientDecodingLineBuffer
        self._connection = connection
        handlers = {
            "welcome": self._on_welcome,
            "privmsg": self._on_line,
            "pubmsg": self._on_line,
            "nicknameinuse": self._on_nick_taken,
            "disconnect": self._on_lost,
            "error": self._on_lost,
        }
        for name, handler in handlers.items():
            connection.add_global_handler(name, handler)
        factory = AioFactory(ssl=ssl.create_default_context(), server_hostname=settings.server) if settings.tls else AioFactory()
        password = settings.password.unwrap() if settings.password else None
        async with asyncio.timeout(CONNECT_SECONDS):
            await connection.connect(*settings.address, settings.nick, password=password, ircname="openclaw agent", connect_factory=factory)
            await self._first(self._welcome.wait(), self._lost.wait())
        if not self._welcome.is_set():
            raise NotReady("closed the connection before the welcome")
        self._error = None
        self._context.degrade(None)
        # Message tags carry the services account of a sender, where the server knows them.
        connection.cap("REQ", "account-tag", "message-tags")
        connection.cap("END")
        for room in settings.rooms:
            connection.join(room)

    async def _watch(self) -> None:
        while not self._lost.is_set():
            connection = self._connection
            if connection is None:
                return
            try:
                async with asyncio.timeout(PING_SECONDS):
                    await self._lost.wait()
            except TimeoutError:
                connection.ping(self._settings.server)
        raise NotReady("closed the connection")

    async def _first(self, *waits: Any) -> None:
        tasks = [self._context.spawn("wait", wait) for wait in waits]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    def _close(self, reason: str) -> None:
        self._welcome.clear()
        connection, self._connection = self._connection, None
        if connection is not None and connection.connected:
            connection.disconnect(reason)

    def _on_welcome(self, _connection: AioConnection, _event: Event) -> None:
        self._welcome.set()

    def _on_lost(self, _connection: AioConnection, _event: Event) -> None:
        self._welcome.clear()
        self._lost.set()

    def _on_nick_taken(self, connection: AioConnection, _event: Event) -> None:
        connection.nick(f"{connection.get_nickname()}_")

    def _on_line(self, connection: AioConnection, event: Event) -> None:
        try:
            self._lines.put_nowait(event)
        except asyncio.QueueFull:
            # IRC has no way to push back; a flood ends in a reconnect that people see, not in silently lost lines.
            self._error = f"more than {WAITING_LINES} lines wait; reconnecting"
            connection.disconnect("too many lines at once")

    async def _take_lines(self) -> None:
        ingress = self._context.service(Ingress)
        while True:
            event = await self._lines.get()
            self._last_inbound = self._context.now_ms()
            tags = {tag["key"]: tag["value"] or "" for tag in event.tags or ()}
            nick = self._settings.nick if self._connection is None else self._connection.get_nickname()
            message = read_message(
                mask=str(event.source),
                to=event.target,
                text=event.arguments[0],
                tags=tags,
                nick=nick,
                number=str(uuid.uuid4()),
                now_ms=self._last_inbound,
            )
            if message.text:
                await ingress.accept(message)


def _describe(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "does not answer"
    return (str(error) or type(error).__name__).lower()
