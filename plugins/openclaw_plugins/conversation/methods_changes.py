"""The methods `sessions.*` that change a session: patch, abort, reset and delete."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

import orjson

from openclaw_kernel.api import (
    AuditAction,
    AuditEntry,
    AuditLog,
    AuditOrigin,
    Call,
    Idempotency,
    InvalidRequest,
    Scope,
    origin_of,
    rpc,
    state_digest,
)
from openclaw_plugins.conversation import sessions
from openclaw_plugins.conversation.chat_events import DELETED
from openclaw_plugins.conversation.engine import Conversation
from openclaw_plugins.conversation.requests import thinking_level
from openclaw_plugins.conversation.session_rows import resolved_model
from openclaw_plugins.conversation.sessions import SessionRow
from openclaw_plugins.conversation.submissions import message_id_of
from openclaw_plugins.conversation.wire import (
    SessionsAbortParams,
    SessionsAbortResult,
    SessionsDeleteParams,
    SessionsDeleteResult,
    SessionsPatchParams,
    SessionsPatchResult,
    SessionsResetParams,
    SessionsResetResult,
)

DELETED_AT_ONCE: Final = 1000
MOST_SETTINGS: Final = 32 << 10
"""Bytes; each list and each change of a session carries them."""
_ADDRESS: Final = frozenset(
    {
        "key",
        "agent_id",
        "expected_session_id",
        "expected_lifecycle_revision",
        "expected_permission_mode",
        "expected_tool_overrides",
        "expected_marked_unread_at",
    }
)
_WRITERS: Final = frozenset(
    {
        "label",
        "category",
        "icon",
        "color",
        "pinned",
        "archived",
        "unread",
        "model",
        "thinking_level",
        "fast_mode",
        "permission_mode",
    }
)
_COLUMNS: Final = frozenset({"label", "archived", "pinned", "model", "thinking_level"})


def patch_scopes(params: SessionsPatchParams) -> Iterable[Scope]:
    """Ask for the admin scope where more is changed than a writer may."""
    changed = params.model_fields_set - _ADDRESS
    return (Scope.ADMIN,) if not changed <= _WRITERS or params.permission_mode == "full" else ()


def _deleted(row: SessionRow, origin: AuditOrigin, *, transcript: bool) -> AuditEntry:
    return AuditEntry(
        action=AuditAction.SESSION_DELETED,
        origin=origin,
        subject=f"session:{row.key}",
        before=state_digest({"key": row.key, "sessionId": row.session_id}),
        details={"sessionId": row.session_id, "transcriptDeleted": transcript},
    )


def delete_scopes(params: SessionsDeleteParams) -> Iterable[Scope]:
    """Ask for the admin scope except for what is archived already."""
    return () if params.archived_only else (Scope.ADMIN,)


class SessionChanges:
    """`sessions.patch`, `sessions.abort`, `sessions.reset` and `sessions.delete`."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    @rpc(
        "sessions.patch",
        scope=Scope.WRITE,
        params=SessionsPatchParams,
        result=SessionsPatchResult,
        requires=patch_scopes,
        repeatable="the same settings again change nothing",
    )
    async def patch(self, call: Call, params: SessionsPatchParams) -> SessionsPatchResult:
        """Change settings of a session; null clears one, what is left out stays."""
        return await self._conversation.world.complete("patch a session", self._patch(params))

    async def _patch(self, params: SessionsPatchParams) -> SessionsPatchResult:
        world = self._conversation.world
        key = world.keys.canonical(params.key, params.agent_id)
        await self._conversation.require_place(key)
        changed = params.model_fields_set - _ADDRESS
        columns = {name: getattr(params, name) for name in changed & _COLUMNS}
        for flag in ("archived", "pinned"):
            if flag in columns:
                columns[flag] = int(bool(columns[flag]))
        if params.model is not None:
            columns["model"] = self._conversation.known_model(params.model)
        if params.thinking_level is not None:
            columns["thinking_level"] = thinking_level(params.thinking_level)
        wire = params.model_dump(mode="json", by_alias=True, include=changed - _COLUMNS)
        now = world.now_ms()
        if "archived" in columns:
            wire["archivedAt"] = now if columns["archived"] else None
        agent_id = world.keys.agent(key)

        def write(connection: sqlite3.Connection) -> tuple[SessionRow, bool]:
            row, created = sessions.find_or_create(connection, key, agent_id, now)
            _guard(row, params.expected_session_id, None)
            _guard_settings(row, params)
            if params.label is not None:
                _free_label(connection, params.label, key)
            settings = {name: value for name, value in {**row.extra(), **wire}.items() if value is not None}
            kept = orjson.dumps(settings).decode()
            if len(kept) > MOST_SETTINGS:
                raise InvalidRequest(f"the settings of {key} would have {len(kept)} bytes; keep them under {MOST_SETTINGS}")
            row = sessions.changed(row, settings=kept, updated_ms=now, **columns)
            return sessions.save(connection, row), created

        row, created = await world.store.write(write)
        world.sessions.put(row, created=created)
        world.changed(row, "patch")
        return {
            "ok": True,
            "path": world.sessions.path,
            "key": key,
            "entry": world.wire_row(row),
            "resolved": resolved_model(row, world.find_agent(row.agent_id)),
        }

    @rpc(
        "sessions.abort",
        scope=Scope.WRITE,
        params=SessionsAbortParams,
        result=SessionsAbortResult,
        repeatable="what is stopped stays stopped",
        while_draining=True,
    )
    async def abort(self, call: Call, params: SessionsAbortParams) -> SessionsAbortResult:
        """Stop a session's running turn, or the run that is named; with `clearQueued` drop what waits too.

        A run id alone is enough; its session need not be named.
        """
        conversation = self._conversation
        if params.key is None and params.run_id is None:
            raise InvalidRequest("key: is missing; name a session, or a run by runId")
        board = conversation.world.board
        own = None if params.run_id is None else message_id_of(call.client, params.run_id)
        run = None if params.run_id is None else board.find(params.run_id, own)
        if params.key is not None:
            key = conversation.world.keys.canonical(params.key, params.agent_id)
            if run is not None and board.find(run.run_id, own, key) is None:
                raise InvalidRequest(f"runId: {run.run_id[:80]} does not belong to the session {key}")
        elif run is not None:
            key = run.session_key
        else:
            return _aborted([], None)
        # One that was broken off for the next process has no lane any more.
        running = conversation.lanes.running(key) or next((run for run in board.of_session(key) if run.is_left), None)
        target = params.run_id or (running.run_id if running is not None else None)
        if target is None and not params.clear_queued:
            return _aborted([], None)
        return _aborted(await conversation.abort(key, target, message_id=own, waiting=bool(params.clear_queued)), target)

    @rpc(
        "sessions.reset",
        scope=Scope.ADMIN,
        params=SessionsResetParams,
        result=SessionsResetResult,
        idempotency=Idempotency.JOIN,
    )
    async def reset(self, call: Call, params: SessionsResetParams) -> SessionsResetResult:
        """Stop what runs and begin an empty transcript; the old one stays under its old session id."""
        key = self._conversation.world.keys.canonical(params.key, params.agent_id)
        row = await self._conversation.reset(key)
        world = self._conversation.world
        resolved = resolved_model(row, world.find_agent(row.agent_id))
        return {"ok": True, "key": key, "entry": world.wire_row(row), "resolved": resolved}

    @rpc(
        "sessions.delete",
        scope=Scope.WRITE,
        params=SessionsDeleteParams,
        result=SessionsDeleteResult,
        requires=delete_scopes,
        idempotency=Idempotency.JOIN,
    )
    async def delete(self, call: Call, params: SessionsDeleteParams) -> SessionsDeleteResult:
        """Stop what runs and delete a session; its transcripts too, unless `deleteTranscript` is false."""
        return await self._conversation.world.complete("delete a session", self._delete(params, origin_of(call)))

    async def _delete(self, params: SessionsDeleteParams, origin: AuditOrigin) -> SessionsDeleteResult:
        world = self._conversation.world
        key = world.keys.canonical(params.key, params.agent_id)
        if world.keys.is_main(key):
            raise InvalidRequest(f"the main session {key} cannot be deleted; reset it instead")
        row = await world.sessions.get(key)
        if row is None or (params.archived_only and not row.archived):
            return {"ok": True, "key": key, "deleted": False, "archived": []}
        _guard(row, params.expected_session_id, params.expected_session_updated_at)
        await self._conversation.abort_and_wait(key)
        audit = world.context.service(AuditLog)

        def write(connection: sqlite3.Connection) -> SessionRow | None:
            found = sessions.find(connection, key)
            if found is not None:
                connection.execute("DELETE FROM conversation_sessions WHERE key = ?", (key,))
                connection.execute(
                    "UPDATE conversation_transcripts SET ended_ms = ? WHERE session_id = ?",
                    (world.now_ms(), found.session_id),
                )
                audit.append(connection, _deleted(found, origin, transcript=params.delete_transcript))
            return found

        gone = await world.store.write(write)
        if gone is None:
            return {"ok": True, "key": key, "deleted": False, "archived": []}
        world.sessions.remove(gone)
        world.transcript.forget(gone.session_id)
        archived = [] if params.delete_transcript else [gone.session_id]
        if params.delete_transcript:
            await self._delete_transcripts(key)
        world.changed(gone, DELETED)
        return {"ok": True, "key": key, "deleted": True, "archived": archived}

    async def _delete_transcripts(self, key: str) -> None:
        """Delete a session's messages, a bounded number in each write, so that nobody waits long for the next one."""

        def step(connection: sqlite3.Connection) -> bool:
            gone = connection.execute(
                "DELETE FROM conversation_messages WHERE id IN (SELECT id FROM conversation_messages WHERE session_id IN"
                " (SELECT session_id FROM conversation_transcripts WHERE session_key = ?1 AND ended_ms IS NOT NULL)"
                " LIMIT ?2)",
                (key, DELETED_AT_ONCE),
            ).rowcount
            if gone == DELETED_AT_ONCE:
                return True
            connection.execute("DELETE FROM conversation_transcripts WHERE session_key = ? AND ended_ms IS NOT NULL", (key,))
            return False

        while await self._conversation.world.store.write(step):
            pass


