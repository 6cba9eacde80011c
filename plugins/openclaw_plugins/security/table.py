"""How the checks of a module are collected, and what several of them say alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from openclaw_kernel.api import Check, CheckContext, FileEntry, Finding, Fix, SetMode, Severity

Run: TypeAlias = Callable[[CheckContext], Iterable[Finding]]

OTHERS = 0o077
WRITERS = 0o022


class Table:
    """The checks of one subject."""

    def __init__(self) -> None:
        self.checks: list[Check] = []

    def add(
        self, check_id: str, title: str, worst: Severity, *, fixes: bool = False, deep: bool = False, seconds: float = 10.0
    ) -> Callable[[Run], Run]:
        """Make a function a check."""

        def collect(run: Run) -> Run:
            check = Check(id=check_id, title=title, worst=worst, run=run, fixes=fixes, deep=deep, timeout_seconds=seconds)
            self.checks.append(check)
            return run

        return collect


def mode_fix(entry: FileEntry, mode: int) -> Fix:
    """Give a file or folder another mode."""
    return Fix(summary=f"set the mode of {entry.path.name} to {mode:04o}", changes=(SetMode(path=entry.path, mode=mode),))


def open_to_others(entries: Iterable[FileEntry], what: str, *, readable: Severity = Severity.WARN) -> Iterator[Finding]:
    """A finding for each that others than its owner may read or write; critical where they may write."""
    for entry in entries:
        if entry.kind == "link" or not entry.mode & OTHERS:
            continue
        writes = bool(entry.mode & WRITERS)
        yield Finding(
            severity=Severity.CRITICAL if writes else readable,
            where=str(entry.path),
            evidence=f"{what} has the mode {entry.mode:04o}: others on this machine may {'change' if writes else 'read'} it",
            cure=f"chmod {entry.mode & 0o700:04o} {entry.path}",
            fix=mode_fix(entry, entry.mode & 0o700),
        )


def open_behind_links(context: CheckContext, paths: Iterable[Path], what: str, *, readable: Severity = Severity.WARN) -> Iterator[Finding]:
    """The same for what links lead to. It is the owner's to mend: nothing beyond the state folder is changed for the gateway's sake."""
    for path in paths:
        entry = context.look(path)
        target = context.look(path.resolve()) if entry is not None and entry.kind == "link" else None
        if target is not None:
            yield from (replace(finding, fix=None) for finding in open_to_others([target], what, readable=readable))


def writable_by_others(entry: FileEntry | None) -> bool:
    """Whether others than its owner may change it; a folder whose entries only their owners may replace counts as closed."""
    if entry is None or entry.kind == "link":
        return False
    return bool(entry.mode & WRITERS) and not (entry.kind == "folder" and entry.mode & 0o1000)
