"""The tables of nodes: approved surfaces, and those that wait."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Final

from openclaw_plugins.pairing.node_records import Node, NodeRequest, Surface

MOST_REQUESTS: Final = 100

STATEMENTS: Final = (
    """
    CREATE TABLE pairing_nodes (
        node_id TEXT PRIMARY KEY,
        caps TEXT NOT NULL,
        commands TEXT NOT NULL,
        permissions TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        approved_ms INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        version TEXT,
        model TEXT
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE pairing_node_requests (
        request_id TEXT PRIMARY KEY,
        node_id TEXT NOT NULL UNIQUE,
        caps TEXT NOT NULL,
        commands TEXT NOT NULL,
        permissions TEXT NOT NULL,
        version TEXT,
        model TEXT,
        created_ms INTEGER NOT NULL,
        refreshed_ms INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
)


def load(connection: sqlite3.Connection) -> tuple[list[Node], list[NodeRequest]]:
    """Read both tables."""
    nodes = [
        Node(
            node_id=row[0],
            surface=_surface(row[1:4]),
            created_ms=row[4],
            approved_ms=row[5],
            generation=row[6],
            version=row[7],
            model=row[8],
        )
        for row in connection.execute(
            "SELECT node_id, caps, commands, permissions, created_ms, approved_ms, generation, version, model FROM pairing_nodes"
        )
    ]
    return nodes, requests(connection)


def requests(connection: sqlite3.Connection) -> list[NodeRequest]:
    """Return those that wait, oldest first."""
    return [
        NodeRequest(
            request_id=row[0],
            node_id=row[1],
            surface=_surface(row[2:5]),
            version=row[5],
            model=row[6],
            created_ms=row[7],
            refreshed_ms=row[8],
        )
        for row in connection.execute(
            "SELECT request_id, node_id, caps, commands, permissions, version, model, created_ms, refreshed_ms"
            " FROM pairing_node_requests ORDER BY created_ms, request_id"
        )
    ]


def put_node(connection: sqlite3.Connection, node: Node) -> None:
    """Write an approved surface."""
    connection.execute(
        "INSERT OR REPLACE INTO pairing_nodes (node_id, caps, commands, permissions, created_ms, approved_ms, generation, version, model)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (node.node_id, *_texts(node.surface), node.created_ms, node.approved_ms, node.generation, node.version, node.model),
    )


def put_request(connection: sqlite3.Connection, request: NodeRequest) -> bool:
    """Keep a request in the place of the node's earlier one; return False where too many others wait."""
    (others,) = connection.execute("SELECT count(*) FROM pairing_node_requests WHERE node_id != ?", (request.node_id,)).fetchone()
    if others >= MOST_REQUESTS:
        return False
    drop_request(connection, request.node_id)
    connection.execute(
        "INSERT INTO pairing_node_requests"
        " (request_id, node_id, caps, commands, permissions, version, model, created_ms, refreshed_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            request.request_id,
            request.node_id,
            *_texts(request.surface),
            request.version,
            request.model,
            request.created_ms,
            request.refreshed_ms,
        ),
    )
    return True


def refresh_request(connection: sqlite3.Connection, request_id: str, now_ms: int) -> None:
    """Note that the node asked again."""
    connection.execute("UPDATE pairing_node_requests SET refreshed_ms = ? WHERE request_id = ?", (now_ms, request_id))


def take_request(connection: sqlite3.Connection, request_id: str) -> bool:
    """Take a request out of the table: whoever does is the one that decides on it."""
    return connection.execute("DELETE FROM pairing_node_requests WHERE request_id = ?", (request_id,)).rowcount == 1


def drop_request(connection: sqlite3.Connection, node_id: str) -> None:
    """Forget the request of a node."""
    connection.execute("DELETE FROM pairing_node_requests WHERE node_id = ?", (node_id,))


def drop_node(connection: sqlite3.Connection, node_id: str) -> None:
    """Forget a node and its request."""
    drop_request(connection, node_id)
    connection.execute("DELETE FROM pairing_nodes WHERE node_id = ?", (node_id,))


def _surface(row: Sequence[str]) -> Surface:
    caps, commands, permissions = (tuple(json.loads(text)) for text in row)
    return Surface(caps, commands, permissions)


def _texts(surface: Surface) -> tuple[str, str, str]:
    return json.dumps(surface.caps), json.dumps(surface.commands), json.dumps(surface.permissions)
