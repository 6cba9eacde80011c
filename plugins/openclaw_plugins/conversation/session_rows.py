"""A session as `sessions.list` and the events show it."""

from __future__ import annotations

from typing import Any, Final

from openclaw_kernel.api import AgentInfo
from openclaw_plugins.conversation.keys import KeyRules
from openclaw_plugins.conversation.sessions import SessionRow

STATUSES: Final = {"ok": "done", "error": "failed", "timeout": "timeout", "aborted": "killed", "interrupted": "failed"}


def split_model(ref: str | None) -> tuple[str | None, str | None]:
    """Return provider and model of a reference."""
    if not ref:
        return None, None
    provider, slash, model = ref.partition("/")
    return (provider, model) if slash else (None, ref)


def wire_row(row: SessionRow, *, agent: AgentInfo | None, live: str | None, main: KeyRules) -> dict[str, Any]:
    """Return the row; what is not known is left out. `live` is the status of work that goes on."""
    provider, model = split_model(row.model or row.run_model or (agent.model if agent is not None else None))
    wire: dict[str, Any] = {
        "key": row.key,
        "sessionId": row.session_id,
        "kind": row.kind,
        "agentId": row.agent_id,
        "chatType": row.chat_type,
        "createdAt": row.created_ms,
        "updatedAt": row.updated_ms,
        "isMain": main.is_main(row.key),
        "archived": bool(row.archived),
        "pinned": bool(row.pinned),
        "unread": False,
        **row.extra(),
    }
    optional = {
        "label": row.label,
        "displayName": row.display_name or row.label or row.title,
        "derivedTitle": row.title,
        "lastMessagePreview": row.preview,
        "channel": row.channel,
        "accountId": row.account_id,
        "peerKind": row.peer_kind,
        "lastInteractionAt": row.interaction_ms,
        "lastActivityAt": row.updated_ms,
        "spawnedBy": row.spawned_by,
        "thinkingLevel": row.thinking_level,
        "status": live or row.status,
        "lastRunId": row.last_run_id,
        "lastRunError": row.last_run_error,
        "model": model,
        "modelProvider": provider,
        "modelOverrideSource": "user" if row.model else None,
        "estimatedCostUsd": row.cost_usd,
        "contextTokens": agent.context_tokens if agent is not None else None,
    }
    wire.update({key: value for key, value in optional.items() if value is not None})
    if not row.archived:
        # A message brings a session back; when it was put away no longer matters then.
        wire.pop("archivedAt", None)
    if row.total_tokens:
        wire |= {"inputTokens": row.input_tokens, "outputTokens": row.output_tokens, "totalTokens": row.total_tokens}
    return wire


def resolved_model(row: SessionRow, agent: AgentInfo | None) -> dict[str, Any]:
    """Return the model in force, as `sessions.patch` tells it."""
    provider, model = split_model(row.model or (agent.model if agent is not None else None))
    return {"modelProvider": provider, "model": model}
