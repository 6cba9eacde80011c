"""The database: whether it is whole, fits this version, and stays of a size that can be worked with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from openclaw_kernel.api import CheckContext, FileEntry, Finding, Severity
from openclaw_plugins.doctor.table import Table, size

TABLE: Final = Table()

DATABASE: Final = "state.sqlite3"
_LARGE: Final = 8_000_000_000
_LARGE_LOG: Final = 256_000_000
_LOOK_SECONDS: Final = 60.0
_MOST_AUDIT_ROWS: Final = 300_000
_DEAD_DAYS: Final = 7
_STUCK_MS: Final = 900_000
_DAY_MS: Final = 86_400_000


@TABLE.add("store.missing", "the database is gone, and its write-ahead log is not", Severity.CRITICAL)
def missing(context: CheckContext) -> Iterator[Finding]:
    left = [entry for name in ("-wal", "-shm", "-journal") if (entry := _entry(context, name)) is not None]
    if _entry(context, "") is None and left:
        yield Finding(
            severity=Severity.CRITICAL,
            where=str(context.home / DATABASE),
            evidence=f"{', '.join(entry.path.name for entry in left)} belong to a database that was moved or removed",
            cure="put the database back beside them before the gateway starts, for they hold its newest changes",
        )


@TABLE.add("store.integrity", "the database is broken", Severity.CRITICAL, seconds=_LOOK_SECONDS + 30.0)
def integrity(context: CheckContext) -> Iterator[Finding]:
    faults = context.instruments.integrity(_LOOK_SECONDS)
    if faults:
        yield Finding(
            severity=Severity.CRITICAL,
            where=str(context.home / DATABASE),
            evidence=f"{len(faults)} faults, the first: {faults[0]}",
            cure="stop the gateway, keep a copy of the database's three files, and restore a backup, or .recover it with sqlite3",
        )


@TABLE.add("store.size", "the database is large", Severity.WARN)
def large(context: CheckContext) -> Iterator[Finding]:
    entry = _entry(context, "")
    if entry is not None and entry.size > _LARGE:
        yield Finding(
            severity=Severity.WARN,
            where=str(entry.path),
            evidence=f"it has {size(entry.size)}: backups and integrity checks take long",
            cure="keep less history (plugins.entries.conversation.config), and run VACUUM while the gateway is down",
        )


@TABLE.add("store.wal", "the database's write-ahead log does not shrink", Severity.WARN)
def wal(context: CheckContext) -> Iterator[Finding]:
    entry = _entry(context, "-wal")
    if entry is not None and entry.size > _LARGE_LOG:
        yield Finding(
            severity=Severity.WARN,
            where=str(entry.path),
            evidence=f"it has {size(entry.size)}: some program reads the database and does not let go",
            cure="end what else has the database open; never remove this file, which holds the newest changes",
        )


@TABLE.add("store.newer", "the database was written by a newer version", Severity.CRITICAL)
def newer(context: CheckContext) -> Iterator[Finding]:
    versions = context.instruments.versions()
    for owner, known in versions.known.items():
        applied = versions.applied.get(owner, 0)
        if applied > known:
            by = f" of version {versions.written_by}" if versions.written_by else ""
            yield Finding(
                severity=Severity.CRITICAL,
                where=str(context.home / DATABASE),
                evidence=f"{owner}: it has migration {applied}{by}, and this version ({versions.package}) knows {known}: it does not start",
                cure=f"install version {versions.written_by or 'that wrote it'}, or a newer one",
            )


@TABLE.add("audit.broken", "the audit log is not as it was written", Severity.CRITICAL, seconds=120.0)
def audit_broken(context: CheckContext) -> Iterator[Finding]:
    rows = context.state.rows("SELECT count(*) FROM kernel_audit")
    count = int(rows[0][0]) if rows else 0
    if count > _MOST_AUDIT_ROWS:
        yield Finding(
            severity=Severity.INFO,
            evidence=f"it has {count} rows, more than are looked through here",
            cure="openclaw-kernel audit verify looks through all",
        )
        return
    verdict = context.state.verify_audit()
    if not verdict["ok"]:
        fault = verdict.get("fault") or {}
        yield Finding(
            severity=Severity.CRITICAL,
            evidence=str(fault.get("message", "it does not verify")),
            cure="openclaw-kernel audit verify tells more; find out who wrote in the state folder",
        )


@TABLE.add("deliveries.dead", "answers were given up", Severity.WARN)
def dead(context: CheckContext) -> Iterator[Finding]:
    since = context.machine.now_ms - _DEAD_DAYS * _DAY_MS
    statement = "SELECT channel, count(*) FROM conversation_outbox WHERE state = 'dead_lettered' AND updated_ms > ? GROUP BY channel"
    for channel, count in context.state.rows(statement, since):
        yield Finding(
            severity=Severity.WARN,
            where=f"channels.{channel}",
            evidence=f"{count} messages could not be delivered in the last {_DEAD_DAYS} days",
            cure="openclaw-kernel dead list says why; openclaw-kernel dead retry tries again",
        )


@TABLE.add("deliveries.waiting", "answers wait for long", Severity.WARN)
def waiting(context: CheckContext) -> Iterator[Finding]:
    since = context.machine.now_ms - _STUCK_MS
    statement = (
        "SELECT channel, count(*), min(created_ms) FROM conversation_outbox"
        " WHERE state IN ('prepared', 'sending') AND created_ms < ? GROUP BY channel"
    )
    for channel, count, oldest in context.state.rows(statement, since):
        yield Finding(
            severity=Severity.WARN,
            where=f"channels.{channel}",
            evidence=f"{count} messages have not been sent, the oldest for {(context.machine.now_ms - oldest) // 60_000} minutes",
            cure="start the gateway, or see openclaw-kernel status for what stops the channel",
        )


def _entry(context: CheckContext, suffix: str) -> FileEntry | None:
    return context.files.get(context.home / f"{DATABASE}{suffix}")
