"""State folders with a long past: written with the gateway's own tables, then measured through the gateway."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.bench.processes import config, gateway

MESSAGE_BYTES = 4096
MESSAGES_A_SESSION = 200
AGENT = "main"
NOW_MS = int(time.time() * 1000)

_SESSION = (
    "INSERT INTO conversation_sessions (key, agent_id, session_id, kind, chat_type, created_ms, updated_ms, interaction_ms, title,"
    " preview, status) VALUES (?, ?, ?, 'direct', 'direct', ?, ?, ?, ?, ?, 'done')"
)
_TRANSCRIPT = "INSERT INTO conversation_transcripts (session_id, session_key, agent_id, created_ms) VALUES (?, ?, ?, ?)"
_MESSAGE = "INSERT INTO conversation_messages (session_id, seq, role, run_id, created_ms, size, body) VALUES (?, ?, ?, ?, ?, ?, ?)"
_INBOUND = (
    "INSERT INTO conversation_inbound (channel, account_id, message_id, received_ms, updated_ms, state, agent_id, session_key, run_id,"
    " body) VALUES ('telegram', 'default', ?, ?, ?, 'answered', ?, ?, ?, '{}')"
)


async def with_past(home: Path, *, sessions: int, total_bytes: int) -> Path:
    """Make a state folder that holds so many sessions and so many bytes of messages; return its database."""
    async with gateway(home, config()):
        pass
    database = home / "state.sqlite3"
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA synchronous = OFF")
    with connection:
        keys = [(f"agent:{AGENT}:past-{number}", str(uuid.uuid4())) for number in range(sessions)]
        connection.executemany(
            _SESSION,
            (
                (key, AGENT, name, at, at, at, f"About thing {at}", "And so it ended.")
                for at, (key, name) in enumerate(keys, NOW_MS - sessions)
            ),
        )
        connection.executemany(_TRANSCRIPT, ((name, key, AGENT, NOW_MS) for key, name in keys))
        connection.executemany(_MESSAGE, _messages(keys, total_bytes // MESSAGE_BYTES))
        connection.executemany(_INBOUND, ((str(uuid.uuid4()), NOW_MS, NOW_MS, AGENT, key, str(uuid.uuid4())) for key, _ in keys))
    connection.close()
    return database


def _messages(keys: list[tuple[str, str]], count: int) -> Iterator[tuple[object, ...]]:
    filler = "word " * ((MESSAGE_BYTES - 120) // 5)
    for number in range(count):
        _, session_id = keys[(number // MESSAGES_A_SESSION) % len(keys)]
        role = "user" if number % 2 == 0 else "assistant"
        body = json.dumps({"role": role, "content": [{"type": "text", "text": filler}], "timestamp": NOW_MS})
        yield (session_id, number + 1, role, None, NOW_MS, len(body), body)
