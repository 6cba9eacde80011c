"""The conversations (plugin `conversation`, replaceable): what comes in, what goes out, and the sessions between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from openclaw_kernel.api.messages import Attachment, InboundMessage, Target


class Ingress(Protocol):
    """The one door for messages from channels (plugin `conversation`)."""

    async def accept(self, message: InboundMessage) -> bool:
        """Append durably; only then may the channel acknowledge. Return False for a repeat. Routing follows by itself."""
        ...


class Delivery(Protocol):
    """The outbox (plugin `conversation`)."""

    async def enqueue(
        self,
        target: Target,
        *,
        text: str,
        attachments: Sequence[Attachment] = (),
        run_id: str | None = None,
        reply_to_id: str | None = None,
    ) -> str:
        """Store a message durably and send it in order; return its outbox id."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsSummary:
    """What health shows of the sessions."""

    path: str
    count: int
    recent: tuple[Mapping[str, Any], ...]
    """Up to 10 of `{key, updatedAt, age}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCounts:
    """What is under way: rows that have not ended."""

    running: int
    """Messages whose turn runs."""
    waiting: int
    """Messages that are accepted and wait for their turn."""
    deliveries: int
    """Answers that are on their way to a channel."""


class Sessions(Protocol):
    """The conversations (plugin `conversation`)."""

    def summary(self, agent_id: str | None = None) -> SessionsSummary:
        """Return a cached summary without I/O."""
        ...

    async def queue(self) -> QueueCounts:
        """Count what is under way in all conversations."""
        ...

    async def new_session(self, session_key: str) -> str:
        """Reset: abort what runs, start an empty transcript; return the new session id."""
        ...

    async def stop(self, session_key: str) -> Sequence[str]:
        """Abort the running turn and drop the queued ones; return the run ids."""
        ...

    async def describe(self, session_key: str) -> Mapping[str, Any]:
        """Return the session's row as `sessions.list` shows it."""
        ...

    async def set_model(self, session_key: str, model: str | None) -> None: ...
    async def usage_rows(self, since_ms: int, until_ms: int) -> Sequence[Mapping[str, Any]]:
        """Return model steps: `{startedMs, sessionKey, agentId, provider, model, input, output, cacheRead, cacheWrite, costUsd}`."""
        ...
