"""Keeps the certificate that is served: the pair of the start, and each later one that is whole. A bad one changes nothing."""

from __future__ import annotations

import asyncio
import logging
import ssl
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from openclaw_config.fingerprints import show_fingerprint
from openclaw_config.models import GatewayTls
from openclaw_kernel.api.audit import BY_GATEWAY, AuditAction, AuditEntry, AuditLog, AuditOrigin, state_digest
from openclaw_kernel.api.services import TlsState
from openclaw_kernel.files.states import Seen
from openclaw_kernel.files.watching import FolderWatch
from openclaw_kernel.tls.faults import TlsFault, words_of
from openclaw_kernel.tls.files import TlsFiles
from openclaw_kernel.tls.generated import make_missing
from openclaw_kernel.tls.pair import Pair, load

logger = logging.getLogger("openclaw.tls")

SOON_MS: Final = 14 * 86_400_000
"""How long before its end a certificate is named a problem."""
_BY_FILES: Final = AuditOrigin(actor="gateway", surface="policy")
_CLOSE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long to wait, in seconds."""

    quiet: float = 0.3
    """Without a further change, before the files are read."""
    whole: float = 10.0
    """For the other half of a pair that does not fit yet, before it is called bad."""
    look: float = 30.0
    """Between looks where the system tells of no change."""


class ServedContext(ssl.SSLContext):
    """What a listener holds: every connection gets the context of its moment, and keeps it."""

    def __new__(cls, _current: ssl.SSLContext) -> ServedContext:  # noqa: PYI034 - as the class above has it
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, current: ssl.SSLContext) -> None:
        self.current = current

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Begin a connection."""
        return self.current.wrap_bio(*arguments, **options)


