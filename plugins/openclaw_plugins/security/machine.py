"""The process, the machine and its clock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from openclaw_kernel.api import CheckContext, Finding, Severity
from openclaw_plugins.security.reach import agent_ids, has_shell, reached_by_strangers
from openclaw_plugins.security.table import Table

TABLE: Final = Table()

_SKEW_MS: Final = 300_000
_TIMES: Final = (
    ("the audit log", "SELECT max(time_ms) FROM kernel_audit"),
    ("the list of devices", "SELECT max(approved_ms) FROM pairing_devices"),
    ("the list of messages", "SELECT max(received_ms) FROM conversation_inbound"),
)


@TABLE.add("process.root", "the gateway runs as root", Severity.CRITICAL)
def root(context: CheckContext) -> Iterator[Finding]:
    if context.process.user_id != 0:
        return
    config = context.config
    programs = [agent for agent in agent_ids(config) if has_shell(config, agent)]
    strangers = bool(reached_by_strangers(config))
    if programs:
        severity, why = Severity.CRITICAL, f"and so do the programs of {', '.join(programs)}"
    elif strangers or config.gateway.bind != "loopback":
        severity, why = Severity.WARN, "and others reach it"
    else:
        severity, why = Severity.INFO, "so that a mistake in a plugin is one in the whole machine"
    yield Finding(
        severity=severity,
        evidence=f"it has all rights on this machine, {why}",
        cure="make a user for it, give that the state folder, and start it as that",
    )


@TABLE.add("process.umask", "what the gateway and its programs make is open to others", Severity.WARN)
def umask(context: CheckContext) -> Iterator[Finding]:
    mask = context.process.umask
    if mask is not None and mask & 0o022 != 0o022:  # noqa: PLR2004 - write for group and others
        everybody = not mask & 0o002
        yield Finding(
            severity=Severity.WARN if everybody else Severity.INFO,
            evidence=f"it is {mask:04o}: files that agents' tools make can be changed by {'everybody' if everybody else 'a group'}",
            cure="start the gateway with umask 0077 (systemd: UMask=0077)",
        )


@TABLE.add("process.core-dumps", "a crash writes the memory to the disk", Severity.INFO)
def core_dumps(context: CheckContext) -> Iterator[Finding]:
    if context.process.core_bytes:
        yield Finding(
            severity=Severity.INFO,
            evidence="core dumps are on: after a crash every secret in memory lies in a file",
            cure="start the gateway with ulimit -c 0 (systemd: LimitCORE=0)",
        )


@TABLE.add("clock.state", "the clock is behind what the gateway has written", Severity.WARN)
def state(context: CheckContext) -> Iterator[Finding]:
    now = context.machine.now_ms
    for what, statement in _TIMES:
        rows = context.state.rows(statement)
        newest = rows[0][0] if rows else None
        if isinstance(newest, int) and newest > now + _SKEW_MS:
            yield Finding(
                severity=Severity.WARN,
                evidence=f"{what} has a time {(newest - now) // 60_000} minutes ahead of the clock: what expires lives too long",
                cure="set the clock right, and let NTP keep it",
            )


@TABLE.add("clock.files", "the clock and the file system disagree", Severity.WARN)
def files(context: CheckContext) -> Iterator[Finding]:
    newest = max(context.files.values(), key=lambda entry: entry.modified_ms, default=None)
    if newest is not None and newest.modified_ms > context.machine.now_ms + _SKEW_MS:
        ahead = (newest.modified_ms - context.machine.now_ms) // 60_000
        yield Finding(
            severity=Severity.WARN,
            where=str(newest.path),
            evidence=f"it was changed {ahead} minutes from now, by the file system's clock",
            cure="set the clock right; on a network file system also its server's",
        )


@TABLE.add("clock.unsynchronised", "nothing keeps the clock right", Severity.INFO)
def unsynchronised(context: CheckContext) -> Iterator[Finding]:
    if context.machine.clock_synchronised is False:
        yield Finding(
            severity=Severity.INFO,
            evidence="the system's clock is not synchronised: times of tokens and of the audit log are as wrong as it is",
            cure="turn NTP on, e.g. timedatectl set-ntp true",
        )
