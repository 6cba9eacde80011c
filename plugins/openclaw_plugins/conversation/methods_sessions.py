"""The methods `sessions.*` that read."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

import orjson

from openclaw_kernel.api import Call, Encoded, InvalidRequest, Scope, rpc
from openclaw_plugins.conversation import sessions, transcript
from openclaw_plugins.conversation.chat_events import SESSIONS_TOPIC, session_topic
from openclaw_plugins.conversation.engine import Conversation
from openclaw_plugins.conversation.history import MOST_BYTES, fragments
from openclaw_plugins.conversation.session_list import SessionLister
from openclaw_plugins.conversation.session_rows import wire_row
from openclaw_plugins.conversation.sessions import COLUMNS, SessionRow
from openclaw_plugins.conversation.wire import (
    MessagesSubscribeParams,
    MessagesSubscribeResult,
    MessagesUnsubscribeParams,
    SessionReference,
    SessionsDescribeParams,
    SessionsDescribeResult,
    SessionsGetParams,
    SessionsGetResult,
    SessionsListParams,
    SessionsListResult,
    SessionsPreviewParams,
    SessionsPreviewResult,
    SessionsResolveParams,
    SessionsResolveResult,
    SubscribeResult,
)

MOST_PREVIEWS: Final = 64
MOST_CANDIDATES: Final = 10
PREVIEW_BYTES: Final = 256 << 10
_ROLES: Final = {"user": "user", "assistant": "assistant", "toolResult": "tool"}


class SessionMethods:
    """List, look up, look into and subscribe to sessions."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._lister: SessionLister | None = None

    @rpc("sessions.list", scope=Scope.READ, params=SessionsListParams, result=SessionsListResult)
    async def list(self, call: Call, params: SessionsListParams) -> SessionsListResult:
        """Return a page of sessions, the last changed first."""
        return await self._list(params)

    @rpc("sessions.subscribe", scope=Scope.READ, params=SessionsListParams, result=SubscribeResult)
    async def subscribe(self, call: Call, params: SessionsListParams) -> dict[str, Any]:
        """Begin to receive `sessions.changed`, `session.message` and `session.tool` of all sessions.

        With params, answer also with the list they ask for.
        """
        call.client.subscribe(SESSIONS_TOPIC)
        if not params.model_fields_set:
            return {"subscribed": True}
        return {"subscribed": True, "list": await self._list(params)}

    @rpc("sessions.unsubscribe", scope=Scope.READ, result=SubscribeResult, advertised=False)
    def unsubscribe(self, call: Call) -> dict[str, Any]:
        """Receive no more of what `sessions.subscribe` asked for."""
        call.client.unsubscribe(SESSIONS_TOPIC)
        return {"subscribed": False}

    @rpc(
        "sessions.messages.subscribe",
        scope=Scope.READ,
        params=MessagesSubscribeParams,
        result=MessagesSubscribeResult,
    )
    def subscribe_messages(self, call: Call, params: MessagesSubscribeParams) -> MessagesSubscribeResult:
        """Begin to receive `session.message` and `session.tool` of one session."""
        key = self._conversation.world.keys.canonical(params.key, params.agent_id)
        call.client.subscribe(session_topic(key))
        return {"subscribed": True, "key": key}

    @rpc(
        "sessions.messages.unsubscribe",
        scope=Scope.READ,
        params=MessagesUnsubscribeParams,
        result=MessagesSubscribeResult,
    )
    def unsubscribe_messages(self, call: Call, params: MessagesUnsubscribeParams) -> MessagesSubscribeResult:
        """Receive no more of one session."""
        key = self._conversation.world.keys.canonical(params.key, params.agent_id)
        call.client.unsubscribe(session_topic(key))
        return {"subscribed": False, "key": key}

    @rpc("sessions.get", scope=Scope.READ, params=SessionsGetParams, result=SessionsGetResult, advertised=False)
    async def get(self, call: Call, params: SessionsGetParams) -> Encoded:
        """Return the newest messages of a session, oldest first."""
        raw = params.key or params.session_key
        if raw is None:
            raise InvalidRequest("key: is missing; name a session")
        world = self._conversation.world
        row = await world.sessions.get(world.keys.canonical(raw, params.agent_id))
        if row is None:
            return Encoded(orjson.dumps({"messages": []}))
        session_id, limit = row.session_id, params.limit
        rows = await world.store.read(
            lambda connection: transcript.read_before(connection, session_id, None, limit=limit, max_bytes=MOST_BYTES)
        )
        return Encoded(orjson.dumps({"messages": fragments(session_id, rows, max_chars=None, room=MOST_BYTES)}))

    @rpc("sessions.describe", scope=Scope.READ, params=SessionsDescribeParams, result=SessionsDescribeResult)
    async def describe(self, call: Call, params: SessionsDescribeParams) -> SessionsDescribeResult:
        """Return one session's row, null where it does not exist."""
        world = self._conversation.world
        row = await world.sessions.get(world.keys.canonical(params.key, params.agent_id))
        if row is None:
            return {"session": None}
        (session,) = self._rows([row], titles=params.include_derived_titles, messages=params.include_last_message)
        return {"session": session}

    @rpc(
        "sessions.resolve",
        scope=Scope.READ,
        params=SessionsResolveParams,
        result=SessionsResolveResult,
        advertised=False,
    )
    async def resolve(self, call: Call, params: SessionsResolveParams) -> dict[str, Any]:
        """Find one session by key, session id, label, short id (the beginning of a session id) or any of them."""
        given = [name for name in ("key", "session_id", "label", "reference", "short_id") if getattr(params, name) is not None]
        if len(given) != 1:
            raise InvalidRequest("name a session by exactly one of key, sessionId, label, reference and shortId")
        world = self._conversation.world
        rows = await world.store.read(lambda connection: self._matches(connection, params))
        if len(rows) == 1:
            return {"ok": True, **self._candidate(rows[0])}
        named = getattr(params, given[0])
        value = str(named.key if isinstance(named, SessionReference) else named)[:120]
        candidates = [self._candidate(row) for row in rows[:MOST_CANDIDATES]]
        if params.allow_missing:
            return {"ok": False, **({"candidates": candidates} if candidates else {})}
        if rows:
            raise InvalidRequest(f"several sessions match {value!r}; name one by its key", details={"candidates": candidates})
        raise InvalidRequest(f"no session found: {value}")

    @rpc("sessions.preview", scope=Scope.READ, params=SessionsPreviewParams, result=SessionsPreviewResult)
    async def preview(self, call: Call, params: SessionsPreviewParams) -> SessionsPreviewResult:
        """Return the last texts of up to 64 sessions."""
        world = self._conversation.world
        rules = world.keys
        keys = [rules.canonical(key) for key in params.keys[:MOST_PREVIEWS]]
        asked = params.keys[:MOST_PREVIEWS]

        def read(connection: sqlite3.Connection) -> Sequence[dict[str, Any]]:
            return [
                {"key": shown, **_preview(connection, key, params.limit, params.max_chars)} for shown, key in zip(asked, keys, strict=True)
            ]

        return {"ts": world.now_ms(), "previews": [*await world.store.read(read)]}

    # --- helpers ------------------------------------------------------------------------------------------------------

    async def _list(self, params: SessionsListParams) -> SessionsListResult:
        world = self._conversation.world
        now = world.now_ms()
        try:
            agents = [info.id for info in world.runtime.agents()]
        except LookupError:
            agents = []
        lister = self._lister = self._lister or SessionLister(world.sessions)
        found = await world.store.read(lambda connection: lister.read(connection, params, agents=agents, now_ms=now))
        after = params.offset + len(found.rows)
        more = after < found.total
        agent = world.find_agent(world.keys.default_agent)
        provider, _, model = ((agent.model if agent is not None else None) or "").partition("/")
        return {
            "ts": now,
            "path": world.sessions.path,
            "count": len(found.rows),
            "totalCount": found.total,
            "limitApplied": found.limit,
            "nextOffset": after if more else None,
            "hasMore": more,
            "owners": [],
            "defaults": {
                "modelProvider": provider or None,
                "model": model or None,
                "contextTokens": agent.context_tokens if agent is not None else None,
            },
            "sessions": [*self._rows(found.rows, titles=params.include_derived_titles, messages=params.include_last_message)],
        }

    def _rows(self, rows: Sequence[SessionRow], *, titles: bool, messages: bool) -> Sequence[dict[str, Any]]:
        world = self._conversation.world
        rules = world.keys
        # What an agent is takes a look at the config and its files; once is enough for a page.
        agents = {agent_id: world.find_agent(agent_id) for agent_id in {row.agent_id for row in rows}}
        found = []
        for row in rows:
            wire = wire_row(row, agent=agents[row.agent_id], live=world.live_status(row.key), main=rules)
            if not titles:
                wire.pop("derivedTitle", None)
            if not messages:
                wire.pop("lastMessagePreview", None)
            found.append(wire)
        return found

    def _matches(self, connection: sqlite3.Connection, params: SessionsResolveParams) -> Sequence[SessionRow]:
        found: dict[str, SessionRow] = {}
        given = params.reference
        reference = None if isinstance(given, SessionReference) else given
        key = given.key if isinstance(given, SessionReference) else params.key or reference
        if key is not None:
            row = self._by_key(connection, key, params)
            if row is not None:
                found[row.key] = row
        for row in _lookup(
            connection,
            session_id=params.session_id or reference,
            label=params.label or reference,
            short_id=params.short_id or reference,
        ):
            found[row.key] = row
        return [row for row in found.values() if self._wanted(row, params)]

    def _by_key(self, connection: sqlite3.Connection, key: str, params: SessionsResolveParams) -> SessionRow | None:
        rules = self._conversation.world.keys
        try:
            return sessions.find(connection, rules.canonical(key, params.agent_id))
        except InvalidRequest:
            if params.key is not None:
                raise
            return None

    def _wanted(self, row: SessionRow, params: SessionsResolveParams) -> bool:
        if params.agent_id is not None and row.agent_id != params.agent_id.strip().lower():
            return False
        if params.spawned_by is not None and row.spawned_by != params.spawned_by:
            return False
        return {"global": params.include_global, "unknown": params.include_unknown}.get(row.kind, True)

    def _candidate(self, row: SessionRow) -> dict[str, Any]:
        name = row.display_name or row.label or row.title
        return {"key": row.key, "agentId": row.agent_id, **({"displayName": name} if name else {})}