def _aborted(stopped: list[str], target: str | None) -> SessionsAbortResult:
    aborted = target if target in stopped else None
    return {"ok": True, "status": "no-active-run" if aborted is None else "aborted", "abortedRunId": aborted, "runIds": stopped}


def _guard(row: SessionRow, session_id: str | None, updated_at: float | None) -> None:
    if session_id is not None and row.session_id != session_id:
        raise InvalidRequest(
            f"expectedSessionId: {row.key} has another session id by now; read it again",
            details={"reason": "session-changed"},
        )
    if updated_at is not None and row.updated_ms != updated_at:
        raise InvalidRequest(
            f"expectedSessionUpdatedAt: {row.key} was changed since; read it again",
            details={"reason": "session-changed"},
        )


def _guard_settings(row: SessionRow, params: SessionsPatchParams) -> None:
    kept = row.extra()
    for field, name in (
        ("expected_permission_mode", "permissionMode"),
        ("expected_tool_overrides", "toolOverrides"),
        ("expected_marked_unread_at", "markedUnreadAt"),
    ):
        if field in params.model_fields_set and getattr(params, field) != kept.get(name):
            raise InvalidRequest(f"{name} of {row.key} is not what was expected; read it again", details={"reason": "session-changed"})


def _free_label(connection: sqlite3.Connection, label: str, key: str) -> None:
    taken = connection.execute("SELECT key FROM conversation_sessions WHERE label = ? AND key <> ? LIMIT 1", (label, key)).fetchone()
    if taken is not None:
        raise InvalidRequest(f"label: {label!r} is used by {taken[0]}; choose another one")
