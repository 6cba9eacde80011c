"""Looking through the database for what is broken, beside a running gateway or without one: read-only, bounded, a table at a time.

A database of years takes longer than a person waits. What was looked at is remembered, and the next look goes on with what was not.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from openclaw_config.secret_files import store_private

MEMORY: Final = Path("doctor") / "integrity.json"
KINDS: Final = ("quick_check", "integrity_check")
"""Pages and rows first; then, more slowly, whether the indexes say the same."""
_INSTRUCTIONS: Final = 10_000
"""How often SQLite asks whether it may go on."""
_MOST_FAULTS: Final = 20


class IntegrityLook:
    """One look at a database. `left` are the parts for which there was no time."""

    def __init__(self, database: Path, home: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._memory = home / MEMORY
        self._clock = clock
        self.left: list[str] = []

    def run(self, seconds: float) -> list[str]:
        """Look for so long, and return what is broken; nothing where there is no database."""
        if not self._database.exists():
            return []
        deadline = self._clock() + seconds
        faults: list[str] = []
        try:
            with closing(self._open()) as connection:
                connection.set_progress_handler(lambda: int(self._clock() > deadline), _INSTRUCTIONS)
                done = self._remembered()
                for part in self._parts(connection, done):
                    known = len(faults)
                    if self._clock() > deadline or not self._look(connection, part, faults):
                        self.left.append(part)
                        continue
                    # What is broken is looked at first the next time, and told again.
                    done[part] = 0 if len(faults) > known else time.time_ns() // 1_000_000
                self._remember(done)
        except sqlite3.DatabaseError as error:
            faults.append(str(error))
        return faults[:_MOST_FAULTS]

    def _open(self) -> sqlite3.Connection:
        # Read-only: whoever closes a database last may otherwise take its write-ahead log away from under a gateway that starts.
        return sqlite3.connect(f"file:{quote(str(self._database))}?mode=ro", uri=True, isolation_level=None)

    def _parts(self, connection: sqlite3.Connection, done: dict[str, int]) -> list[str]:
        """What to look at, the longest not looked at first; new ones quick before thorough."""
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        parts = [f"{kind} {table}" for kind in KINDS for table in tables]
        return sorted(parts, key=lambda part: done.get(part, 0))

    def _look(self, connection: sqlite3.Connection, part: str, faults: list[str]) -> bool:
        kind, _, table = part.partition(" ")
        quoted = table.replace('"', '""')
        try:
            found = [str(line) for (line,) in connection.execute(f'PRAGMA {kind}("{quoted}")')]
        except sqlite3.OperationalError as error:
            if str(error) == "interrupted":
                return False
            raise
        faults += [f"{table}: {line}" for line in found if line != "ok"]
        return True

    def _remembered(self) -> dict[str, int]:
        try:
            found = json.loads(self._memory.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {str(part): when for part, when in found.items() if isinstance(when, int)} if isinstance(found, dict) else {}

    def _remember(self, done: dict[str, int]) -> None:
        # Where it cannot be written, the next look begins anew; one with sudo leaves no file that the gateway could not write.
        with contextlib.suppress(OSError):
            if self._memory.parents[1].stat().st_uid != os.geteuid():
                return
            store_private(self._memory, json.dumps(dict(_newest(done)), indent=1) + "\n")


def _newest(done: dict[str, int]) -> Iterator[tuple[str, int]]:
    # Tables come and go with plugins; nobody else would forget them.
    yield from sorted(done.items(), key=lambda item: -item[1])[:2_000]
