"""The table of setup codes, and every statement on it. Of a code only the SHA-256 is kept."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Final, Literal

Access = Literal["full", "limited", "node"]

STATEMENTS: Final = (
    """
    CREATE TABLE pairing_setups (
        setup_id TEXT PRIMARY KEY,
        digest BLOB NOT NULL UNIQUE,
        access TEXT NOT NULL,
        minted_by TEXT NOT NULL,
        expires_ms INTEGER NOT NULL,
        used_ms INTEGER,
        device_id TEXT,
        device_name TEXT,
        completed_ms INTEGER
    ) WITHOUT ROWID
    """,
)
MOST_OPEN: Final = 20
_KEPT_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A setup code that nobody has used."""

    setup_id: str
    digest: bytes = field(repr=False)
    access: Access
    minted_by: str
    """The principal of whoever asked for it."""
    expires_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What became of a setup code: whom it let in, and when that device was told its tokens, None where it may not have been."""

    setup_id: str
    access: Access
    used_ms: int
    device_id: str
    device_name: str | None
    completed_ms: int | None


def load_open(connection: sqlite3.Connection, now_ms: int) -> list[Setup]:
    """Return the codes that are still good."""
    rows = connection.execute(
        "SELECT setup_id, digest, access, minted_by, expires_ms FROM pairing_setups WHERE used_ms IS NULL AND expires_ms >= ?", (now_ms,)
    )
    return [Setup(setup_id=row[0], digest=bytes(row[1]), access=row[2], minted_by=row[3], expires_ms=row[4]) for row in rows]


def put(connection: sqlite3.Connection, setup: Setup, now_ms: int) -> bool:
    """Keep a code, and forget those that ended long ago; return False where too many are open."""
    connection.execute("DELETE FROM pairing_setups WHERE coalesce(used_ms, expires_ms) < ?", (now_ms - _KEPT_MS,))
    if len(load_open(connection, now_ms)) >= MOST_OPEN:
        return False
    connection.execute(
        "INSERT INTO pairing_setups (setup_id, digest, access, minted_by, expires_ms) VALUES (?, ?, ?, ?, ?)",
        (setup.setup_id, setup.digest, setup.access, setup.minted_by, setup.expires_ms),
    )
    return True


def use(connection: sqlite3.Connection, setup: Setup, device_id: str, device_name: str | None, now_ms: int) -> bool:
    """Use a code up; return False where it was used already, or is over."""
    done = connection.execute(
        "UPDATE pairing_setups SET used_ms = ?, device_id = ?, device_name = ? WHERE digest = ? AND used_ms IS NULL AND expires_ms >= ?",
        (now_ms, device_id, device_name, setup.digest, now_ms),
    )
    return done.rowcount == 1


def complete(connection: sqlite3.Connection, setup_id: str, now_ms: int) -> None:
    """Note that the device was told its tokens."""
    connection.execute("UPDATE pairing_setups SET completed_ms = ? WHERE setup_id = ?", (now_ms, setup_id))


def find_used(connection: sqlite3.Connection, setup_id: str) -> Used | None:
    """Return what became of a code, None while nobody has used it."""
    row = connection.execute(
        "SELECT setup_id, access, used_ms, device_id, device_name, completed_ms FROM pairing_setups"
        " WHERE setup_id = ? AND used_ms IS NOT NULL",
        (setup_id,),
    ).fetchone()
    if row is None:
        return None
    return Used(setup_id=row[0], access=row[1], used_ms=row[2], device_id=row[3], device_name=row[4], completed_ms=row[5])


def drop_open(connection: sqlite3.Connection, minted_by: str | None = None) -> None:
    """Delete the codes that nobody has used, all of them or those of one principal."""
    connection.execute("DELETE FROM pairing_setups WHERE used_ms IS NULL AND coalesce(?1, minted_by) = minted_by", (minted_by,))
