"""From an id that somebody holds to the message or delivery it belongs to. Each function runs inside a read."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import orjson

Kind: TypeAlias = Literal["message", "delivery", "note", "swept"]

MOST: Final = 20
SHORTEST_PREFIX: Final = 4
MOST_HEADS: Final = 2000
MOST_ACCOUNTS: Final = 100
LONGEST_QUERY: Final = 600
LONGEST_NUMBER: Final = 15
_LEDGER_ID: Final = re.compile(r"m([0-9]{1,15})")
_LAST: Final = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that an id can mean. `row` is its number in its table, `id` what names it without doubt."""

    kind: Kind
    row: int
    id: str
    about: str
    """What it is, in a few words."""

    def to_json(self) -> dict[str, Any]:
        """Return it as clients get it."""
        return {"id": self.id, "kind": self.kind, "about": self.about}


def ledger_id(row: int) -> str:
    """Return the id by which a message of the ledger is named."""
    return f"m{row}"


def find(connection: sqlite3.Connection, query: str) -> list[Found]:
    """Return what an id can mean, nothing where it is unknown: whole ids first, then the beginnings of ids."""
    query = query.strip()
    if not query or len(query) > LONGEST_QUERY:
        return []
    return _without_doubt(connection, query) or _whole(connection, query) or _as_seen(connection, query) or _beginning(connection, query)


def _without_doubt(connection: sqlite3.Connection, query: str) -> list[Found]:
    number = _LEDGER_ID.fullmatch(query)
    if number is not None and (found := _messages(connection, "id = ?", (int(number[1]),))):
        return found
    return _deliveries(connection, "outbox_id = ?", (query,))


def _whole(connection: sqlite3.Connection, query: str) -> list[Found]:
    channel, _, rest = query.partition(":")
    messages = _messages(
        connection,
        "run_id = ? OR message_id = ? OR (message_id = ? AND channel = ?)"
        " OR id IN (SELECT inbound_id FROM conversation_runs WHERE run_id = ?)",
        (query, query, rest, channel, query),
    )
    deliveries = _deliveries(connection, "run_id = ?", (query,))
    return _apart(connection, messages, deliveries) or _in_transcript(connection, query) or _swept(connection, query)


def _as_seen(connection: sqlite3.Connection, query: str) -> list[Found]:
    """Find what came or was sent by what a person sees of it: the platform's id of it, behind its chat's, behind its channel."""
    channel, _, rest = query.partition(":")
    places = [(place, name) for place, name in ((None, query), (channel, rest)) if name]
    messages = [one for place, name in places for one in _ending_in(connection, place, name)]
    deliveries = [one for place, name in places for one in _receipt(connection, place, name)]
    unique = {(one.kind, one.row): one for one in _apart(connection, messages, deliveries)}
    return list(unique.values())[:MOST]


def _ending_in(connection: sqlite3.Connection, channel: str | None, tail: str) -> list[Found]:
    """Find messages whose id is this behind what a person does not see (a bot, a bot and a chat): `7`, `42:7` for `100:42:7`.

    Only the beginnings that there are get looked at, each once, by the index; after `MOST_HEADS` of them it is enough.
    """
    found: list[Found] = []
    parts, looked = tail.count(":") + 1, 0
    for place in _accounts(connection, channel):
        after = ""
        while looked < MOST_HEADS and len(found) < MOST:
            row = connection.execute(
                "SELECT message_id FROM conversation_inbound WHERE channel = ? AND account_id = ? AND message_id > ?"
                " ORDER BY message_id LIMIT 1",
                (*place, after),
            ).fetchone()
            if row is None:
                break
            looked += 1
            head = ":".join(row[0].split(":")[:-parts])
            # Behind all that begins like this one, for `;` comes right after `:`.
            after = f"{head};" if head else row[0]
            if head:
                whole = f"{head}:{tail}"
                # An album is named by its first message and its last one.
                condition = "channel = ? AND account_id = ? AND (message_id = ? OR (message_id >= ? AND message_id < ?))"
                found += _messages(connection, condition, (*place, whole, f"{whole}-", f"{whole}."))
    return found[:MOST]


def _accounts(connection: sqlite3.Connection, channel: str | None) -> list[tuple[str, str]]:
    """Return from where messages came, by the index."""
    found: list[tuple[str, str]] = []
    place = ("", "") if channel is None else (channel, "")
    while len(found) < MOST_ACCOUNTS:
        row = connection.execute(
            "SELECT channel, account_id FROM conversation_inbound WHERE (channel, account_id) > (?, ?)"
            " ORDER BY channel, account_id LIMIT 1",
            place,
        ).fetchone()
        if row is None or (channel is not None and row[0] != channel):
            break
        place = row
        found.append(row)
    return found


