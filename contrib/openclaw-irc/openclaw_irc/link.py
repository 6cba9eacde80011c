"""One connection to the server, from the first packet to the last."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from openclaw_irc.settings import IrcSettings
from openclaw_irc.timing import Timing
from openclaw_irc.wire import fold, one_line
from openclaw_kernel.api import NotReady

if TYPE_CHECKING:
    from irc.client import Event
    from irc.client_aio import AioConnection

NICKS_TRIED: Final = 6
SHORTEST_NICK_LIMIT: Final = 9
"""Of the servers that cut a nick, none leaves less."""
NICK_TAKEN: Final = ("nicknameinuse", "nickcollision", "unavailresource")
REFUSALS: Final = {"passwdmismatch": "password", "erroneusnickname": "nick", "yourebannedcreep": "server"}
"""What a server says before it closes the door, and the setting that is to blame."""
ROOM_REFUSALS: Final = (
    "nosuchchannel",
    "toomanychannels",
    "channelisfull",
    "inviteonlychan",
    "bannedfromchan",
    "badchannelkey",
    "nochanmodes",
)


class Link:
    """A connection of the `irc` library; used once. `on_change` is called when it entered or left a room."""

    def __init__(
        self, settings: IrcSettings, timing: Timing, *, on_line: Callable[[Event, str], None], on_change: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._timing = timing
        self._on_line = on_line
        self._on_change = on_change
        self._connection: AioConnection | None = None
        self._news = asyncio.Event()
        self._welcomed = False
        self._lost = False
        self._complaint: str | None = None
        self._heard = 0.0
        self._nicks_tried = 0
        self._rooms = {fold(room): "not yet let in" for room in settings.rooms}

    @property
    def is_up(self) -> bool:
        """Whether lines can be sent."""
        return self._welcomed and not self._lost

    @property
    def fault(self) -> str | None:
        """Which rooms it is not in, and why."""
        missing = "; ".join(f"{room} ({reason})" for room, reason in self._rooms.items() if reason)
        return f"channels.irc.rooms: not in {missing}; it is tried again by itself" if missing and self.is_up else None

    async def connect(self) -> None:
        """Connect and log on. Raise `NotReady` for what the server says, `OSError`, `TimeoutError`, `ValueError` or `IRCError` else."""
        from irc.client_aio import AioReactor
        from irc.connection import AioFactory
        from jaraco.stream.buffer import LenientDecodingLineBuffer

        settings = self._settings
        # Reading the certificates takes longer than the rest of the start.
        tls = await asyncio.to_thread(ssl.create_default_context) if settings.tls else None
        factory = AioFactory(ssl=tls, server_hostname=settings.server) if tls is not None else AioFactory()
        connection: AioConnection = AioReactor(loop=asyncio.get_running_loop()).server()
        connection.buffer_class = LenientDecodingLineBuffer
        self._connection = connection
        self._listen(connection)
        password = settings.password.unwrap() if settings.password else None
        async with asyncio.timeout(self._timing.connect):
            await connection.connect(*settings.address, settings.nick, password=password, ircname="openclaw agent", connect_factory=factory)
            while not self._welcomed:
                await self._next_news()
        # Message tags carry the services account of a sender. Each is asked for alone: a server refuses a list as a whole.
        for capability in ("account-tag", "message-tags"):
            connection.cap("REQ", capability)
        connection.cap("END")
        self._enter_rooms()

    async def watch(self) -> None:
        """Stay until the connection is lost, which is raised as `NotReady`."""
        clock = asyncio.get_running_loop().time
        pinged: float | None = None
        while True:
            try:
                async with asyncio.timeout(self._timing.ping):
                    while True:
                        await self._next_news()
            except TimeoutError:
                if pinged is not None and self._heard < pinged:
                    raise NotReady(f"did not answer a ping for {self._timing.ping:g} s") from None
                pinged = clock()
                if self._connection is not None:
                    self._connection.ping(self._settings.server)
                self._enter_rooms()

    def say(self, target: str, line: str) -> None:
        """Send one line."""
        if self._connection is not None:
            self._connection.privmsg(target, line)

    def close(self, reason: str) -> None:
        """Say goodbye and let go of the socket, whatever the peer does."""
        connection, self._connection = self._connection, None
        self._lost = True
        if connection is None or not connection.connected:
            return
        transport = connection.transport
        connection.disconnect(reason)
        if transport.get_write_buffer_size():
            # What a dead peer has not taken would keep the socket open for many minutes.
            transport.abort()

    async def _next_news(self) -> None:
        """Wait until something happened; raise `NotReady` once the connection is lost."""
        if not self._lost:
            await self._news.wait()
            self._news.clear()
        if self._lost:
            raise NotReady(self._complaint or "closed the connection")

    def _enter_rooms(self) -> None:
        for room, reason in self._rooms.items():
            if reason and self._connection is not None:
                self._connection.join(room)

    # --- what the server says ----------------------------------------------------------------------------------------

    def _listen(self, connection: AioConnection) -> None:
        handlers = {
            "all_raw_messages": self._take_note,
            "welcome": self._take_welcome,
            "privmsg": self._take_line,
            "pubmsg": self._take_line,
            "join": self._take_join,
            "part": self._take_part,
            "kick": self._take_kick,
            "error": self._take_error,
            "disconnect": self._take_end,
            **dict.fromkeys(NICK_TAKEN, self._take_nick_refusal),
            **dict.fromkeys(REFUSALS, self._take_refusal),
            **dict.fromkeys(ROOM_REFUSALS, self._take_room_refusal),
        }
        for name, handler in handlers.items():
            connection.add_global_handler(name, handler)

    def _take_note(self, _connection: AioConnection, _event: Event) -> None:
        self._heard = asyncio.get_running_loop().time()

    def _take_welcome(self, _connection: AioConnection, _event: Event) -> None:
        self._welcomed = True
        self._news.set()

    def _take_line(self, connection: AioConnection, event: Event) -> None:
        # A line of the server itself has no sender with whom one could talk.
        if event.source and "!" in event.source:
            self._on_line(event, connection.get_nickname())

    def _take_join(self, connection: AioConnection, event: Event) -> None:
        if _is_own(connection, event.source):
            self._note_room(event.target, "")

    def _take_part(self, connection: AioConnection, event: Event) -> None:
        if _is_own(connection, event.source):
            self._note_room(event.target, "taken out of it")

    def _take_kick(self, connection: AioConnection, event: Event) -> None:
        if event.arguments and fold(event.arguments[0]) == fold(connection.get_nickname()):
            self._note_room(event.target, f"thrown out: {one_line(' '.join(event.arguments[1:]))}")

    def _take_room_refusal(self, _connection: AioConnection, event: Event) -> None:
        if event.arguments:
            self._note_room(event.arguments[0], one_line(event.arguments[-1]))

    def _note_room(self, room: str, reason: str) -> None:
        if fold(room) in self._rooms:
            self._rooms[fold(room)] = reason
            self._on_change()

    def _take_nick_refusal(self, connection: AioConnection, event: Event) -> None:
        if self._welcomed:
            return
        self._nicks_tried += 1
        if self._nicks_tried > NICKS_TRIED:
            self._end(f"channels.irc.nick: {self._settings.nick} and its like are in use; choose another")
        else:
            connection.nick(_varied(self._settings.nick, self._nicks_tried))

    def _take_refusal(self, _connection: AioConnection, event: Event) -> None:
        if not self._welcomed:
            self._end(f"channels.irc.{REFUSALS[event.type]}: the server refuses it ({one_line(event.arguments[-1])}); correct it")

    def _take_error(self, _connection: AioConnection, event: Event) -> None:
        told = one_line(event.target or "")
        self._end(self._complaint or (f"closed the connection ({told})" if told else None))

    def _take_end(self, _connection: AioConnection, _event: Event) -> None:
        self._end(self._complaint)

    def _end(self, complaint: str | None) -> None:
        self._complaint = complaint
        self._lost = True
        self._news.set()


def _is_own(connection: AioConnection, source: str | None) -> bool:
    return fold((source or "").partition("!")[0]) == fold(connection.get_nickname())


def _varied(nick: str, number: int) -> str:
    """Return another nick: with underscores first, then with a number where no server would cut it off."""
    return nick + "_" * number if number <= 2 else f"{nick[: SHORTEST_NICK_LIMIT - 1]}{number}"  # noqa: PLR2004 - two tries with underscores
