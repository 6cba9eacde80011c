"""One WebSocket after the upgrade: a bounded outgoing queue with one writer, and what the client may hear."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

from aiohttp import WSMsgType
from aiohttp.client_exceptions import ClientConnectionResetError

from openclaw_kernel.api.errors import InvalidRequest
from openclaw_kernel.api.methods import Scope
from openclaw_kernel.api.pairing import AUDIENCE, audiences_of, device_of
from openclaw_kernel.api.scopes import effective_scopes
from openclaw_kernel.protocol.frames import EventFrame, cut_reason
from openclaw_kernel.protocol.handshake import Accept, Close
from openclaw_kernel.protocol.limits import Limits

if TYPE_CHECKING:
    from aiohttp import web

logger = logging.getLogger("openclaw.protocol")

_WRITE_TOGETHER: Final = 65_536
_FINAL_TEXT: Final = 0x81
_LENGTH_16: Final = 126
_LENGTH_64: Final = 65_536
_PACED_BYTES: Final = 262_144
"""What may wait of a sender that paces itself."""


class Outbound:
    """The writing half of a WebSocket: everything goes through its queue, one writer empties it."""

    def __init__(self, ws: web.WebSocketResponse, request: web.Request, limits: Limits) -> None:
        self._ws = ws
        self._protocol = request.protocol
        self._transport = request.transport
        self._limits = limits
        self._queue: deque[tuple[WSMsgType, bytes, bool]] = deque()
        self._bytes = 0
        self._event_bytes = 0
        self._pong: bytes | None = None
        self._wake = asyncio.Event()
        self._taken = asyncio.Event()
        self._closing: Close | None = None
        self.written = asyncio.Event()
        """Set once nothing more is written: the connection is closed or lost."""
        self._abort_timer: asyncio.TimerHandle | None = None

    @property
    def closing(self) -> Close | None:
        """Why the connection is being closed, None while it is open."""
        return self._closing

    def buffered(self) -> int:
        """Bytes that the peer has not taken yet."""
        waiting = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return self._bytes + waiting

    def has_room(self, size: int) -> bool:
        """Tell whether an event of this size may still be queued: answers were asked for, events were not."""
        return self._event_bytes + size <= self._limits.max_buffered_events and self.buffered() + size <= self._limits.max_buffered

    def is_behind(self) -> bool:
        """Tell whether the peer asks for more than it reads."""
        return self._bytes > self._limits.unread_answers

    async def room(self) -> None:
        """Wait until the peer has taken all but a little of what was queued, or is gone."""
        while self._bytes > _PACED_BYTES and not self.written.is_set():
            self._taken.clear()
            await self._taken.wait()

    def put(self, frame: bytes, kind: WSMsgType = WSMsgType.TEXT, *, event: bool = False) -> None:
        """Queue a frame; after `close` nothing is queued any more."""
        if self._closing is not None:
            return
        self._queue.append((kind, frame, event))
        self._bytes += len(frame)
        if event:
            self._event_bytes += len(frame)
        self._wake.set()
        if self._bytes > self._limits.max_buffered:
            self.close(Close(1008, "slow consumer"))

    def pong(self, data: bytes) -> None:
        """Answer a ping; of those that wait only the newest, as RFC 6455 allows: who pings and does not read costs nothing."""
        if self._closing is None:
            self._pong = data
            self._wake.set()

    def close(self, close: Close) -> None:
        """Send what is queued, then the close frame; after a second the socket is cut whatever happened."""
        if self._closing is not None:
            return
        self._closing = close
        self._wake.set()
        self._abort_timer = asyncio.get_running_loop().call_later(self._limits.close_seconds, self.abort)

    def abort(self) -> None:
        """Cut the socket."""
        if self._transport is not None:
            self._transport.abort()

    def finish(self) -> None:
        """Release the timer once the socket is gone."""
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        self._queue.clear()
        self._bytes = self._event_bytes = 0

    async def write_until_closed(self) -> None:
        """Write frames in order until the connection is closed or lost."""
        try:
            while True:
                while self._queue or self._pong is not None:
                    await self._write_some()
                if self._closing is not None:
                    reason = cut_reason(self._closing.reason, self._limits.close_reason_bytes)
                    await self._ws.close(code=self._closing.code, message=reason)
                    return
                self._wake.clear()
                await self._wake.wait()
        except (ConnectionError, ClientConnectionResetError) as error:
            logger.debug("connection lost while writing: %s", error)
        finally:
            self.written.set()
            self._taken.set()

    async def _write_some(self) -> None:
        if self._pong is not None:
            pong, self._pong = self._pong, None
            await self._ws.send_frame(pong, WSMsgType.PONG)
            return
        # One system call for all texts that wait: a call for each would cost more than everything else about an answer.
        parts: list[bytes] = []
        size = 0
        while self._queue and self._queue[0][0] is WSMsgType.TEXT and size < _WRITE_TOGETHER:
            _, frame, event = self._queue.popleft()
            parts += (text_header(len(frame)), frame)
            size += len(frame)
            if event:
                self._event_bytes -= len(frame)
        self._bytes -= size
        if not parts:
            kind, frame, _ = self._queue.popleft()
            self._bytes -= len(frame)
            await self._ws.send_frame(frame, kind)
            return
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the peer is gone")
        self._transport.write(b"".join(parts))
        await self._protocol._drain_helper()  # noqa: SLF001 - what aiohttp's own writers wait for
        self._taken.set()


def text_header(length: int) -> bytes:
    """The head of an unmasked, uncompressed WebSocket text frame with `length` bytes of payload."""
    if length < _LENGTH_16:
        return bytes((_FINAL_TEXT, length))
    if length < _LENGTH_64:
        return bytes((_FINAL_TEXT, 126)) + length.to_bytes(2, "big")
    return bytes((_FINAL_TEXT, 127)) + length.to_bytes(8, "big")


class Connection:
    """An accepted client; implements `Client`, the dispatcher's caller and the bus's subscriber."""

    def __init__(self, *, connection_id: str, accepted: Accept, address: str, outbound: Outbound, limits: Limits) -> None:
        info = accepted.params.client
        self.connection_id = connection_id
        self.address = address
        self.client_id: str = info.id
        self.mode: str = info.mode
        self.role = accepted.role
        self.scopes = frozenset(accepted.scopes)
        self.effective_scopes = effective_scopes(accepted.scopes)
        # What a node claims counts once it has been approved.
        self._declared = (frozenset(accepted.params.caps), frozenset(accepted.params.commands))
        self.caps, self.commands = self._declared
        if accepted.role == "node":
            self.grant_surface(*((), ()) if accepted.grant is None else (accepted.grant.caps, accepted.grant.commands))
        self.grant = accepted.grant
        """What the device was given, where a paired one is connected."""
        self.invalidated = False
        """Whether its right to be here was withdrawn; nothing it asks runs any more."""
        self.principal = accepted.verified.principal
        self.method = accepted.verified.method
        self.expires_ms = accepted.verified.expires_ms
        self.display_name = info.display_name
        self.instance_id = info.instance_id
        self.topics: set[str] = set(audiences_of(self.principal, self.effective_scopes))
        self.outbound = outbound
        self.client = self
        self._limits = limits
        self._info = info
        self._seq = 0
        self._pinged_at: float | None = None
        self._ping_due = 0.0

    def has(self, scope: Scope) -> bool:
        """Tell whether the connection holds the scope; one whose right was withdrawn holds none."""
        return not self.invalidated and scope.value in self.effective_scopes

    def grant_surface(self, caps: Collection[str], commands: Collection[str]) -> None:
        """Have of these what was declared when it connected."""
        declared_caps, declared_commands = self._declared
        self.caps, self.commands = declared_caps & frozenset(caps), declared_commands & frozenset(commands)

    def subscribe(self, topic: str) -> None:
        """Receive events that are broadcast to the topic."""
        if topic.startswith(AUDIENCE):
            raise InvalidRequest(f"the topic {topic[:80]!r} is no one's to subscribe to")
        if topic not in self.topics and len(self.topics) >= self._limits.topics_per_client:
            message = f"this connection is subscribed to {len(self.topics)} topics already; unsubscribe from one"
            raise InvalidRequest(message)
        self.topics.add(topic)

    def unsubscribe(self, topic: str) -> None:
        """Receive them no longer."""
        if not topic.startswith(AUDIENCE):
            self.topics.discard(topic)

    def send(self, frame: bytes) -> None:
        """Send outside the broadcast sequence."""
        self.outbound.put(frame)

    def offer(self, frame: EventFrame) -> None:
        """Send in the broadcast sequence. Of what does not fit, a droppable frame leaves a gap in `seq`; any other ends the connection.

        What is for chosen connections is sent outside the sequence.
        """
        if frame.alone:
            encoded = frame.targeted()
        else:
            self._seq += 1
            encoded = frame.numbered(self._seq)
        if self.outbound.has_room(len(encoded)):
            self.outbound.put(encoded, event=True)
        elif not frame.droppable:
            self.outbound.close(Close(1008, "slow consumer"))

    async def room(self) -> None:
        """Wait until the socket has taken most of what was sent; for a sender that paces itself."""
        await self.outbound.room()

    def skipped(self) -> None:
        """Leave a gap in the broadcast sequence: the client missed something."""
        self._seq += 1

    def tick(self, now: float) -> None:
        """Ping when it is time; cut a connection whose pong is overdue. `now` is the loop's clock."""
        if self._pinged_at is not None:
            if now - self._pinged_at >= self._limits.pong_seconds:
                self.outbound.abort()
            return
        if not self._ping_due:
            self._ping_due = now + self._limits.ping_seconds
        elif now >= self._ping_due:
            self._pinged_at = now
            self.outbound.put(b"", WSMsgType.PING)

    def ponged(self, now: float) -> None:
        """The peer answered a ping."""
        self._pinged_at = None
        self._ping_due = now + self._limits.ping_seconds

    def presence(self) -> dict[str, Any] | None:
        """The entry this client shows in the presence list, None for those that show none."""
        if self.mode in {"cli", "backend", "probe"}:
            return None
        info = self._info
        return {
            "host": info.display_name or info.id,
            "ip": self.address,
            "version": info.version,
            "platform": info.platform,
            "deviceFamily": info.device_family,
            "modelIdentifier": info.model_identifier,
            "timeZone": info.time_zone,
            "mode": info.mode,
            "reason": "connect",
            "roles": [self.role],
            "scopes": sorted(self.scopes),
            "instanceId": info.instance_id,
            "deviceId": device_of(self.principal),
            "text": f"{info.display_name or info.id} {info.version}",
        }
