"""What a start falls back on: the generations of openclaw.yaml that were kept, and whether starts have failed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from openclaw_kernel.api import CheckContext, Finding, Severity
from openclaw_plugins.doctor.table import Table, mapping, size

TABLE: Final = Table()

_FOLDER: Final = "generations"
_LONGEST: Final = 4 << 20
_DEATHS: Final = 2
"""So many lead to safe mode."""
_LARGE: Final = 500_000_000


@TABLE.add("generations.last-good", "there is no last good configuration to fall back on", Severity.WARN)
def last_good(context: CheckContext) -> Iterator[Finding]:
    folder = context.home / _FOLDER
    if context.files.get(folder) is None:
        # No gateway has been ready here yet.
        return
    said = _read_json(folder / "last-good")
    for name, digest in mapping(said.get("files")).items():
        path = folder / f"{digest}.yaml"
        fault = _fault_of(path, str(digest))
        if fault is not None:
            yield Finding(
                severity=Severity.WARN,
                where=str(path),
                evidence=f"it holds {name} as the gateway last worked with it, and {fault}: a start with a broken file has no other",
                cure="start the gateway once with a valid openclaw.yaml, which writes it anew",
            )
    if not mapping(said.get("files")):
        yield Finding(
            severity=Severity.WARN,
            where=str(folder / "last-good"),
            evidence="it is not there, or cannot be read: a start with a broken file has nothing to serve with",
            cure="start the gateway once with a valid openclaw.yaml, which writes it anew",
        )


@TABLE.add("boot.deaths", "starts died before they were ready", Severity.CRITICAL)
def deaths(context: CheckContext) -> Iterator[Finding]:
    path = context.home / _FOLDER / "boot.json"
    said = _read_json(path)
    pending = mapping(said.get("pending"))
    owner = context.instruments.owner()
    if pending and owner.alive and owner.pid == pending.get("pid"):
        # It is starting now.
        pending = {}
    counted = said.get("deaths")
    count = (counted if isinstance(counted, int) else 0) + bool(pending)
    if count:
        safe = count >= _DEATHS
        yield Finding(
            severity=Severity.CRITICAL if safe else Severity.WARN,
            where=str(path),
            evidence=f"{count} in a row{': the next one is in safe mode, without plugins of others' if safe else ''}",
            cure="openclaw-kernel logs says what the last one did; mend that, and what else this command finds",
        )


@TABLE.add("generations.rejected", "a configuration was refused, and is kept beside", Severity.INFO)
def rejected(context: CheckContext) -> Iterator[Finding]:
    folder = context.home / _FOLDER / "rejected"
    kept = [entry for entry in context.files.values() if entry.path.parent == folder and entry.kind == "file"]
    if kept:
        newest = max(kept, key=lambda entry: entry.modified_ms)
        yield Finding(
            severity=Severity.INFO,
            where=str(newest.path),
            evidence=f"{len(kept)} files that could not be used, or that a rollback replaced; this is the newest",
            cure="take from it what you need; the oldest go by themselves",
        )


@TABLE.add("generations.size", "the kept configurations take much room", Severity.WARN)
def large(context: CheckContext) -> Iterator[Finding]:
    folder = context.home / _FOLDER
    total = sum(entry.size for entry in context.files.values() if entry.kind == "file" and entry.path.is_relative_to(folder))
    if total > _LARGE:
        yield Finding(
            severity=Severity.WARN,
            where=str(folder),
            evidence=f"they have {size(total)}: some program writes openclaw.yaml over and over, or makes it very long",
            cure="openclaw-kernel config history says who writes it",
        )


def _fault_of(path: Path, digest: str) -> str | None:
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
    except OSError as error:
        return f"cannot be read ({(error.strerror or str(error)).lower()})"
    return None if hashlib.sha256(content).hexdigest() == digest else "is not what was kept"


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        return mapping(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return {}
