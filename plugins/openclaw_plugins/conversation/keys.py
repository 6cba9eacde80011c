"""Session keys: what a client may write, and the one form that is stored."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from openclaw_kernel.api import InvalidRequest, PeerKind, Target

SessionKind: TypeAlias = Literal["direct", "group", "global", "unknown"]

LONGEST_KEY: Final = 512
MAIN: Final = "main"
_AGENT_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_SENTINELS: Final[dict[str, SessionKind]] = {"global": "global", "unknown": "unknown"}


@dataclass(frozen=True, slots=True)
class KeyRules:
    """What bare keys stand for in the configuration in force."""

    default_agent: str
    main_key: str

    def main_of(self, agent_id: str) -> str:
        """Return the key of an agent's main session."""
        return f"agent:{agent_id}:{self.main_key}"

    def is_main(self, key: str) -> bool:
        """Tell whether the canonical key names a main session, which can be reset but not deleted."""
        return key == self.main_of(agent_of(key) or self.default_agent)

    def canonical(self, raw: str, agent_id: str | None = None) -> str:
        """Return the stored form of a key: lower case, with its agent; `main` and bare keys belong to the named or default agent.

        Raise `InvalidRequest` for a key that cannot be one, or one of another agent than the named.
        """
        key = raw.strip().lower()
        if not key or len(key) > LONGEST_KEY or _CONTROL.search(key):
            raise InvalidRequest(f"sessionKey: {raw[:80]!r} is no session key; use 1 to {LONGEST_KEY} printable characters")
        if agent_id is not None:
            agent_id = checked_agent_id(agent_id)
        if key in _SENTINELS:
            return key
        if not key.startswith("agent:"):
            owner = agent_id or self.default_agent
            found = self.main_of(owner) if key == MAIN else f"agent:{owner}:{key}"
            if len(found) > LONGEST_KEY:
                raise InvalidRequest(f"sessionKey: {raw[:80]!r} is too long; with its agent it may have {LONGEST_KEY} characters")
            return found
        _, _, tail = key.partition(":")
        owner, _, rest = tail.partition(":")
        if not _AGENT_ID.fullmatch(owner) or not rest:
            raise InvalidRequest(f"sessionKey: {raw[:80]!r} is no session key; write agent:<agent id>:<name>")
        if agent_id is not None and agent_id != owner:
            raise InvalidRequest(f"agentId: {agent_id} does not own the session {key}; leave agentId out or name {owner}")
        return self.main_of(owner) if rest == MAIN else key

    def agent(self, key: str) -> str:
        """Return the agent a canonical key belongs to."""
        return agent_of(key) or self.default_agent


def checked_agent_id(raw: str) -> str:
    """Return the lower-case agent id; raise `InvalidRequest` for what cannot be one."""
    agent_id = raw.strip().lower()
    if not _AGENT_ID.fullmatch(agent_id):
        raise InvalidRequest(f"agentId: {raw[:80]!r} is no agent id; use lower-case letters, digits, _ and -")
    return agent_id


def agent_of(key: str) -> str | None:
    """Return the agent named in a canonical key, None for a sentinel."""
    head, _, tail = key.partition(":")
    owner, colon, _ = tail.partition(":")
    return owner if head == "agent" and colon else None


def kind_of(key: str) -> SessionKind:
    """Return the kind that `sessions.list` shows for a key."""
    sentinel = _SENTINELS.get(key)
    if sentinel is not None:
        return sentinel
    return "direct" if chat_type_of(key) == "direct" else "group"


def chat_type_of(key: str) -> PeerKind:
    """Return who talks in a session, as far as its key tells."""
    match key.split(":")[2:]:
        case [_, "group", _, *_]:
            return "group"
        case [_, "channel", _, *_]:
            return "channel"
    return "direct"


def conversation_of(target: Target) -> tuple[str, str, str, str]:
    """Return what makes a place one ordered conversation: channel, account, peer, thread."""
    return (target.channel, target.account_id, target.peer_id, target.thread_id or "")
