"""What a start records: the config that it runs with, and what is installed other than before. One write."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from openclaw_kernel.api.audit import BY_GATEWAY, AuditAction, AuditEntry, AuditLog, state_digest
from openclaw_kernel.api.services import PluginStatus
from openclaw_kernel.audit import table

_PLUGINS_KEY: Final = "audit-plugins"
_KEEP: Final = "INSERT INTO kernel_key_value VALUES ('kernel', ?, ?) ON CONFLICT (owner, key) DO UPDATE SET value = excluded.value"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A start as it is recorded. `config` is the redacted source."""

    config_file: str
    config: Mapping[str, Any]
    plugins: Sequence[PluginStatus]

    def late(self) -> AuditEntry:
        """What is noted where the rows cannot be written now: nobody can say what was before."""
        entry = AuditEntry(action=AuditAction.CONFIG_LOADED, origin=BY_GATEWAY, subject=self.config_file, after=config_digest(self.config))
        return replace(entry, details={"late": True})

    def record(self, connection: sqlite3.Connection, log: AuditLog) -> None:
        """Write the rows."""
        log.append(connection, config_loaded(connection, self.config_file, self.config))
        now = {plugin.id: f"{plugin.distribution} {plugin.version}" for plugin in self.plugins}
        before, after = table.newest_digest(connection, AuditAction.PLUGINS_CHANGED), state_digest(now)
        if before == after:
            return
        row = connection.execute("SELECT value FROM kernel_key_value WHERE owner = 'kernel' AND key = ?", (_PLUGINS_KEY,)).fetchone()
        entry = AuditEntry(
            action=AuditAction.PLUGINS_CHANGED,
            origin=BY_GATEWAY,
            subject="plugins",
            before=before,
            after=after,
            details=_difference({} if row is None else json.loads(row[0]), now),
        )
        log.append(connection, entry)
        connection.execute(_KEEP, (_PLUGINS_KEY, json.dumps(now)))


def config_loaded(connection: sqlite3.Connection, name: str, source: Mapping[str, Any]) -> AuditEntry:
    """That a config was taken: `before` is what the one before was."""
    before = table.newest_digest(connection, AuditAction.CONFIG_LOADED)
    return AuditEntry(action=AuditAction.CONFIG_LOADED, origin=BY_GATEWAY, subject=name, before=before, after=config_digest(source))


def config_digest(source: Mapping[str, Any]) -> str:
    """The digest of a redacted source, whatever YAML put into it."""
    text = json.dumps(source, default=str, sort_keys=True)
    try:
        return state_digest(json.loads(text))
    except ValueError:
        # A number or a character that canonical JSON does not have must not keep the gateway from starting.
        return state_digest(text)


def _difference(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, Any]:
    return {
        "added": {name: now[name] for name in now if name not in before},
        "removed": {name: before[name] for name in before if name not in now},
        "changed": {name: [before[name], now[name]] for name in now if name in before and before[name] != now[name]},
    }