def _receipt(connection: sqlite3.Connection, channel: str | None, name: str) -> list[Found]:
    """Find what was sent by the id that the platform gave it, also behind its chat; this looks at every delivery of the ledger."""
    chat, _, number = name.rpartition(":")
    return _deliveries(
        connection,
        "state = 'sent' AND (instr(receipt, ?) OR (instr(receipt, ?) AND peer_id = ?)) AND (? IS NULL OR channel = ?)",
        (orjson.dumps(name).decode(), orjson.dumps(number).decode(), chat, channel, channel),
    )


def _beginning(connection: sqlite3.Connection, query: str) -> list[Found]:
    if len(query) < SHORTEST_PREFIX:
        return []
    span = (query, query + _LAST)
    messages = _messages(
        connection,
        "(run_id >= ? AND run_id < ?) OR (message_id >= ? AND message_id < ?)"
        " OR id IN (SELECT inbound_id FROM conversation_runs WHERE run_id >= ? AND run_id < ?)",
        span * 3,
    )
    deliveries = _deliveries(connection, "(run_id >= ? AND run_id < ?) OR (outbox_id >= ? AND outbox_id < ?)", span * 2)
    return _apart(connection, messages, deliveries)


def _apart(connection: sqlite3.Connection, messages: list[Found], deliveries: list[Found]) -> list[Found]:
    """Return both, without the deliveries that belong to one of the messages."""
    known = {found.row for found in messages}
    owners = {found.row: _owner(connection, found.row) for found in deliveries}
    return [*messages, *(found for found in deliveries if owners[found.row] not in known)]


def _owner(connection: sqlite3.Connection, delivery: int) -> int | None:
    row = connection.execute("SELECT inbound_id FROM conversation_outbox WHERE id = ?", (delivery,)).fetchone()
    return None if row is None else row[0]


def _messages(connection: sqlite3.Connection, condition: str, values: tuple[Any, ...]) -> list[Found]:
    rows = connection.execute(
        "SELECT id, channel, message_id, state FROM conversation_inbound"  # noqa: S608 - conditions are words of this file
        f" WHERE {condition} ORDER BY id DESC LIMIT {MOST}",
        values,
    )
    return [
        Found("message", row, ledger_id(row), f"message {message_id} of {channel}, {state}") for row, channel, message_id, state in rows
    ]


def _deliveries(connection: sqlite3.Connection, condition: str, values: tuple[Any, ...]) -> list[Found]:
    rows = connection.execute(
        "SELECT id, outbox_id, channel, peer_id, state FROM conversation_outbox"  # noqa: S608 - conditions are words of this file
        f" WHERE {condition} ORDER BY id DESC LIMIT {MOST}",
        values,
    )
    return [Found("delivery", row, outbox_id, f"delivery to {peer} on {channel}, {state}") for row, outbox_id, channel, peer, state in rows]


def _in_transcript(connection: sqlite3.Connection, query: str) -> list[Found]:
    """Find by the public id of a transcript's message: the message whose turn it belongs to, or the note that it is."""
    session_id, _, number = query.rpartition("-")
    if not session_id or not number.isascii() or not number.isdigit() or len(number) > LONGEST_NUMBER:
        return []
    row = connection.execute(
        "SELECT id, run_id, role FROM conversation_messages WHERE session_id = ? AND seq = ?", (session_id, int(number))
    ).fetchone()
    if row is None:
        return []
    row_id, run_id, role = row
    in_session = "id IN (SELECT inbound_id FROM conversation_runs WHERE run_id = ? AND session_id = ?)"
    found = [] if run_id is None else _messages(connection, in_session, (run_id, session_id))
    return found or [Found("note", row_id, query, f"message of the transcript {session_id}, by the {role}")]


def _swept(connection: sqlite3.Connection, query: str) -> list[Found]:
    channel, _, rest = query.partition(":")
    rows = connection.execute(
        "SELECT id, kind, channel, name, state FROM conversation_swept"
        " WHERE name = ? OR run_id = ? OR (name = ? AND channel = ?) ORDER BY id DESC LIMIT 1",
        (query, query, rest, channel),
    )
    return [
        Found("swept", row, query, f"{'message' if kind == 'inbound' else 'delivery'} {name} of {place}, {state}, no longer in the ledger")
        for row, kind, place, name, state in rows
    ]
