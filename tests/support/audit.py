"""An audit log that keeps what it is told."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from openclaw_kernel.api import AuditEntry


@dataclass
class RecordedAudit:
    """Implements AuditLog."""

    appended: list[AuditEntry] = field(default_factory=list)
    noted: list[AuditEntry] = field(default_factory=list)
    refusals: list[AuditEntry] = field(default_factory=list)

    def append(self, _connection: sqlite3.Connection, entry: AuditEntry) -> int:
        """Keep it."""
        self.appended.append(entry)
        return len(self.appended)

    def note(self, entry: AuditEntry) -> None:
        """Keep it."""
        self.noted.append(entry)

    def refused(self, entry: AuditEntry) -> None:
        """Keep it."""
        self.refusals.append(entry)
