"""Generations where no gateway is asked: read from the database and the kept files, and brought back by writing the file."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from openclaw_config.home import config_path
from openclaw_config.whole_files import replace_whole
from openclaw_kernel.generations import table
from openclaw_kernel.generations.files import GenerationFiles, LastGood, NotKept
from openclaw_kernel.generations.table import KEPT_ROWS, Kept

DATABASE: Final = "state.sqlite3"


class NoHistory(Exception):
    """The generations cannot be read; the message says why."""


def read_history(home: Path) -> list[Kept]:
    """All generations that are remembered, newest first; raise `NoHistory`. The database is only read."""
    database = home / DATABASE
    if not database.exists():
        raise NoHistory(f"{home}: no gateway has run there yet, so nothing was accepted; name the state folder with --home")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True, isolation_level=None)) as connection:
            return table.page(connection, limit=KEPT_ROWS)
    except sqlite3.Error as error:
        raise NoHistory(f"{database}: the generations cannot be read: {error}") from error


def find_wanted(home: Path, which: str) -> LastGood:
    """The files of a generation by its number, or of `last-good`; raise `NoHistory`. For `last-good` no database is needed."""
    if which == "last-good":
        good = GenerationFiles(home).last_good()
        if good is None:
            raise NoHistory(f"{home}: no config has worked there yet, so there is none to put back")
        return good
    kept = next((one for one in read_history(home) if str(one.generation.number) == which), None)
    if kept is None:
        raise NoHistory(f"generation {which}: there is none of this number; see openclaw-kernel config history")
    return LastGood(number=kept.generation.number, files=kept.files)


def texts_of(home: Path, wanted: LastGood) -> dict[Path, bytes]:
    """The bytes of each file that took part, openclaw.yaml first; raise `NoHistory`."""
    files = GenerationFiles(home)
    try:
        found = {files.path_of(name): files.read(digest) for name, digest in wanted.files.items()}
    except NotKept as error:
        raise NoHistory(f"generation {wanted.number}: {error}") from error
    main = config_path(home)
    return {main: found[main], **found} if main in found else found


def put_back(home: Path, texts: Mapping[Path, bytes]) -> list[Path]:
    """Write the files that say something else; return them. What is written over is kept below generations/rejected. Raise `OSError`.

    A link stays one.
    """
    written = []
    for path, data in texts.items():
        target = path.resolve()
        before = target.read_bytes() if target.exists() else None
        if before is not None and hashlib.sha256(before).digest() == hashlib.sha256(data).digest():
            continue
        if before is not None:
            GenerationFiles(home).keep_rejected(before)
        replace_whole(target, data, durable=True, mode=target.stat().st_mode & 0o777 if target.exists() else 0o600)
        written.append(path)
    return written


async def record_rollback(home: Path, loaded: Any, reason: str) -> None:
    """Write the generation and its row of the audit log where no gateway runs; the caller holds its lock. Raise `GatewayError`."""
    from openclaw_kernel.api.audit import AuditOrigin
    from openclaw_kernel.api.config import Change
    from openclaw_kernel.audit.trail import AuditTrail
    from openclaw_kernel.generations.book import ROLLBACK, Generations
    from openclaw_kernel.host.loader import load_driver

    store: Any = load_driver("openclaw.stores", "sqlite")(home / DATABASE)
    try:
        await store.open({})
        audit = AuditTrail(store, home=home, now_ms=_now_ms)
        try:
            await audit.open()
            change = Change(origin=AuditOrigin(actor="owner", surface=ROLLBACK), reason=reason)
            await Generations(home, store, audit, now_ms=_now_ms).take_start(loaded, change)
        finally:
            await audit.close()
    finally:
        await store.close()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
