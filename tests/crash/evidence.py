"""What is left of a block, from all sides: the people's chats, the clients, the model, the tools' effects, the ledger, the log."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.load import Asked, Said

Row = dict[str, Any]

INBOUND = "id, channel, message_id, state, reason, attempts, session_key, run_id, body, updated_ms"
OUTBOX = "id, outbox_id, channel, peer_id, text, run_id, inbound_id, state, attempts, created_ms, error"
RUNS = "id, run_id, session_key, inbound_id, state, ended_ms, resumes, text, error"
MESSAGES = "id, session_id, seq, role, run_id, body"


@dataclass(slots=True, kw_only=True)
class Evidence:
    """One moment of a block. Rows are those of the tables, with the JSON of bodies read."""

    bot: int
    said: Sequence[Said]
    asked: Sequence[Asked]
    confirmed_below: int
    """Telegram was told that we have every update below this id."""
    visible: dict[int, list[Row]]
    """What people see of the bot, by chat."""
    asks: list[Row]
    """Requests to the model: token, results, refused, at (seconds), outcome."""
    effects: list[Row]
    errors: list[str]
    """Lines of the log that are errors."""
    inbound: list[Row] = field(default_factory=list)
    outbox: list[Row] = field(default_factory=list)
    runs: list[Row] = field(default_factory=list)
    messages: list[Row] = field(default_factory=list)
    why: dict[str, Row] = field(default_factory=dict)
    """What is answered to the question why, by id; `failed` where it is not."""

    def message_id(self, said: Said) -> str:
        """How the ledger calls a person's message."""
        return f"{self.bot}:{said.chat}:{said.message_id}"

    def told(self) -> list[Said]:
        """The messages that Telegram was told we have."""
        return [said for said in self.said if said.update_id < self.confirmed_below]

    def row_of(self, said: Said) -> Row | None:
        """The ledger's row of a person's message."""
        return next((row for row in self.inbound if row["message_id"] == self.message_id(said)), None)

    def rows_of(self, asked: Asked) -> list[Row]:
        """What is on disk of a client's request: of `send` a delivery, else a message."""
        if asked.method == "send":
            return [row for row in self.outbox if row["text"] == asked.params["message"]]
        return [row for row in self.inbound if row["run_id"] == asked.key]

    def replies_to(self, row: Row) -> list[Row]:
        """The deliveries that a message led to."""
        return [sent for sent in self.outbox if sent["inbound_id"] == row["id"]]

    def ends(self) -> dict[str, int]:
        """Messages by state."""
        return dict(Counter(row["state"] for row in self.inbound))

    def deliveries(self) -> dict[str, int]:
        """Deliveries by state."""
        return dict(Counter(row["state"] for row in self.outbox))

    def identities(self) -> dict[str, Row]:
        """Every id that somebody may ask about, with the row it means."""
        found: dict[str, Row] = {}
        for row in self.inbound:
            found[row["message_id"]] = row
            if row["run_id"]:
                found[row["run_id"]] = row
        for row in self.outbox:
            found[row["outbox_id"]] = row
        return found


def read_ledger(database: Path, evidence: Evidence) -> None:
    """Fill in the rows, where there is a database."""
    if not database.exists():
        return
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        try:
            evidence.inbound = _rows(connection, "conversation_inbound", INBOUND)
        except sqlite3.OperationalError:
            # Killed before the tables were made.
            return
        evidence.outbox = _rows(connection, "conversation_outbox", OUTBOX)
        evidence.runs = _rows(connection, "conversation_runs", RUNS)
        evidence.messages = _rows(connection, "conversation_messages", MESSAGES)


def _rows(connection: sqlite3.Connection, table: str, columns: str) -> list[Row]:
    rows = [dict(row) for row in connection.execute(f"SELECT {columns} FROM {table} ORDER BY id")]  # noqa: S608 - names of our own
    for row in rows:
        if "body" in row:
            row["body"] = json.loads(row["body"])
    return rows
