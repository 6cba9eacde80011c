"""The channel: a connection kept alive, lines accepted one by one, answers sent at the server's pace."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from openclaw_irc.link import Link
from openclaw_irc.settings import IrcSettings
from openclaw_irc.timing import Timing
from openclaw_irc.wire import ACCOUNT, lines_of, read_message, room_for
from openclaw_kernel.api import (
    AccountStatus,
    ChannelCapabilities,
    GatewayError,
    InboundMessage,
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

WAITING_LINES: Final = 1_000
RECONNECTED_SECONDS: Final = 5.0
TARGET: Final = re.compile(r"[^\s,:\x00-\x1f\x7f][^\s,\x00-\x1f\x7f]{0,99}")
LEAST_ROOM_BYTES: Final = 100
# What a service of another plugin raises when it is missing, stopping, full or out of disk.
NOT_ACCEPTED: Final = (GatewayError, LookupError, RuntimeError, OSError, sqlite3.Error)


class IrcChannel:
    """One nick on one server."""

    id = "irc"
    label = "IRC"
    capabilities = ChannelCapabilities(groups=True)

    def __init__(self, context: PluginContext, settings: IrcSettings, timing: Timing | None = None) -> None:
        self._context = context
        self._settings = settings
        self._timing = timing or Timing()
        self._link: Link | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._lines: asyncio.Queue[InboundMessage] = asyncio.Queue(WAITING_LINES)
        self._outcome = asyncio.Event()
        self._pace = asyncio.Lock()
        self._next_line = 0.0
        self._faults: dict[str, str] = {}
        self._last_inbound: int | None = None
        self._last_outbound: int | None = None

    async def start(self) -> None:
        """Connect; a server that is away is tried again with back-off, for ever."""
        await self.stop()
        self._outcome.clear()
        self._tasks = [
            self._context.spawn("connection", self._stay_connected()),
            self._context.spawn("intake", self._take_lines()),
        ]
        try:
            async with asyncio.timeout(self._timing.first_outcome):
                await self._outcome.wait()
        except TimeoutError:
            self._context.logger.info("%s has not answered yet; the connection is made in the background", self._settings.server)

    async def stop(self) -> None:
        """Say goodbye and close."""
        tasks, self._tasks = self._tasks, []
        if self._link is not None:
            self._link.close("the gateway stops")
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def status(self) -> Sequence[AccountStatus]:
        """One account."""
        return (
            AccountStatus(
                account_id=ACCOUNT,
                running=bool(self._tasks),
                connected=self._link is not None and self._link.is_up,
                last_error="; ".join(self._faults.values()) or None,
                last_inbound_at=self._last_inbound,
                last_outbound_at=self._last_outbound,
                detail=f"{self._settings.nick} on {self._settings.server}",
            ),
        )

    async def show_progress(self, progress: Progress) -> None:
        """Never called: IRC shows no progress."""

    # --- the connection ----------------------------------------------------------------------------------------------

    async def _stay_connected(self) -> None:
        from irc.client import IRCError

        clock = asyncio.get_running_loop().time
        delay = self._timing.retry_first
        while True:
            link = self._link = Link(self._settings, self._timing, on_line=self._take_line, on_change=self._look_at_rooms)
            began = clock()
            try:
                await link.connect()
                self._report("connection", None)
                self._outcome.set()
                await link.watch()
            except (OSError, NotReady, TimeoutError, ValueError, IRCError) as error:
                self._report("connection", self._describe(error))
                self._report("rooms", None)
                self._outcome.set()
            finally:
                self._link = None
                link.close("reconnecting")
            if clock() - began > self._timing.stable:
                delay = self._timing.retry_first
            await asyncio.sleep(delay)
            delay = min(delay * 2, self._timing.retry_longest)

    def _describe(self, error: Exception) -> str:
        told = "does not answer" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        if told.startswith("channels.irc."):
            return told
        host, port = self._settings.address
        return f"channels.irc.server: {host}:{port} {told}; check server, port and tls"

    def _look_at_rooms(self) -> None:
        self._report("rooms", self._link.fault if self._link is not None else None)

    def _report(self, part: str, fault: str | None) -> None:
        if fault == self._faults.get(part):
            return
        if fault is None:
            del self._faults[part]
        else:
            self._faults[part] = fault
        self._context.degrade("; ".join(self._faults.values()) or None)

    # --- receiving ---------------------------------------------------------------------------------------------------

    def _take_line(self, event: Event, nick: str) -> None:
        self._last_inbound = self._context.now_ms()
        message = read_message(
            mask=str(event.source),
            to=event.target,
            text=event.arguments[0],
            tags={tag["key"]: tag["value"] or "" for tag in event.tags or ()},
            nick=nick,
            number=str(uuid.uuid4()),
            now_ms=self._last_inbound,
        )
        if not message.text:
            return
        try:
            self._lines.put_nowait(message)
        except asyncio.QueueFull:
            # IRC has no way to push back; a flood ends in a reconnect that people see, not in silently lost lines.
            self._report("store", f"more than {WAITING_LINES} irc lines waited to be stored, and the connection was closed")
            if self._link is not None:
                self._link.close("too many lines at once")

    async def _take_lines(self) -> None:
        while True:
            message = await self._lines.get()
            pause = self._timing.retry_first
            while not await self._is_accepted(message):
                await asyncio.sleep(pause)
                pause = min(pause * 2, self._timing.retry_longest)
            self._report("store", None)

    async def _is_accepted(self, message: InboundMessage) -> bool:
        try:
            await self._context.service(Ingress).accept(message)
        except NOT_ACCEPTED as error:
            self._report("store", f"irc lines wait: the gateway could not store one ({type(error).__name__}: {error}); it tries again")
            return False
        return True

    # --- sending -----------------------------------------------------------------------------------------------------

    async def send(self, message: OutboundMessage) -> Receipt:
        """Send line by line at the server's pace; after a failure the next attempt goes on with the first unsent line."""
        target = message.target.peer_id
        if TARGET.fullmatch(target) is None or room_for(target) < LEAST_ROOM_BYTES:
            raise SendFailed(f"{target[:100]!r} is not an irc nick or room; write to one word such as ann or #room", permanent=True)
        lines = lines_of(message.text, room_for(target))
        if not lines:
            raise SendFailed("the message has no text that irc could carry", permanent=True)
        key = f"sent:{message.outbox_id}"
        first = sent = int(await self._context.storage.get(key) or 0)
        give_up = asyncio.get_running_loop().time() + self._timing.send_budget
        try:
            for line in lines[first:]:
                await self._say(target, line, give_up)
                sent += 1
        except SendFailed:
            if sent > first:
                await self._context.storage.put(key, str(sent))
            raise
        if first:
            await self._context.storage.remove(key)
        return Receipt(message_ids=(message.outbox_id,))

    async def _say(self, target: str, line: str, give_up: float) -> None:
        """Send a line when its turn comes; all conversations share the pace, none waits for the whole of another's answer."""
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout_at(give_up), self._pace:
                await asyncio.sleep(self._next_line - clock())
                link = self._link
                if link is None or not link.is_up:
                    raise SendFailed(f"not connected to {self._settings.server}", retry_after=RECONNECTED_SECONDS)
                link.say(target, line)
                self._next_line = clock() + 1 / self._settings.messages_per_second
                self._last_outbound = self._context.now_ms()
        except TimeoutError as error:
            raise SendFailed("the rest of a long message waits for the next attempt", retry_after=self._timing.pace_wait) from error
