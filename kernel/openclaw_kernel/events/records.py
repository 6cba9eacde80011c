"""What the event log is made of: records, epochs, cursors and bounds."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

import orjson

from openclaw_kernel.api.services import GapReason
from openclaw_kernel.protocol.frames import EventFrame

ITEM: Final = "events.item"
GAP: Final = "events.gap"
CURRENT: Final = "events.current"

_CURSOR: Final = re.compile(r"([0-9a-f]{16})\.(0|[1-9][0-9]{0,17})", re.ASCII)
_ROW_BYTES: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much the log keeps, in rows, bytes and seconds, whichever is reached first; how it writes, in bytes and seconds."""

    rows: int = 100_000
    size: int = 67_108_864
    age_seconds: float = 86_400.0
    """Also how long events are recorded after the last client with a cursor has left."""
    waiting: int = 8_388_608
    """What may wait for the disk. Beyond it the log gives up what waits and says so by a gap."""
    tail: int = 1_048_576
    """What is kept in memory of what was written last, for those who follow live."""
    page: int = 262_144
    gather_seconds: float = 0.01
    """How long a write waits for more while somebody follows."""
    linger_seconds: float = 0.5
    """The same while nobody does."""
    maintain_seconds: float = 60.0
    settle_seconds: float = 5.0
    """How long `events.subscribe` waits for the disk."""


@dataclass(slots=True)
class Record:
    """One event of the log. `topics` and `scoped_topic` are those of the broadcast; `total` is the log's bytes up to here.

    `replaced` is the position of the event that this one made needless; of that one the log keeps an empty payload.
    """

    position: int
    time_ms: int
    event: str
    topics: tuple[str, ...] | None
    scoped_topic: str | None
    payload: bytes
    total: int
    replaced: int | None = None
    _frame: bytes | None = field(default=None, repr=False, compare=False)

    @property
    def size(self) -> int:
        """Bytes that it counts for."""
        return record_size(self.event, self.payload)

    def frame(self, epoch: Epoch) -> bytes:
        """Return the whole frame for a client that follows; made once for all of them."""
        if self._frame is None:
            head = orjson.dumps({"cursor": epoch.cursor(self.position), "event": self.event})
            self._frame = EventFrame(ITEM, b'%b,"payload":%b}' % (head[:-1], self.payload)).targeted()
        return self._frame


def record_size(event: str, payload: bytes) -> int:
    """Return the bytes that a record counts for."""
    return len(event) + len(payload) + _ROW_BYTES


@dataclass(frozen=True, slots=True)
class Epoch:
    """A stretch of the log that one process wrote without a break, from the position `first` on.

    `gap` says why events may be missing between the epoch before and this one, None where none are. The name is random, so that
    a cursor of another state folder, or of one that was restored from a copy, is recognised.
    """

    first: int
    name: str
    gap: GapReason | None

    def cursor(self, position: int) -> str:
        """Return the cursor of a client that has seen all up to this position."""
        return f"{self.name}.{position}"


def read_cursor(text: str) -> tuple[str, int] | None:
    """Return the epoch's name and the position, None for what is no cursor."""
    match = _CURSOR.fullmatch(text)
    return None if match is None else (match[1], int(match[2]))


def gap_frame(reason: GapReason, cursor: str, oldest_ms: int | None) -> bytes:
    """Return the frame that tells a client of events it will not get."""
    payload: dict[str, object] = {"reason": reason, "cursor": cursor}
    if oldest_ms is not None:
        payload["oldestTs"] = oldest_ms
    return EventFrame(GAP, orjson.dumps(payload)).targeted()


def current_frame(cursor: str) -> bytes:
    """Return the frame that tells a client it has seen all there is up to this cursor."""
    return EventFrame(CURRENT, orjson.dumps({"cursor": cursor})).targeted()


def topics_of(text: str | None) -> tuple[str, ...] | None:
    """Read the topics of a row."""
    return None if text is None else tuple(orjson.loads(text))


def topics_text(topics: Collection[str] | None) -> str | None:
    """Return the topics as a row keeps them."""
    return None if topics is None else orjson.dumps(list(topics)).decode()
