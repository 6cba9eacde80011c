"""What is counted together before it becomes rows, so that nobody fills the disk by being refused. No I/O, no clock of its own."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from openclaw_kernel.api.audit import BY_GATEWAY, AuditAction, AuditEntry
from openclaw_kernel.protocol.limiter import network_of

WINDOW_MS: Final = 60_000
LONGEST_WINDOW_MS: Final = 3_600_000
KEYS_PER_ACTION: Final = 32
WAITING: Final = 512
_SUBJECTS: Final = 8

Timed: TypeAlias = tuple[int, AuditEntry]
_Key: TypeAlias = tuple[str, str, str, str | None, str | None, str | None]


@dataclass(slots=True)
class _Counted:
    entry: AuditEntry
    since_ms: int
    until_ms: int
    more: int = 0
    subjects: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True)
class _Window:
    """The present minute of one action. One that overflowed is followed by one twice as long, up to an hour."""

    ends_ms: int
    span_ms: int = WINDOW_MS
    counted: dict[_Key, _Counted] = field(default_factory=dict)
    over: int = 0


class Gatherer:
    """The first of its kind becomes a row at once; what follows in its window one row with the count."""

    def __init__(self) -> None:
        self._windows: dict[AuditAction, _Window] = {}
        self._ready: deque[Timed] = deque()
        self._lost: Counter[str] = Counter()

    def take(self, entry: AuditEntry, now_ms: int, *, by_subject: bool) -> None:
        """Take an entry; `by_subject`: those on other subjects are not counted with it."""
        self._end_windows(now_ms)
        window = self._windows.setdefault(entry.action, _Window(now_ms + WINDOW_MS))
        key = _key(entry, by_subject=by_subject)
        counted = window.counted.get(key)
        if counted is not None:
            counted.more += 1
            counted.until_ms = now_ms
        elif len(window.counted) < KEYS_PER_ACTION:
            counted = window.counted[key] = _Counted(entry, now_ms, now_ms)
            self._make_ready(now_ms, entry)
        else:
            window.over += 1
            return
        if entry.subject is not None and len(counted.subjects) < _SUBJECTS:
            counted.subjects[entry.subject] = None

    def ready(self, now_ms: int, limit: int = WAITING) -> list[Timed]:
        """What is to be written now, oldest first; it stays until `written`."""
        self._end_windows(now_ms)
        if self._lost and len(self._ready) < WAITING:
            self._ready.append((now_ms, _overflow("the disk did not take them in time", self._lost)))
            self._lost = Counter()
        return [self._ready[index] for index in range(min(limit, len(self._ready)))]

    def written(self, count: int) -> None:
        """Forget the oldest that were ready."""
        for _ in range(count):
            self._ready.popleft()

    def due_ms(self) -> int | None:
        """When the next window ends; None where none is open."""
        return min((window.ends_ms for window in self._windows.values()), default=None)

    def end(self, now_ms: int) -> None:
        """End every window: nothing more comes."""
        for window in self._windows.values():
            window.ends_ms = now_ms
        self._end_windows(now_ms)

    def _end_windows(self, now_ms: int) -> None:
        for action in [action for action, window in self._windows.items() if window.ends_ms <= now_ms]:
            window = self._windows.pop(action)
            for counted in window.counted.values():
                if counted.more:
                    self._make_ready(now_ms, _summary(counted))
            if window.over:
                over = Counter({str(action): window.over})
                self._make_ready(now_ms, _overflow(f"more than {KEYS_PER_ACTION} kinds at once", over))
                span_ms = min(window.span_ms * 2, LONGEST_WINDOW_MS)
                self._windows[action] = _Window(now_ms + span_ms, span_ms)

    def _make_ready(self, now_ms: int, entry: AuditEntry) -> None:
        if len(self._ready) < WAITING:
            self._ready.append((now_ms, entry))
        else:
            self._lost[str(entry.action)] += 1

    def __len__(self) -> int:
        """How many rows wait to be written."""
        return len(self._ready)

    def __iter__(self) -> Iterator[Timed]:
        return iter(self._ready)


def _key(entry: AuditEntry, *, by_subject: bool) -> _Key:
    origin = entry.origin
    network = None if origin.address is None else network_of(origin.address)
    return entry.outcome, origin.actor, origin.surface, network, entry.reason, entry.subject if by_subject else None


def _summary(counted: _Counted) -> AuditEntry:
    details = {"count": counted.more, "sinceMs": counted.since_ms, "untilMs": counted.until_ms}
    if len(counted.subjects) > 1:
        details["subjects"] = list(counted.subjects)  # type: ignore[assignment]  # a list beside the numbers
    origin = replace(counted.entry.origin, trace_id=None)
    return replace(counted.entry, origin=origin, before=None, after=None, details=details)


def _overflow(reason: str, counts: Counter[str]) -> AuditEntry:
    return AuditEntry(action=AuditAction.AUDIT_OVERFLOWED, origin=BY_GATEWAY, reason=reason, details={"counts": dict(counts)})
