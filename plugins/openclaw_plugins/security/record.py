"""What is written down: the log, the audit log, and how long what people said is kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from openclaw_kernel.api import CheckContext, Finding, Fix, SetKey, Severity
from openclaw_plugins.security.reach import mapping, plugin_settings
from openclaw_plugins.security.table import Table

TABLE: Final = Table()

_LONG_DAYS: Final = 365
_ABOUT_CHECKPOINTS: Final = frozenset({"checkpoint", "unsigned"})
_BEHIND_ROWS: Final = 1000
_VERIFY_SECONDS: Final = 120.0
"""Every row is read and hashed."""


@TABLE.add("logging.debug", "the log has more in it than it should", Severity.WARN, fixes=True)
def debug(context: CheckContext) -> Iterator[Finding]:
    if context.config.logging.level != "debug":
        return
    written = mapping(context.document.get("logging")).get("level") == "debug"
    fix = Fix(summary="log from info on", changes=(SetKey(key=("logging", "level"), value="info"),), consequence="after the next restart")
    yield Finding(
        severity=Severity.WARN,
        where="logging.level",
        evidence="it is debug: parts of what people write, and of what is sent to models, are in the log",
        cure="set it to info once the fault is found",
        fix=fix if written else None,
    )


@TABLE.add("retention.long", "what people said is kept for long", Severity.WARN)
def retention(context: CheckContext) -> Iterator[Finding]:
    days = plugin_settings(context, "conversation").get("ledgerDays")
    if isinstance(days, int) and days > _LONG_DAYS:
        yield Finding(
            severity=Severity.WARN,
            where="plugins.entries.conversation.config.ledgerDays",
            evidence=f"finished messages stay {days} days, and are lost with the disk on any of them",
            cure="set it to what you look back for; 30 is the default",
        )


@TABLE.add("audit.chain", "the audit log is not what was written", Severity.CRITICAL, seconds=_VERIFY_SECONDS)
def chain(context: CheckContext) -> Iterator[Finding]:
    fault = context.state.verify_audit().get("fault")
    if fault and fault["kind"] not in _ABOUT_CHECKPOINTS:
        yield Finding(
            severity=Severity.CRITICAL,
            where=f"row {fault['row']}",
            evidence=str(fault["message"]),
            cure="compare it with an export kept elsewhere; openclaw-kernel audit verify tells more",
        )


@TABLE.add("audit.checkpoints", "the audit log's checkpoints are missing or another's", Severity.CRITICAL, seconds=_VERIFY_SECONDS)
def checkpoints(context: CheckContext) -> Iterator[Finding]:
    verdict = context.state.verify_audit()
    fault = verdict.get("fault")
    behind = verdict["rows"] - verdict.get("signedRow", verdict["rows"])
    if fault and fault["kind"] in _ABOUT_CHECKPOINTS:
        yield Finding(
            severity=Severity.CRITICAL,
            where="audit-checkpoints.jsonl",
            evidence=str(fault["message"]),
            cure="compare the log with an export kept elsewhere; rows that were cut off are not noticed without checkpoints",
        )
    elif behind > _BEHIND_ROWS:
        yield Finding(
            severity=Severity.WARN,
            where="audit-checkpoints.jsonl",
            evidence=f"the newest {behind} rows have no checkpoint",
            cure="see in openclaw-kernel logs why audit-checkpoints.jsonl cannot be written",
        )
