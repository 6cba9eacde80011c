"""The tables of paired devices, as numbered migrations, and every statement on them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from openclaw_kernel.api import Migration
from openclaw_plugins.pairing import node_tables, setup_tables
from openclaw_plugins.pairing.records import About, Device, Request, Role, Token
from openclaw_plugins.pairing.rules import same_request

if TYPE_CHECKING:
    from sqlite_utils import Database

MOST_REQUESTS: Final = 100
MOST_PER_ADDRESS: Final = 20
_MOST_REMOVED: Final = 10_000

_ABOUT: Final = """
        display_name TEXT,
        platform TEXT NOT NULL,
        device_family TEXT,
        client_id TEXT NOT NULL,
        client_mode TEXT NOT NULL,
        address TEXT NOT NULL
"""
_FIRST: Final = (
    f"""
    CREATE TABLE pairing_devices (
        device_id TEXT PRIMARY KEY,
        public_key TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        approved_ms INTEGER NOT NULL,
        approved_by TEXT NOT NULL,
        {_ABOUT}
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE pairing_roles (
        device_id TEXT NOT NULL,
        role TEXT NOT NULL,
        scopes TEXT NOT NULL,
        approved_ms INTEGER NOT NULL,
        revoked_ms INTEGER,
        PRIMARY KEY (device_id, role)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE pairing_tokens (
        digest BLOB PRIMARY KEY,
        device_id TEXT NOT NULL,
        role TEXT NOT NULL,
        scopes TEXT,
        issued_ms INTEGER NOT NULL,
        used INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX pairing_tokens_device ON pairing_tokens (device_id)",
    f"""
    CREATE TABLE pairing_requests (
        request_id TEXT PRIMARY KEY,
        device_id TEXT NOT NULL UNIQUE,
        public_key TEXT NOT NULL,
        role TEXT NOT NULL,
        scopes TEXT NOT NULL,
        reason TEXT NOT NULL,
        network TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        refreshed_ms INTEGER NOT NULL,
        {_ABOUT}
    ) WITHOUT ROWID
    """,
    "CREATE TABLE pairing_removed (device_id TEXT PRIMARY KEY, removed_ms INTEGER NOT NULL) WITHOUT ROWID",
)


def _create(database: Database) -> None:
    for statement in _FIRST:
        database.execute(statement)


_SECOND: Final = (
    "ALTER TABLE pairing_devices ADD COLUMN label TEXT",
    "ALTER TABLE pairing_devices ADD COLUMN generation INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE pairing_roles ADD COLUMN generation INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE pairing_tokens ADD COLUMN generation INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE pairing_tokens ADD COLUMN rotated INTEGER NOT NULL DEFAULT 0",
    # `number` is the highest that was given, `withdrawn` the highest that the file beside the database had.
    "CREATE TABLE pairing_generation (id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL, withdrawn INTEGER NOT NULL)",
    "INSERT INTO pairing_generation VALUES (1, 0, 0)",
)


def _add_generations(database: Database) -> None:
    for statement in _SECOND:
        database.execute(statement)


def _create_setups(database: Database) -> None:
    for statement in setup_tables.STATEMENTS:
        database.execute(statement)


def _create_nodes(database: Database) -> None:
    for statement in node_tables.STATEMENTS:
        database.execute(statement)


MIGRATIONS: Final = (
    Migration(number=1, name="create devices, roles, tokens, requests and removed devices", apply=_create),
    Migration(number=2, name="add labels, rotated tokens and generations", apply=_add_generations),
    Migration(number=3, name="create setup codes", apply=_create_setups),
    Migration(number=4, name="create nodes", apply=_create_nodes),
)

_ABOUT_COLUMNS: Final = "display_name, platform, device_family, client_id, client_mode, address"
_DEVICE_COLUMNS: Final = f"device_id, public_key, created_ms, approved_ms, approved_by, generation, label, {_ABOUT_COLUMNS}"


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a request. `request` is None where there was no room, `superseded` the one it took the place of."""

    request: Request | None
    created: bool
    superseded: Request | None
    waiting: tuple[Request, ...]
    """All that wait now."""
    expired: tuple[Request, ...] = ()
    """Those that had waited long enough."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """All that the tables hold; of removed devices their ids."""

    devices: list[Device]
    requests: list[Request]
    removed: set[str]
    generation: int
    withdrawn: int


def load(connection: sqlite3.Connection) -> Loaded:
    """Read everything."""
    tokens: dict[tuple[str, str], list[Token]] = {}
    for digest, device_id, role, scopes, issued_ms, used, generation, rotated in connection.execute(
        "SELECT digest, device_id, role, scopes, issued_ms, used, generation, rotated FROM pairing_tokens ORDER BY issued_ms"
    ):
        held = None if scopes is None else tuple(json.loads(scopes))
        token = Token(bytes(digest), held, issued_ms, generation, used=bool(used), rotated=bool(rotated))
        tokens.setdefault((device_id, role), []).append(token)
    roles: dict[str, dict[str, Role]] = {}
    for device_id, role, scopes, approved_ms, revoked_ms, generation in connection.execute(
        "SELECT device_id, role, scopes, approved_ms, revoked_ms, generation FROM pairing_roles ORDER BY role"
    ):
        its_tokens = tuple(tokens.get((device_id, role), ()))
        roles.setdefault(device_id, {})[role] = Role(tuple(json.loads(scopes)), approved_ms, generation, revoked_ms, its_tokens)
    devices = [
        Device(
            device_id=row[0],
            public_key=row[1],
            created_ms=row[2],
            approved_ms=row[3],
            approved_by=row[4],
            generation=row[5],
            label=row[6],
            about=_about(row[7:]),
            roles=roles.get(row[0], {}),
        )
        for row in connection.execute(f"SELECT {_DEVICE_COLUMNS} FROM pairing_devices")  # noqa: S608 - the names are those below
    ]
    removed = {device_id for (device_id,) in connection.execute("SELECT device_id FROM pairing_removed")}
    number, withdrawn = connection.execute("SELECT number, withdrawn FROM pairing_generation").fetchone()
    return Loaded(devices, _requests(connection), removed, number, withdrawn)


def note_generation(connection: sqlite3.Connection, number: int, withdrawn: int) -> None:
    """Keep the highest generation that was given, and the highest that was withdrawn."""
    connection.execute("UPDATE pairing_generation SET number = max(number, ?), withdrawn = max(withdrawn, ?)", (number, withdrawn))


def put_device(connection: sqlite3.Connection, device: Device) -> None:
    """Write a device as it now is, with its roles and tokens; it no longer counts as removed."""
    _delete_device(connection, device.device_id)
    connection.execute("DELETE FROM pairing_removed WHERE device_id = ?", (device.device_id,))
    row = (device.device_id, device.public_key, device.created_ms, device.approved_ms, device.approved_by)
    connection.execute(
        f"INSERT INTO pairing_devices ({_DEVICE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - the names are those below
        (*row, device.generation, device.label, *_about_row(device.about)),
    )
    for name, role in device.roles.items():
        connection.execute(
            "INSERT INTO pairing_roles (device_id, role, scopes, approved_ms, revoked_ms, generation) VALUES (?, ?, ?, ?, ?, ?)",
            (device.device_id, name, json.dumps(role.scopes), role.approved_ms, role.revoked_ms, role.generation),
        )
        for token in role.tokens:
            scopes = None if token.scopes is None else json.dumps(token.scopes)
            connection.execute(
                "INSERT INTO pairing_tokens (digest, device_id, role, scopes, issued_ms, used, generation, rotated)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    token.digest,
                    device.device_id,
                    name,
                    scopes,
                    token.issued_ms,
                    int(token.used),
                    token.generation,
                    int(token.rotated),
                ),
            )


def remove_device(connection: sqlite3.Connection, device_id: str, now_ms: int) -> None:
    """Forget a device, and remember that a person removed it."""
    _delete_device(connection, device_id)
    drop_request(connection, device_id)
    connection.execute("INSERT OR REPLACE INTO pairing_removed VALUES (?, ?)", (device_id, now_ms))
    connection.execute(
        "DELETE FROM pairing_removed WHERE device_id IN (SELECT device_id FROM pairing_removed ORDER BY removed_ms DESC LIMIT -1 OFFSET ?)",
        (_MOST_REMOVED,),
    )


def drop_request(connection: sqlite3.Connection, device_id: str) -> None:
    """Forget the request of a device."""
    connection.execute("DELETE FROM pairing_requests WHERE device_id = ?", (device_id,))


def take_request(connection: sqlite3.Connection, request_id: str, now_ms: int) -> bool:
    """Take a request that still waits out of the table: whoever does is the one that decides on it."""
    found = next((request for request in _requests(connection) if request.request_id == request_id), None)
    if found is None or found.expires_ms < now_ms:
        return False
    drop_request(connection, found.device_id)
    return True


def count_devices(connection: sqlite3.Connection, *, beside: str) -> int:
    """Count the approved devices other than this one."""
    return int(connection.execute("SELECT count(*) FROM pairing_devices WHERE device_id != ?", (beside,)).fetchone()[0])


def forget_what_waits(connection: sqlite3.Connection) -> None:
    """Delete every request, also of nodes, and every setup code that nobody has used."""
    connection.execute("DELETE FROM pairing_requests")
    connection.execute("DELETE FROM pairing_node_requests")
    setup_tables.drop_open(connection)


def expire_requests(connection: sqlite3.Connection, now_ms: int) -> tuple[Request, ...]:
    """Delete and return those that have waited long enough."""
    expired = tuple(request for request in _requests(connection) if request.expires_ms < now_ms)
    for request in expired:
        drop_request(connection, request.device_id)
    return expired


def keep_request(connection: sqlite3.Connection, fresh: Request) -> Kept:
    """Keep a request within the bounds: one a device, so many an address, so many in all. The same ask keeps its id."""
    expired = expire_requests(connection, fresh.created_ms)
    waiting = _requests(connection)
    earlier = next((request for request in waiting if request.device_id == fresh.device_id), None)
    others = [request for request in waiting if request is not earlier]
    if earlier is not None and same_request(earlier, fresh):
        connection.execute("UPDATE pairing_requests SET refreshed_ms = ? WHERE request_id = ?", (fresh.refreshed_ms, earlier.request_id))
        kept = replace(earlier, refreshed_ms=fresh.refreshed_ms)
        return Kept(kept, created=False, superseded=None, waiting=(*others, kept), expired=expired)
    if len(others) >= MOST_REQUESTS or sum(request.network == fresh.network for request in others) >= MOST_PER_ADDRESS:
        return Kept(None, created=False, superseded=None, waiting=tuple(waiting), expired=expired)
    drop_request(connection, fresh.device_id)
    row = (
        fresh.request_id,
        fresh.device_id,
        fresh.public_key,
        fresh.role,
        json.dumps(fresh.scopes),
        fresh.reason,
        fresh.network,
        fresh.created_ms,
        fresh.refreshed_ms,
        *_about_row(fresh.about),
    )
    connection.execute("INSERT INTO pairing_requests VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    return Kept(fresh, created=True, superseded=earlier, waiting=(*others, fresh), expired=expired)


def _delete_device(connection: sqlite3.Connection, device_id: str) -> None:
    for table in ("pairing_devices", "pairing_roles", "pairing_tokens"):
        connection.execute(f"DELETE FROM {table} WHERE device_id = ?", (device_id,))  # noqa: S608 - the names are those above


def _requests(connection: sqlite3.Connection) -> list[Request]:
    return [
        Request(
            request_id=row[0],
            device_id=row[1],
            public_key=row[2],
            role=row[3],
            scopes=tuple(json.loads(row[4])),
            reason=row[5],
            network=row[6],
            created_ms=row[7],
            refreshed_ms=row[8],
            about=_about(row[9:]),
        )
        for row in connection.execute("SELECT * FROM pairing_requests ORDER BY created_ms, request_id")
    ]


def _about(row: Iterable[str]) -> About:
    display_name, platform, device_family, client_id, client_mode, address = row
    return About(
        display_name=display_name,
        platform=platform,
        device_family=device_family,
        client_id=client_id,
        client_mode=client_mode,
        address=address,
    )


def _about_row(about: About) -> tuple[str | None, ...]:
    return (about.display_name, about.platform, about.device_family, about.client_id, about.client_mode, about.address)
