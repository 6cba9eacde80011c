"""Devices that are paired, and those that wait."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final

from openclaw_kernel.api import CheckContext, Finding, Severity
from openclaw_plugins.security.table import Table

TABLE: Final = Table()

_DAY_MS: Final = 86_400_000
_STALE_DAYS: Final = 180
_UNUSED_DAYS: Final = 7
_MANY: Final = 20
_ADMIN: Final = "operator.admin"
_DANGEROUS: Final = ("system.run*", "system.which", "system.execApprovals.*", "browser.proxy*", "fs.*")
"""Commands of nodes that run programs there, or show what is on their disks and in their browsers."""
_LIVE: Final = "FROM pairing_devices d JOIN pairing_roles r ON r.device_id = d.device_id WHERE r.revoked_ms IS NULL"


@TABLE.add("devices.stale", "a device had no new token for long", Severity.WARN)
def stale(context: CheckContext) -> Iterator[Finding]:
    newest = "max(d.approved_ms, r.approved_ms, coalesce((SELECT max(issued_ms) FROM pairing_tokens t WHERE t.device_id = d.device_id), 0))"
    for device_id, name, last in context.state.rows(f"SELECT d.device_id, d.display_name, max({newest}) {_LIVE} GROUP BY d.device_id"):
        days = (context.machine.now_ms - last) // _DAY_MS
        if days > _STALE_DAYS:
            yield Finding(
                severity=Severity.WARN,
                where=f"device:{device_id}",
                evidence=f"{_called(name, device_id)} was approved, and given its newest token, {days} days ago",
                cure=f"openclaw-kernel devices remove {device_id}, where it is not used any more; else rotate its token",
            )


@TABLE.add("devices.admin-unused", "a device may do everything and never came", Severity.WARN)
def admin_unused(context: CheckContext) -> Iterator[Finding]:
    used = "(SELECT count(*) FROM pairing_tokens t WHERE t.device_id = d.device_id AND t.role = r.role AND t.used)"
    for device_id, name, scopes, approved_ms, count in context.state.rows(
        f"SELECT d.device_id, d.display_name, r.scopes, r.approved_ms, {used} {_LIVE}"
    ):
        days = (context.machine.now_ms - approved_ms) // _DAY_MS
        if not count and days > _UNUSED_DAYS and _ADMIN in json.loads(scopes):
            yield Finding(
                severity=Severity.WARN,
                where=f"device:{device_id}",
                evidence=f"{_called(name, device_id)} may do everything since {days} days, and never showed the token it was given",
                cure=f"openclaw-kernel devices remove {device_id}",
            )


@TABLE.add("devices.admin-page", "a device that only chats may do everything", Severity.INFO)
def admin_page(context: CheckContext) -> Iterator[Finding]:
    for device_id, name, mode, scopes in context.state.rows(f"SELECT d.device_id, d.display_name, d.client_mode, r.scopes {_LIVE}"):
        if mode in {"webchat", "ui", "probe"} and _ADMIN in json.loads(scopes):
            yield Finding(
                severity=Severity.INFO,
                where=f"device:{device_id}",
                evidence=f"{_called(name, device_id)} is a {mode} client with {_ADMIN}",
                cure="approve it again with operator.read and operator.write, where that is enough for it",
            )


@TABLE.add("devices.pending", "many devices wait for an approval", Severity.WARN)
def pending(context: CheckContext) -> Iterator[Finding]:
    networks = [network for (network,) in context.state.rows("SELECT network FROM pairing_requests")]
    if len(networks) > _MANY:
        most = max(sorted(set(networks)), key=networks.count)
        yield Finding(
            severity=Severity.WARN,
            evidence=f"{len(networks)} wait, {networks.count(most)} of them from {most}: somebody may hope that one is approved by mistake",
            cure="openclaw-kernel devices list, and reject what you do not know",
        )


@TABLE.add("devices.nodes-dangerous", "a node may be told to run programs or to show files", Severity.WARN)
def nodes_dangerous(context: CheckContext) -> Iterator[Finding]:
    for node_id, commands in context.state.rows("SELECT node_id, commands FROM pairing_nodes"):
        found = sorted(name for name in json.loads(commands) if any(fnmatchcase(name, pattern) for pattern in _DANGEROUS))
        if found:
            yield Finding(
                severity=Severity.WARN,
                where=f"node:{node_id}",
                evidence=f"it was approved with {', '.join(found)}: whoever gets at an agent's tools or the gateway gets at that machine",
                cure="have it declare fewer commands and approve it again, or remove it",
            )


@TABLE.add("devices.nodes-unknown", "a node is paired whose name nobody can tell", Severity.INFO)
def nodes_unnamed(context: CheckContext) -> Iterator[Finding]:
    for (device_id,) in context.state.rows(f"SELECT d.device_id {_LIVE} AND r.role = 'node' AND d.display_name IS NULL"):
        yield Finding(
            severity=Severity.INFO,
            where=f"device:{device_id}",
            evidence=f"node {device_id[:12]} has no name, and agents may be given commands of nodes",
            cure=f"openclaw-kernel devices rename {device_id} NAME, or remove it",
        )


@TABLE.add("devices.setup-codes", "setup codes for everything lie about", Severity.WARN)
def setup_codes(context: CheckContext) -> Iterator[Finding]:
    found = context.state.rows(
        "SELECT count(*) FROM pairing_setups WHERE used_ms IS NULL AND access = 'full' AND expires_ms > ?", context.machine.now_ms
    )
    count = found[0][0] if found else 0
    if count > 1:
        yield Finding(
            severity=Severity.WARN,
            evidence=f"{count} setup codes that nobody has used yet let in whoever reads them, to do everything",
            cure="show one code at a time; they end after ten minutes",
        )


def _called(name: str | None, device_id: str) -> str:
    return f"device {name!r}" if name else f"device {device_id[:12]}"
