"""Sessions of another gateway, taken up in small writes while the gateway serves: what was cut off goes on where it was."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from openclaw_kernel.api import AssistantMessage, Message, Text, UserMessage, message_from_json
from openclaw_kernel.api.imports import ImportedSession, mark_done, read_session, waiting
from openclaw_plugins.conversation import transcript
from openclaw_plugins.conversation.keys import chat_type_of, kind_of
from openclaw_plugins.conversation.sessions import PREVIEW_CHARACTERS, TITLE_CHARACTERS, SessionRow, find, save, shorten
from openclaw_plugins.conversation.world import World

logger: Final = logging.getLogger(__name__)

BATCH: Final = 100


async def take_up(world: World) -> int:
    """Take up every session that waits; return how many. One that cannot be read is told, and harms no other."""
    count = 0
    for path in await asyncio.to_thread(waiting, world.context.home):
        try:
            await _take(world, path)
            count += 1
        except (ValueError, KeyError, TypeError, OSError) as error:
            logger.warning("an imported session is not taken up: %s: %s", path, error)
    if count:
        logger.info("%d imported sessions were taken up", count)
    return count


async def _take(world: World, path: Path) -> None:
    session, messages = await asyncio.to_thread(read_session, path)
    there = await world.store.write(lambda connection: _open(connection, session))
    title: str | None = None
    preview: str | None = None
    skipped = 0
    while batch := await asyncio.to_thread(_next, messages):
        for message in batch:
            title = title or _text(message, UserMessage, TITLE_CHARACTERS)
            preview = _text(message, AssistantMessage, PREVIEW_CHARACTERS) or preview
        fresh = batch[max(0, there - skipped) :]
        skipped += len(batch)
        if fresh:
            await world.store.write(lambda connection, fresh=fresh: _append(connection, session, fresh))  # type: ignore[misc]  # bound now
    row = await world.store.write(lambda connection: _close(connection, session, title, preview))
    if row is not None:
        world.sessions.put(row, created=True)
    await asyncio.to_thread(mark_done, path)


def _next(messages: Iterator[dict[str, Any]]) -> list[Message]:
    return [message_from_json(wire) for wire in islice(messages, BATCH)]


def _open(connection: sqlite3.Connection, session: ImportedSession) -> int:
    """Make its transcript, which belongs to no session yet; return how many messages are in it already."""
    connection.execute(
        "INSERT INTO conversation_transcripts (session_id, session_key, agent_id, created_ms, ended_ms) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (session_id) DO NOTHING",
        (session.session_id, session.key, session.agent_id, session.created_ms, session.updated_ms),
    )
    return transcript.last_seq(connection, session.session_id)


def _append(connection: sqlite3.Connection, session: ImportedSession, messages: list[Message]) -> None:
    transcript.append(connection, session.session_id, messages, run_id=None, now_ms=session.updated_ms)


def _close(connection: sqlite3.Connection, session: ImportedSession, title: str | None, preview: str | None) -> SessionRow | None:
    """Make it the session of its key, now that it is whole; None where somebody has one there already, who keeps it."""
    if not session.current or find(connection, session.key) is not None:
        return None
    connection.execute("UPDATE conversation_transcripts SET ended_ms = NULL WHERE session_id = ?", (session.session_id,))
    row = SessionRow(
        session.key,
        session.agent_id,
        session.session_id,
        kind_of(session.key),
        chat_type_of(session.key),
        session.created_ms,
        session.updated_ms,
        label=session.label,
        display_name=session.display_name,
        title=title,
        preview=preview,
        channel=session.channel,
        account_id=session.account_id,
    )
    return save(connection, row)


def _text(message: Message, kind: type[UserMessage | AssistantMessage], characters: int) -> str | None:
    if not isinstance(message, kind):
        return None
    return shorten("".join(part.text for part in message.content if isinstance(part, Text)), characters) or None