_BY_LABEL: Final = f"SELECT {COLUMNS} FROM conversation_sessions WHERE label = ? LIMIT 20"  # noqa: S608 - the columns of the table
_BY_ID: Final = f"SELECT {COLUMNS} FROM conversation_sessions WHERE session_id = ? LIMIT 20"  # noqa: S608 - the columns of the table
_BY_SHORT_ID: Final = f"SELECT {COLUMNS} FROM conversation_sessions WHERE session_id >= ? AND session_id < ? LIMIT 20"  # noqa: S608 - the columns of the table


def _lookup(connection: sqlite3.Connection, *, session_id: str | None, label: str | None, short_id: str | None) -> list[SessionRow]:
    rows: list[Any] = []
    if session_id is not None:
        rows += connection.execute(_BY_ID, (session_id,))
    if label is not None:
        rows += connection.execute(_BY_LABEL, (label,))
    if short_id is not None:
        prefix = short_id.lower()
        rows += connection.execute(_BY_SHORT_ID, (prefix, prefix + "\U0010ffff"))
    return [SessionRow(*row) for row in rows]


def _preview(connection: sqlite3.Connection, key: str, limit: int, max_chars: int) -> dict[str, Any]:
    row = sessions.find(connection, key)
    if row is None:
        return {"status": "missing", "items": []}
    stored = transcript.read_before(connection, row.session_id, None, limit=min(limit * 2, 200), max_bytes=PREVIEW_BYTES)
    items = []
    for message in stored:
        body = orjson.loads(message.body)
        text = sessions.shorten(transcript.text_of_body(body), max_chars)
        if text:
            items.append({"role": _ROLES[body["role"]], "text": text})
    return {"status": "ok" if items else "empty", "items": items[-limit:]}
