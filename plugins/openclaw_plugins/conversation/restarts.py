"""After a restart that was asked for: its session is told, once."""

from __future__ import annotations

import logging
import sqlite3
from typing import Final

from openclaw_kernel.api import GatewayError, InvalidRequest, Restarts, RestartSentinel, Target
from openclaw_plugins.conversation.durable import write_patiently
from openclaw_plugins.conversation.notes import Note, show_note, write_note
from openclaw_plugins.conversation.outbox_rows import Draft, Outgoing, insert
from openclaw_plugins.conversation.sessions import last_place
from openclaw_plugins.conversation.world import World

logger: Final = logging.getLogger(__name__)


async def tell_restarts(world: World) -> None:
    """Tell the sessions of the restarts that were asked for; where the store fails, they are told after the next start."""
    restarts = world.context.service(Restarts)

    def write(connection: sqlite3.Connection) -> list[tuple[Note | None, Outgoing | None]]:
        return [_tell(connection, world, sentinel) for sentinel in restarts.take(connection)]

    try:
        told = await write_patiently(world.store, write)
    except GatewayError as error:
        logger.warning("nobody is told of the restart yet: %s", error.message)
        return
    for note, outgoing in told:
        if note is not None:
            show_note(world, note, "restart")
        if outgoing is not None:
            world.outbox.dispatch(outgoing)


def _tell(connection: sqlite3.Connection, world: World, sentinel: RestartSentinel) -> tuple[Note | None, Outgoing | None]:
    now, text = world.now_ms(), restart_text(sentinel)
    note, target = None, sentinel.target
    key = _session_of(world, sentinel)
    if key is not None:
        note = write_note(connection, key, world.keys.agent(key), text, now)
        target = target or last_place(note.row)
    return note, None if target is None else _send(connection, target, text, now)


def _session_of(world: World, sentinel: RestartSentinel) -> str | None:
    if sentinel.session_key is None:
        return None
    try:
        return world.keys.canonical(sentinel.session_key)
    except InvalidRequest as error:
        logger.warning("a restart cannot be told to its session: %s", error.message)
        return None


def _send(connection: sqlite3.Connection, target: Target, text: str, now_ms: int) -> Outgoing:
    return insert(connection, Draft(target=target, text=text), now_ms)


def restart_text(sentinel: RestartSentinel) -> str:
    """Return what is told of a restart."""
    text = f"⚙️ The gateway has restarted ({sentinel.reason})."
    return f"{text}\n\n{sentinel.note}" if sentinel.note else text
