"""What could not be answered or delivered: seen, given a new beginning, or forgotten, by a person."""

from __future__ import annotations

import sqlite3
import uuid
from base64 import b64decode
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import orjson

from openclaw_kernel.api import Attachment, InvalidRequest
from openclaw_plugins.conversation import ledger, outbox_rows
from openclaw_plugins.conversation.finding import Found, find, ledger_id
from openclaw_plugins.conversation.intake import Intake
from openclaw_plugins.conversation.why import TEXT_CHARACTERS
from openclaw_plugins.conversation.world import World

Action: TypeAlias = Literal["retry", "forget"]

MOST_INTERVENTIONS: Final = 20
MOST_NAMED: Final = 5
SHORT_REASON: Final = 500
_DEAD_MESSAGE: Final = "state = 'dead_lettered' AND forgotten_ms IS NULL"
_DEAD_DELIVERY: Final = "state IN ('unknown_after_send', 'failed', 'dead_lettered') AND forgotten_ms IS NULL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What became of one of the dead. `changed` is False where somebody did the same before."""

    found: Found
    state: str
    changed: bool
    run_id: str | None = None
    inbound: ledger.Inbound | None = None
    outgoing: outbox_rows.Outgoing | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as clients get it."""
        wire = {"ok": True, "id": self.found.id, "kind": self.found.kind, "state": self.state, "changed": self.changed}
        return wire if self.run_id is None else {**wire, "runId": self.run_id}


class DeadLetters:
    """Changes what has ended badly; each change is on disk before it is answered, and two at once are one."""

    def __init__(self, world: World, intake: Intake) -> None:
        self._world = world
        self._intake = intake

    async def retry(self, query: str, by: str) -> Changed:
        """Offer a delivery to its channel again, or give a message a new turn; raise `InvalidRequest` where that cannot be."""
        return await self._world.complete("retry one of the dead", self._retry(query, by))

    async def forget(self, query: str, by: str) -> Changed:
        """Take one off the list, and with it the chance of a retry; its way stays in the ledger."""
        now = self._world.now_ms()
        return await self._world.store.write(lambda connection: _forget(connection, chosen(connection, query), by, now))

    async def _retry(self, query: str, by: str) -> Changed:
        now = self._world.now_ms()
        changed = await self._world.store.write(lambda connection: _retry(connection, chosen(connection, query), by, now))
        # No wait from here on: what is on disk as open must be in hand.
        if changed.outgoing is not None:
            self._world.outbox.dispatch(changed.outgoing)
        if changed.inbound is not None:
            self._intake.take_again(changed.inbound)
        return changed


def list_dead(connection: sqlite3.Connection, *, kind: Literal["message", "delivery"] | None, limit: int) -> dict[str, Any]:
    """Return the dead that nobody has forgotten, the newest first, and how many there are."""
    items: list[dict[str, Any]] = []
    total = 0
    if kind != "delivery":
        total += connection.execute(f"SELECT count(*) FROM conversation_inbound WHERE {_DEAD_MESSAGE}").fetchone()[0]  # noqa: S608 - columns and conditions are words of this file
        rows = connection.execute(
            "SELECT id, channel, account_id, message_id, run_id, session_key, state, reason, updated_ms, body"  # noqa: S608 - columns and conditions are words of this file
            f" FROM conversation_inbound WHERE {_DEAD_MESSAGE} ORDER BY updated_ms DESC LIMIT ?",
            (limit,),
        )
        items += [_message_item(*row) for row in rows]
    if kind != "message":
        total += connection.execute(f"SELECT count(*) FROM conversation_outbox WHERE {_DEAD_DELIVERY}").fetchone()[0]  # noqa: S608 - columns and conditions are words of this file
        rows = connection.execute(
            "SELECT outbox_id, channel, account_id, peer_id, run_id, text, state, error, attempts, updated_ms"  # noqa: S608 - columns and conditions are words of this file
            f" FROM conversation_outbox WHERE {_DEAD_DELIVERY} ORDER BY updated_ms DESC LIMIT ?",
            (limit,),
        )
        items += [_delivery_item(*row) for row in rows]
    items.sort(key=lambda item: int(item["endedMs"]), reverse=True)
    return {"items": items[:limit], "total": total}


def _message_item(  # noqa: PLR0917 - the columns of the row
    row_id: int,
    channel: str,
    account_id: str,
    message_id: str,
    run_id: str | None,
    session_key: str | None,
    state: str,
    reason: str | None,
    ended_ms: int,
    body: str,
) -> dict[str, Any]:
    try:
        message, _ = ledger.decode(body, channel, account_id, message_id)
        text, peer = message.text, message.sender_name or message.sender_id
    except (ValueError, KeyError, TypeError):
        text, peer = "", ""
    return {
        "id": ledger_id(row_id),
        "kind": "message",
        "state": state,
        "reason": reason,
        "channel": channel,
        "accountId": account_id,
        "peer": peer,
        "runId": run_id,
        "sessionKey": session_key,
        "endedMs": ended_ms,
        "text": text[:TEXT_CHARACTERS],
        "textShortened": len(text) > TEXT_CHARACTERS,
    }


def _delivery_item(  # noqa: PLR0917 - the columns of the row
    outbox_id: str,
    channel: str,
    account_id: str,
    peer: str,
    run_id: str | None,
    text: str,
    state: str,
    error: str | None,
    attempts: int,
    ended_ms: int,
) -> dict[str, Any]:
    return {
        "id": outbox_id,
        "kind": "delivery",
        "state": state,
        "reason": error,
        "channel": channel,
        "accountId": account_id,
        "peer": peer,
        "runId": run_id,
        "attempts": attempts,
        "endedMs": ended_ms,
        "text": text[:TEXT_CHARACTERS],
        "textShortened": len(text) > TEXT_CHARACTERS,
    }


def chosen(connection: sqlite3.Connection, query: str) -> Found:
    """Return the one message or delivery that is meant: of a message that was answered, its one delivery that is dead.

    Raise `InvalidRequest` for an id that is unknown or means several.
    """
    found = [one for one in find(connection, query) if one.kind in ("message", "delivery")]
    if not found:
        raise InvalidRequest(
            f"id: there is no message or delivery {query[:80]!r}; openclaw-kernel dead list shows what there is",
            details={"code": "UNKNOWN_ID"},
        )
    if len(found) > 1:
        raise ambiguous(query, found)
    (one,) = found
    if one.kind == "delivery" or _state(connection, one)[0] == "dead_lettered":
        return one
    deliveries = connection.execute(
        f"SELECT id, outbox_id FROM conversation_outbox WHERE inbound_id = ? AND {_DEAD_DELIVERY}",  # noqa: S608 - columns and conditions are words of this file
        (one.row,),
    ).fetchall()
    dead = [Found("delivery", row_id, outbox_id, "a delivery of this message") for row_id, outbox_id in deliveries]
    if len(dead) > 1:
        raise ambiguous(query, dead)
    return dead[0] if dead else one


def ambiguous(query: str, found: list[Found]) -> InvalidRequest:
    """Return the error that names what an id can mean."""
    named = "; ".join(f"{one.id} ({one.about})" for one in found[:MOST_NAMED])
    more = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return InvalidRequest(
        f"id: {query[:80]!r} can mean {len(found)} things; name one: {named}{more}",
        details={"code": "AMBIGUOUS_ID", "candidates": [one.to_json() for one in found]},
    )


def _retry(connection: sqlite3.Connection, found: Found, by: str, now_ms: int) -> Changed:
    if not _may_change(connection, found, "retry"):
        return Changed(found=found, state=_state(connection, found)[0], changed=False)
    _note(connection, found, "retry", by, now_ms)
    if found.kind == "delivery":
        outgoing = outbox_rows.revive(connection, found.row, now_ms)
        return Changed(found=found, state="prepared", changed=True, run_id=outgoing.run_id, outgoing=outgoing)
    # A run id of its own: what the first turn did must not be taken for what this one has done.
    run_id = str(uuid.uuid4())
    _keep_files(connection, found.row)
    ledger.reopen(connection, found.row, run_id, now_ms)
    try:
        entry = ledger.read(connection, found.row)
    except (ValueError, KeyError, TypeError):
        raise InvalidRequest(f"id: the message {found.id} cannot be read back; openclaw-kernel dead forget {found.id}") from None
    return Changed(found=found, state="accepted", changed=True, run_id=run_id, inbound=entry)


def _forget(connection: sqlite3.Connection, found: Found, by: str, now_ms: int) -> Changed:
    state, _ = _state(connection, found)
    if not _may_change(connection, found, "forget"):
        return Changed(found=found, state=state, changed=False)
    _note(connection, found, "forget", by, now_ms)
    owner = _owner(found)
    connection.execute(f"UPDATE conversation_{owner} SET forgotten_ms = ? WHERE id = ?", (now_ms, found.row))  # noqa: S608 - columns and conditions are words of this file
    ledger.drop_attachments(connection, owner, found.row)
    return Changed(found=found, state=state, changed=True)


def _may_change(connection: sqlite3.Connection, found: Found, action: Action) -> bool:
    """Tell whether one is dead; False where the same was done to it before. Raise `InvalidRequest` for the rest."""
    condition = _DEAD_DELIVERY if found.kind == "delivery" else _DEAD_MESSAGE
    row = connection.execute(
        f"SELECT {condition}, forgotten_ms FROM conversation_{_owner(found)} WHERE id = ?",  # noqa: S608 - columns and conditions are words of this file
        (found.row,),
    ).fetchone()
    is_dead, forgotten_ms = row
    if is_dead:
        return True
    if forgotten_ms is not None:
        if action == "forget":
            return False
        raise InvalidRequest(f"id: {found.id} was forgotten, and its files with it; send the message anew")
    before = connection.execute(
        "SELECT 1 FROM conversation_interventions WHERE owner = ? AND owner_id = ? AND action = ?", (_owner(found), found.row, action)
    ).fetchone()
    if before is None:
        state = _state(connection, found)[0]
        raise InvalidRequest(f"id: the {found.kind} {found.id} is {state}; only what is dead can be retried or forgotten")
    return False


def _note(connection: sqlite3.Connection, found: Found, action: Action, by: str, now_ms: int) -> None:
    """Keep how it had ended, for the change is about to replace that."""
    owner = _owner(found)
    state, reason = _state(connection, found)
    connection.execute(
        "INSERT INTO conversation_interventions (owner, owner_id, at_ms, action, by, state, reason) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (owner, found.row, now_ms, action, by, state, None if reason is None else reason[:SHORT_REASON]),
    )
    connection.execute(
        "DELETE FROM conversation_interventions WHERE owner = ? AND owner_id = ? AND id NOT IN"
        " (SELECT id FROM conversation_interventions WHERE owner = ? AND owner_id = ? ORDER BY id DESC LIMIT ?)",
        (owner, found.row, owner, found.row, MOST_INTERVENTIONS),
    )


def _state(connection: sqlite3.Connection, found: Found) -> tuple[str, str | None]:
    column = "error" if found.kind == "delivery" else "reason"
    state, reason = connection.execute(
        f"SELECT state, {column} FROM conversation_{_owner(found)} WHERE id = ?",  # noqa: S608 - columns and conditions are words of this file
        (found.row,),
    ).fetchone()
    return state, reason


def _owner(found: Found) -> Literal["inbound", "outbox"]:
    return "outbox" if found.kind == "delivery" else "inbound"


def _keep_files(connection: sqlite3.Connection, row_id: int) -> None:
    """Give a message its files back that went into the transcript when its last turn began."""
    if ledger.read_attachments(connection, "inbound", row_id):
        return
    row = connection.execute(
        "SELECT messages.body FROM conversation_runs AS runs JOIN conversation_messages AS messages"
        " ON messages.session_id = runs.session_id AND messages.run_id = runs.run_id AND messages.role = 'user'"
        " WHERE runs.inbound_id = ? ORDER BY runs.id DESC, messages.seq LIMIT 1",
        (row_id,),
    ).fetchone()
    if row is None:
        return
    parts = [part for part in orjson.loads(row[0]).get("content", ()) if part.get("type") in ("image", "file")]
    ledger.keep_attachments(connection, "inbound", row_id, [_attachment(part) for part in parts])


def _attachment(part: dict[str, Any]) -> Attachment:
    is_image = part["type"] == "image"
    content = b64decode(part["data"]) if is_image else part.get("text", "").encode()
    # A file whose text was not kept is named to the model without it, as it was the first time.
    mime_type = part["mimeType"] if is_image or "text" in part else "application/octet-stream"
    return Attachment(kind="image" if is_image else "file", mime_type=mime_type, file_name=part.get("fileName", ""), content=content)
