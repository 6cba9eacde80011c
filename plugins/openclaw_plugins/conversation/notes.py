"""Notes of the gateway in a transcript: written by nobody's turn, seen by who reads along."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace

from openclaw_kernel.api import AssistantMessage, Text
from openclaw_plugins.conversation import sessions, transcript
from openclaw_plugins.conversation.sessions import PREVIEW_CHARACTERS, SessionRow, shorten
from openclaw_plugins.conversation.transcript import Entry
from openclaw_plugins.conversation.world import World


@dataclass(frozen=True, slots=True)
class Note:
    """A note that is written: its message, and the session it is in."""

    row: SessionRow
    created: bool
    entry: Entry


def write_note(connection: sqlite3.Connection, key: str, agent_id: str, text: str, now_ms: int) -> Note:
    """Append a text to a transcript as the agent's, inside a write; hand the result to `show_note` once it is on disk."""
    message = AssistantMessage(content=(Text(text),), timestamp_ms=now_ms, provider="openclaw", model="gateway-injected")
    row, created = sessions.find_or_create(connection, key, agent_id, now_ms)
    (entry,) = transcript.append(connection, row.session_id, (message,), run_id=None, now_ms=now_ms)
    row = replace(row, updated_ms=now_ms, preview=shorten(text, PREVIEW_CHARACTERS))
    return Note(sessions.save(connection, row), created, entry)


def show_note(world: World, note: Note, reason: str) -> None:
    """Tell the subscribers of a note."""
    row = note.row
    world.sessions.put(row, created=note.created)
    world.transcript.committed((note.entry,))
    world.session_events.message(None, row.key, row.agent_id, note.entry.to_wire())
    world.changed(row, "created" if note.created else reason)
