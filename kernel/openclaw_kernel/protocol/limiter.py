"""Failed proofs are counted per kind of credential and address; too many lock the address out. No I/O, no clock of its own."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

FAILURES: Final = 10
WINDOW_MS: Final = 60_000
LOCKOUT_MS: Final = 300_000
FIRST_DELAY_MS: Final = 250
LONGEST_DELAY_MS: Final = 5_000
_ENTRIES: Final = 10_000


@dataclass(slots=True)
class _Record:
    failures: list[int] = field(default_factory=list)
    locked_until_ms: int = 0


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a try comes from. A direct loopback peer without an Origin is delayed, never locked out."""

    address: str
    is_loopback: bool
    origin: str | None = None

    @property
    def key(self) -> str:
        """A page on this machine is counted by its origin, so that it cannot hide behind loopback."""
        return f"origin:{self.origin}" if self.is_loopback and self.origin is not None else self.address

    @property
    def exempt(self) -> bool:
        """Only delayed."""
        return self.is_loopback and self.origin is None


class FailureLimiter:
    """Ten failures in 60 s lock (kind, caller) out for five minutes; loopback waits 250 ms, doubling to 5 s."""

    def __init__(self) -> None:
        self._records: OrderedDict[tuple[str, str], _Record] = OrderedDict()

    def locked_for_ms(self, kind: str, caller: Caller, now_ms: int) -> int:
        """How long the caller must still wait; 0 when it may try."""
        record = self._records.get((kind, caller.key))
        return 0 if record is None or caller.exempt else max(0, record.locked_until_ms - now_ms)

    def failed(self, kind: str, caller: Caller, now_ms: int) -> int:
        """Count a failure; return how many milliseconds the answer should be held back."""
        key = (kind, caller.key)
        record = self._records.setdefault(key, _Record())
        self._records.move_to_end(key)
        record.failures = [when for when in record.failures if now_ms - when < WINDOW_MS][-FAILURES:]
        record.failures.append(now_ms)
        while len(self._records) > _ENTRIES:
            self._records.popitem(last=False)
        if caller.exempt:
            return int(min(FIRST_DELAY_MS * 2 ** (len(record.failures) - 1), LONGEST_DELAY_MS))
        if len(record.failures) >= FAILURES:
            record.locked_until_ms = now_ms + LOCKOUT_MS
            record.failures.clear()
        return 0

    def succeeded(self, kind: str, caller: Caller) -> None:
        """Forget the failures of a caller that proved itself."""
        self._records.pop((kind, caller.key), None)
