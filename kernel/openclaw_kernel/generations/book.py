"""The running gateway's generations: which is in force, which were before, and the bytes of each."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from openclaw_config.load import Loaded
from openclaw_config.source import ConfigError, parse
from openclaw_kernel import __version__
from openclaw_kernel.api.audit import BY_GATEWAY, AuditAction, AuditEntry, AuditLog
from openclaw_kernel.api.config import Change, Generation
from openclaw_kernel.api.errors import GatewayError, InvalidRequest, Unavailable
from openclaw_kernel.api.store import Store
from openclaw_kernel.generations import table
from openclaw_kernel.generations.changes import bounded, changed_keys
from openclaw_kernel.generations.files import GenerationFiles, LastGood, NotKept
from openclaw_kernel.generations.shown import redacted_text
from openclaw_kernel.generations.table import Kept

logger: Final = logging.getLogger("openclaw.config")

ROLLBACK: Final = "rollback"
"""The surface of a change that brings an earlier generation back."""
BY_START: Final = Change(origin=BY_GATEWAY)
"""A start finds a config that is not the newest generation: it was changed while no gateway ran."""
_KEYS_IN_AUDIT: Final = 20


class Generations:
    """What was accepted, and which of it is in force."""

    def __init__(self, home: Path, store: Store, audit: AuditLog, *, now_ms: Callable[[], int]) -> None:
        self.files = GenerationFiles(home)
        self._store = store
        self._audit = audit
        self._now_ms = now_ms
        self._current: Kept | None = None
        self._marking = asyncio.Lock()
        self.in_doubt = False
        """In safe mode, which says nothing of a config that wants third parties: none is held for good."""

    @property
    def current(self) -> Generation | None:
        """The generation in force; None before the first is recorded."""
        return None if self._current is None else self._current.generation

    def accept(self, connection: sqlite3.Connection, loaded: Loaded, change: Change, changed: Sequence[str]) -> Kept:
        """Make a config the newest generation, inside a store write: its bytes, its row and its row of the audit log are there, or none.

        `changed` are the keys that differ from the generation before, dotted. Raise `Unavailable` where the bytes cannot be kept.
        """
        try:
            files = self.files.keep(content_of(loaded))
        except OSError as error:
            raise Unavailable(f"{self.files.folder}: a config cannot be kept ({(error.strerror or str(error)).lower()})") from error
        before = table.newest(connection)
        generation = Generation(
            number=1 if before is None else before.generation.number + 1,
            hash=loaded.hash,
            ts_ms=self._now_ms(),
            actor=change.origin.actor,
            surface=change.origin.surface,
            reason=change.reason,
            changed=tuple(bounded(changed)),
        )
        row = self._audit.append(connection, _entry(loaded, generation, change, before))
        kept = Kept(generation, files)
        table.insert(connection, kept, version=__version__, audit_row=row)
        return kept

    async def take(self, loaded: Loaded, change: Change, changed: Sequence[str]) -> Generation:
        """Make a config the newest generation, in a write of its own, and the one in force; raise `Unavailable`."""

        def write(connection: sqlite3.Connection) -> tuple[Kept, set[str]]:
            return self.accept(connection, loaded, change, changed), table.wanted_digests(connection)

        # All that is needed of it comes with the write: once that is on disk, nothing may say that it was not accepted.
        kept, wanted = await self._store.write(write)
        self._current = kept
        await self._sweep(wanted)
        return kept.generation

    async def _sweep(self, wanted: set[str]) -> None:
        good = await asyncio.to_thread(self.files.last_good)
        try:
            await asyncio.to_thread(self.files.sweep, wanted | set(() if good is None else good.files.values()))
        except OSError as error:
            logger.warning("%s: old configs cannot be removed: %s", self.files.folder, error)

    async def take_start(self, loaded: Loaded, change: Change = BY_START) -> None:
        """Hold the config that a start serves for the one in force: the newest generation where it is that one, else a new one."""
        try:
            found = await self._store.read(table.newest)
            digests = await asyncio.to_thread(_digests, self.files, loaded)
            if found is not None and dict(found.files) == digests:
                # A disk that was full then, or somebody who cleaned up, may have taken the bytes.
                await asyncio.to_thread(self._keep_again, loaded)
                self._current = found
                return
            before = {} if found is None else await asyncio.to_thread(self._source_of, found, loaded.path.name)
            await self.take(loaded, change, changed_keys(before, loaded.source))
        except GatewayError as error:
            # A full disk keeps nobody from looking after the gateway; the next start writes it down.
            logger.error("the config of this start is not written down: %s", error.message)  # noqa: TRY400 - its own words say all

    async def mark_good(self) -> None:
        """Write down that a gateway works with the generation in force: after it was ready, or after a change was applied."""
        # One after the other: of changes that follow each other closely the last is what has to stand there.
        async with self._marking:
            kept = self._current
            if kept is None or self.in_doubt:
                return
            try:
                await asyncio.to_thread(self.files.mark_good, LastGood(number=kept.generation.number, files=kept.files))
            except OSError as error:
                logger.warning("%s: which config works cannot be written down: %s", self.files.folder, error)

    async def history(self, *, limit: int = 50, before: int | None = None) -> Sequence[Generation]:
        """Return the generations, newest first."""
        return [kept.generation for kept in await self._store.read(lambda connection: table.page(connection, limit=limit, before=before))]

    async def generation(self, number: int) -> Generation:
        """Return one; raise `InvalidRequest` for one that is not remembered."""
        return (await self._find(number)).generation

    async def text_of(self, number: int) -> str:
        """Return the redacted text of the config file of a generation; raise `InvalidRequest` for one that is not kept."""
        kept = await self._find(number)
        data = await self.content_of(kept)
        text = next(iter(data.values())).decode("utf-8")
        shown = await asyncio.to_thread(redacted_text, next(iter(data)).name, text)
        if shown is None:
            raise InvalidRequest(
                f"generation {number}: its text cannot be shown, for its secrets cannot be told from the rest; read the file"
            )
        return shown

    async def content(self, number: int) -> Mapping[Path, bytes]:
        """Return the bytes of each file of a generation by its number; raise `InvalidRequest` where they are not kept."""
        return await self.content_of(await self._find(number))

    async def content_of(self, kept: Kept) -> Mapping[Path, bytes]:
        """Return the bytes of each file of a generation, openclaw.yaml first; raise `InvalidRequest` where they are not kept."""
        try:
            return await asyncio.to_thread(
                lambda: {self.files.path_of(name): self.files.read(digest) for name, digest in kept.files.items()}
            )
        except NotKept as error:
            raise InvalidRequest(f"generation {kept.generation.number}: {error}; see openclaw-kernel config history") from error

    async def source_of(self, *, number: int | None = None, digest: str | None = None) -> str | None:
        """Return the text of openclaw.yaml of a generation, by its number or by its hash; None where it is not kept."""
        kept = await self._store.read(lambda connection: table.find_source(connection, number=number, digest=digest))
        if kept is None:
            return None
        try:
            return (await asyncio.to_thread(self.files.read, next(iter(kept.files.values())))).decode("utf-8")
        except (NotKept, UnicodeDecodeError):
            return None

    async def _find(self, number: int) -> Kept:
        kept = await self._store.read(lambda connection: table.find(connection, number))
        if kept is None:
            raise InvalidRequest(f"generation {number}: there is none of this number; see openclaw-kernel config history")
        return kept

    def _keep_again(self, loaded: Loaded) -> None:
        try:
            self.files.keep(content_of(loaded))
        except OSError as error:
            logger.warning("%s: the config cannot be kept: %s", self.files.folder, error)

    def _source_of(self, kept: Kept, name: str) -> Mapping[str, Any]:
        try:
            return parse(name, self.files.read(next(iter(kept.files.values()))).decode("utf-8"))
        except (NotKept, ConfigError, UnicodeDecodeError) as error:
            logger.warning("what changed since generation %d cannot be told: %s", kept.generation.number, error)
            return {}


def content_of(loaded: Loaded) -> dict[Path, bytes]:
    """The bytes of the files that took part, the config file first."""
    return {loaded.path: loaded.text.encode(), **{path: text.encode() for path, text in loaded.layers.parts.items()}}


def _digests(files: GenerationFiles, loaded: Loaded) -> dict[str, str]:
    return {files.name_of(path): hashlib.sha256(data).hexdigest() for path, data in content_of(loaded).items()}


def _entry(loaded: Loaded, generation: Generation, change: Change, before: Kept | None) -> AuditEntry:
    changed = generation.changed
    entry = AuditEntry(
        action=AuditAction.CONFIG_ROLLED_BACK if generation.surface == ROLLBACK else AuditAction.CONFIG_ACCEPTED,
        origin=change.origin,
        subject=loaded.path.name,
        reason=change.reason,
        before=None if before is None else before.generation.hash,
        after=generation.hash,
        details={"generation": generation.number, "keys": len(changed), "changed": ", ".join(changed[:_KEYS_IN_AUDIT])},
    )
    return replace(entry, details={**entry.details, "byAgent": True}) if change.by_agent else entry
