"""Putting a backup back: unpacked beside, checked, then swapped in; what was there is moved aside, never deleted."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from openclaw_kernel.backup.checking import problems_of, unpack
from openclaw_kernel.backup.contents import BackupError
from openclaw_kernel.lock import AlreadyRunning, CannotLock, StateLock

WITHDRAWN: Final = "plugins/pairing/withdrawn.json"
"""What was taken away from devices. An older backup must not give it back, so the newer of both files stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was put back. `aside` is where the folder that was there lies now."""

    home: Path
    files: int
    aside: Path | None
    kept_withdrawals: bool
    problems: Sequence[str]


def restore(path: Path, home: Path, *, replace: bool) -> Restored:
    """Put it back; raise `BackupError`, and change nothing, where it is not whole, a gateway runs, or the folder holds something."""
    # What a link leads to is swapped, and the link stays.
    home = Path(os.path.realpath(home))
    occupied = home.exists() and _holds_something(home)
    if occupied and not replace:
        raise BackupError(f"{home}: holds something; restore elsewhere with --home, or move it aside with --replace")
    lock = _lock_of(home) if home.exists() else None
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        fresh = home.with_name(f".{home.name}.restored-{os.getpid()}")
        try:
            manifest = unpack(path, fresh)
            kept = occupied and _keep_newer_withdrawals(home, fresh)
            aside = _swap(home, fresh)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        if error.errno == errno.EBUSY:
            reason = "it is a mount point, which cannot be swapped: restore beside it and copy what is there into it"
        raise BackupError(f"{error.filename or home}: cannot be put back ({reason}); see to room and rights") from error
    finally:
        if lock is not None:
            lock.release()
    return Restored(
        home=home, files=len(manifest["files"]), aside=aside if occupied else None, kept_withdrawals=kept, problems=problems_of(home)
    )


def _holds_something(folder: Path) -> bool:
    return any(item.name != "gateway.lock" for item in folder.iterdir())


def _lock_of(home: Path) -> StateLock:
    lock = StateLock(home)
    try:
        lock.acquire()
    except (AlreadyRunning, CannotLock) as error:
        raise BackupError(str(error)) from error
    return lock


def _keep_newer_withdrawals(home: Path, fresh: Path) -> bool:
    current, restored = _generation(home / WITHDRAWN), _generation(fresh / WITHDRAWN)
    if current is None or (restored is not None and restored >= current):
        return False
    (fresh / WITHDRAWN).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copy2(home / WITHDRAWN, fresh / WITHDRAWN)
    return True


def _generation(path: Path) -> int | None:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return int(content["generation"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _swap(home: Path, fresh: Path) -> Path | None:
    aside = None
    if home.exists():
        aside = home.with_name(f"{home.name}.before-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}")
        home.rename(aside)
    try:
        fresh.rename(home)
    except OSError:
        if aside is not None:
            aside.rename(home)
        raise
    if aside is not None and not _holds_something(aside):
        shutil.rmtree(aside)
        return None
    return aside