class TlsKeeper:
    """Serves one pair, and follows its files."""

    def __init__(self, files: TlsFiles, pair: Pair, *, now_ms: Callable[[], int], pace: Pace) -> None:
        self.context = ServedContext(pair.context)
        self.taken: Callable[[], None] = lambda: None
        """Told when another pair is served."""
        self.authorities_changed: Callable[[], None] = lambda: None
        """Told when other authorities are believed."""
        self._files = files
        self._pair = pair
        self._believed = weakref.WeakSet([pair.context])
        self._now_ms = now_ms
        self._pace = pace
        self._fault: TlsFault | None = None
        self._watch: FolderWatch | None = None
        self._audit: AuditLog | None = None

    @classmethod
    async def open(cls, settings: GatewayTls, home: Path, *, now_ms: Callable[[], int], pace: Pace | None = None) -> TlsKeeper:
        """Read the files; raise `TlsFault` where they cannot be served."""
        files = TlsFiles.of(settings, home)
        pair = await asyncio.to_thread(_first, files)
        return cls(files, pair, now_ms=now_ms, pace=pace or Pace())

    def record(self, audit: AuditLog) -> None:
        """Write down what is served from the start, and what comes of later files."""
        self._audit = audit
        self._note(AuditAction.TLS_LOADED, BY_GATEWAY, None, self._pair)

    @property
    def state(self) -> TlsState:
        """What people pin."""
        return TlsState(fingerprint=show_fingerprint(self._pair.fingerprint), expires_ms=self._pair.expires_ms)

    def problems(self) -> Sequence[str]:
        """What somebody should mend, a line each."""
        lines = [] if self._fault is None else [f"{self._fault}; the certificate of before is still served"]
        if self._pair.expires_ms - self._now_ms() < SOON_MS:
            ends = datetime.fromtimestamp(self._pair.expires_ms / 1000, UTC)
            lines.append(f"{self._files.certificate.key}: the certificate ends at {ends:%Y-%m-%d %H:%M} UTC; renew it")
        return lines

    def believes(self, context: ssl.SSLContext) -> bool:
        """Whether a certificate that was checked by this context was signed by an authority that counts today."""
        return context in self._believed

    async def follow(self) -> None:
        """Take every whole pair that comes, until cancelled."""
        self._watch = FolderWatch(_cannot_watch)
        try:
            await asyncio.to_thread(self._watch.watch, self._files.folders())
            seen = self._pair.seen
            while True:
                found = await asyncio.to_thread(self._files.seen)
                if found != seen:
                    seen = await self._take(found)
                    continue
                await self._woken(self._pace.look)
        finally:
            await asyncio.shield(asyncio.to_thread(self._watch.close))

    async def _take(self, seen: Seen) -> Seen:
        """Go along with the changes until a whole pair is there, or no more come; return what was seen last."""
        loop = asyncio.get_running_loop()
        watch = self._watch
        deadline = loop.time() + self._pace.whole
        while True:
            seen = await self._quiet(seen)
            if watch is not None:
                await asyncio.to_thread(watch.watch, self._files.folders())
            try:
                pair = await asyncio.to_thread(load, self._files)
            except TlsFault as fault:
                logger.debug("not whole yet: %s", fault)
                changed = await self._changed_before(deadline, seen)
                if changed == seen:
                    self._reject(fault)
                    return seen
                seen = changed
            else:
                self._serve(pair)
                return pair.seen

    async def _quiet(self, seen: Seen) -> Seen:
        while True:
            await asyncio.sleep(self._pace.quiet)
            now = await asyncio.to_thread(self._files.seen)
            if now == seen:
                return seen
            seen = now

    async def _changed_before(self, deadline: float, seen: Seen) -> Seen:
        loop = asyncio.get_running_loop()
        while (left := deadline - loop.time()) > 0:
            await self._woken(left)
            now = await asyncio.to_thread(self._files.seen)
            if now != seen:
                return now
        return seen

    async def _woken(self, seconds: float) -> None:
        watch = self._watch
        if watch is None:
            raise AssertionError("only who follows the files waits for them")
        try:
            async with asyncio.timeout(seconds):
                await watch.changed.wait()
        except TimeoutError:
            return
        watch.changed.clear()

    def _serve(self, pair: Pair) -> None:
        before, self._pair = self._pair, pair
        self._fault = None
        self.context.current = pair.context
        if before.authorities != pair.authorities:
            self._believed.clear()
        self._believed.add(pair.context)
        if (before.fingerprint, before.authorities) == (pair.fingerprint, pair.authorities):
            return
        state = self.state
        logger.info("new connections get the certificate SHA-256 %s; open ones keep theirs", state.fingerprint)
        self._note(AuditAction.TLS_LOADED, _BY_FILES, before, pair)
        self.taken()
        if before.authorities != pair.authorities:
            self.authorities_changed()

    def _reject(self, fault: TlsFault) -> None:
        self._fault = fault
        logger.warning("%s; the certificate of before is still served", fault)
        if self._audit is not None:
            entry = AuditEntry(
                action=AuditAction.TLS_REJECTED,
                origin=_BY_FILES,
                outcome="refused",
                subject=fault.key,
                before=_digest(self._pair),
                details={"found": fault.found},
            )
            self._audit.note(entry)

    def _note(self, action: AuditAction, origin: AuditOrigin, before: Pair | None, after: Pair) -> None:
        if self._audit is not None:
            entry = AuditEntry(
                action=action,
                origin=origin,
                subject=f"certificate:{after.fingerprint}",
                before=None if before is None else _digest(before),
                after=_digest(after),
                details={"expiresAtMs": after.expires_ms},
            )
            self._audit.note(entry)


def _first(files: TlsFiles) -> Pair:
    if files.generated and make_missing(files):
        logger.info("made the certificate %s, which nobody has signed: clients pin its fingerprint", files.certificate.path)
    return load(files)


def _cannot_watch(folder: Path, error: OSError) -> None:
    logger.warning("%s cannot be watched (%s); its certificate is looked at every half minute instead", folder, words_of(error))


def _digest(pair: Pair) -> str:
    return state_digest({"certificate": pair.fingerprint, "authorities": pair.authorities})
