"""Failed proofs are counted per kind of credential and address; too many lock the address out. No clock of its own."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from openclaw_kernel.protocol.origin import is_loopback

FAILURES: Final = 10
WINDOW_MS: Final = 60_000
LOCKOUT_MS: Final = 300_000
FIRST_DELAY_MS: Final = 250
LONGEST_DELAY_MS: Final = 5_000
_ENTRIES: Final = 10_000
_KEPT_LOCKOUTS: Final = 400
"""As many as fit into one value of the store, whatever they are called."""
_HELD: Final = 64
_LOCAL: Final = "local"


def network_of(address: str) -> str:
    """What an address is counted by: itself, for IPv6 its /64, which one host has to itself."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ip) if ip.is_loopback else str(ipaddress.IPv6Network((int(ip) >> 64 << 64, 64)))


def _digest(origin: str) -> str:
    # A header of any length must not be kept as it is.
    return hashlib.sha256(origin.encode("utf-8", "surrogatepass")).hexdigest()


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
    crowd: bool = False
    """Whether the address is that of a proxy which does not say who is behind it."""

    @property
    def key(self) -> str:
        """Whom failures are counted against; direct local callers are never mistaken for what a proxy on this machine forwards."""
        if self.is_loopback:
            return _LOCAL if self.origin is None else f"origin:{_digest(self.origin)}"
        return network_of(self.address)

    @property
    def shared(self) -> bool:
        """Many people behind one proxy: that one of them proved itself says nothing of the others."""
        return self.crowd or (not self.is_loopback and is_loopback(self.address))

    @property
    def exempt(self) -> bool:
        """Only delayed."""
        return self.is_loopback and self.origin is None


class FailureLimiter:
    """Ten failures in 60 s lock (kind, caller) out for five minutes; loopback waits 250 ms, doubling to 5 s."""

    def __init__(self) -> None:
        self._records: OrderedDict[tuple[str, str], _Record] = OrderedDict()
        self.on_lockout: Callable[[], None] = lambda: None
        """Called when somebody is locked out: `dump` has more to keep."""

    def dump(self, now_ms: int) -> str:
        """Everybody who is locked out, as a text; of too many those who are for longest."""
        live = [(record.locked_until_ms, *place) for place, record in self._records.items() if record.locked_until_ms > now_ms]
        return json.dumps(sorted(live, reverse=True)[:_KEPT_LOCKOUTS])

    def load(self, text: str, now_ms: int) -> None:
        """Lock out again whom `dump` wrote down; nobody for longer than a lockout lasts, should the clock have been set back."""
        for until_ms, kind, key in json.loads(text):
            if until_ms > now_ms:
                self._records[kind, key] = _Record(locked_until_ms=min(until_ms, now_ms + LOCKOUT_MS))

    def locked_for_ms(self, kind: str, caller: Caller, now_ms: int) -> int:
        """How long the caller must still wait; 0 when it may try."""
        record = self._records.get((kind, caller.key))
        if record is None or caller.exempt:
            return 0
        # The clock may have been set back since.
        record.locked_until_ms = min(record.locked_until_ms, now_ms + LOCKOUT_MS)
        return max(0, record.locked_until_ms - now_ms)

    def failed(self, kind: str, caller: Caller, now_ms: int) -> int:
        """Count a failure; return how many milliseconds the answer should be held back."""
        delay_ms = 0
        if caller.is_loopback:
            # A program on this machine can name any Origin: every try from here waits, whatever it calls itself.
            count = len(self._count(kind, _LOCAL, now_ms).failures)
            delay_ms = int(min(FIRST_DELAY_MS * 2 ** (count - 1), LONGEST_DELAY_MS))
        if not caller.exempt:
            record = self._count(kind, caller.key, now_ms)
            if len(record.failures) >= FAILURES:
                record.locked_until_ms = now_ms + LOCKOUT_MS
                record.failures.clear()
                self.on_lockout()
        return delay_ms

    def succeeded(self, kind: str, caller: Caller) -> None:
        """Forget the failures of a caller that proved itself."""
        if not caller.shared:
            self._records.pop((kind, caller.key), None)

    def _count(self, kind: str, key: str, now_ms: int) -> _Record:
        record = self._records.setdefault((kind, key), _Record())
        self._records.move_to_end((kind, key))
        record.failures = [when for when in record.failures if abs(now_ms - when) < WINDOW_MS][-FAILURES:]
        record.failures.append(now_ms)
        while len(self._records) > _ENTRIES:
            self._records.popitem(last=False)
        return record


class HeldAnswers:
    """Answers over HTTP that are held back, at most so many at once: each outlives its socket."""

    def __init__(self, limit: int = _HELD) -> None:
        self._limit = limit
        self._held = 0

    @property
    def full(self) -> bool:
        """Whether no further one can be held back: who comes now is not looked at, for nothing would slow its guesses down."""
        return self._held >= self._limit

    async def hold(self, milliseconds: int) -> None:
        """Wait."""
        self._held += 1
        try:
            await asyncio.sleep(milliseconds / 1000)
        finally:
            self._held -= 1
