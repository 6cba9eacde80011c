"""The one pure function from a message and a config to an agent, a session and the reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, Literal, Protocol, TypeAlias

from openclaw_kernel.api import Config, InboundMessage, PeerKind, Route, Target

DEFAULT_ACCOUNT: Final = "default"
DEFAULT_AGENT: Final = "main"
WEBCHAT: Final = "webchat"
_AGENT_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_AGENT_KEY: Final = re.compile(r"agent:(?P<agent>[a-z0-9][a-z0-9_-]{0,63}):(?P<rest>.+)", re.DOTALL)

DmScope: TypeAlias = Literal["main", "per-peer", "per-channel-peer", "per-account-channel-peer"]


class Peer(Protocol):
    """`bindings[].match.peer`."""

    @property
    def kind(self) -> PeerKind: ...
    @property
    def id(self) -> str: ...


class Match(Protocol):
    """`bindings[].match`."""

    @property
    def channel(self) -> str: ...
    @property
    def account_id(self) -> str | None: ...
    @property
    def peer(self) -> Peer | None: ...
    @property
    def guild_id(self) -> str | None: ...
    @property
    def team_id(self) -> str | None: ...
    @property
    def roles(self) -> Sequence[str]: ...


def route(message: InboundMessage, config: Config) -> Route:
    """Decide where a message goes; the same message and config give the same route, and every message gets one."""
    if message.target.channel == WEBCHAT:
        chosen = _chosen_session(message, config)
        if chosen is not None:
            return chosen
    agents = agent_ids(config)
    skipped: list[str] = []
    for tier, matches in _TIERS:
        for index, binding in enumerate(config.bindings):
            if not matches(binding.match, message):
                continue
            if binding.agent_id not in agents:
                skipped.append(f"bindings.{index} skipped: there is no agent {binding.agent_id}")
                continue
            scope = binding.session.dm_scope if binding.session is not None else None
            return Route(
                agent_id=binding.agent_id,
                session_key=session_key(message, config, agent_id=binding.agent_id, dm_scope=scope),
                reason=_reason(f"bindings.{index} ({tier})", skipped),
            )
    agent_id = default_agent_id(config)
    return Route(
        agent_id=agent_id,
        session_key=session_key(message, config, agent_id=agent_id),
        reason=_reason(f"no binding matches: default agent {agent_id}", skipped),
    )


def agent_ids(config: Config) -> Sequence[str]:
    """Return the configured agents in config order; without any there is `main`."""
    return tuple(config.agents.entries) or (DEFAULT_AGENT,)


def default_agent_id(config: Config) -> str:
    """Return the agent flagged `default`, else the first, else `main`."""
    flagged = [agent_id for agent_id, entry in config.agents.entries.items() if entry.default]
    return flagged[0] if flagged else agent_ids(config)[0]


def problems(config: Config) -> list[str]:
    """Return one line for each binding that can never decide, with the cure."""
    known = agent_ids(config)
    return [
        f"bindings.{index}.agentId: there is no agent {binding.agent_id!r}; add it under agents.entries or use one of {', '.join(known)}"
        for index, binding in enumerate(config.bindings)
        if binding.agent_id not in known
    ]


def session_key(message: InboundMessage, config: Config, *, agent_id: str, dm_scope: DmScope | None = None) -> str:
    """Return the lower-case key of the conversation that the message belongs to."""
    target = message.target
    if target.peer_kind == "direct":
        rest = _direct_part(message, config, dm_scope or config.session.dm_scope)
    else:
        rest = f"{target.channel}:{target.peer_kind}:{_part(target.peer_id)}"
    thread = f":thread:{_part(target.thread_id)}" if target.thread_id else ""
    return f"agent:{agent_id}:{rest}{thread}".lower()


def _direct_part(message: InboundMessage, config: Config, scope: DmScope) -> str:
    target = message.target
    if scope == "main":
        return config.session.main_key
    person = _part(_canonical_person(message, config) or target.peer_id)
    match scope:
        case "per-peer":
            return f"direct:{person}"
        case "per-channel-peer":
            return f"{target.channel}:direct:{person}"
        case "per-account-channel-peer":
            return f"{target.channel}:{_part(target.account_id)}:direct:{person}"


def _canonical_person(message: InboundMessage, config: Config) -> str | None:
    """Look the peer up in `session.identityLinks`, by `channel:id` or by the bare id."""
    peer = message.target.peer_id
    if not peer:
        return None
    names = {peer, f"{message.target.channel}:{peer}"}
    return next((person for person, ids in config.session.identity_links.items() if names.intersection(ids)), None)


def _part(value: str) -> str:
    """Make a platform's id one part of a key; an id that looks like two parts cannot pass for another conversation."""
    return value.strip().replace(":thread:", "%3athread%3a") or "unknown"


def _chosen_session(message: InboundMessage, config: Config) -> Route | None:
    """Follow the session or agent that a WebSocket client named.

    An agent that is not configured is kept, so that its turn says so: answering as another agent would be worse.
    """
    named_agent = _text(message.extra.get("agentId")).lower()
    agent_id = named_agent if _AGENT_ID.fullmatch(named_agent) else ""
    key = _text(message.extra.get("sessionKey")).strip().lower()
    if not key:
        if not agent_id:
            return None
        return Route(
            agent_id=agent_id,
            session_key=f"agent:{agent_id}:{config.session.main_key}",
            reason="the client named the agent",
        )
    found = _AGENT_KEY.fullmatch(key)
    owner = found["agent"] if found else agent_id or default_agent_id(config)
    rest = found["rest"] if found else key
    if rest == "main":
        rest = config.session.main_key
    return Route(agent_id=owner, session_key=f"agent:{owner}:{rest}", reason="the client named the session")


def _reason(decision: str, skipped: Sequence[str]) -> str:
    return "; ".join((decision, *skipped))


# --- tiers: the most specific first; within one, the order of the config ---------------------------------------------


def _same_place(match: Match, message: InboundMessage) -> bool:
    """Tell whether channel, account, guild, team and roles fit; what the binding leaves out fits anything."""
    target = message.target
    account = match.account_id or DEFAULT_ACCOUNT
    return (
        match.channel.lower() == target.channel.lower()
        and account in ("*", target.account_id)
        and match.guild_id in (None, _fact(message, "guildId"))
        and match.team_id in (None, _fact(message, "teamId"))
        and (not match.roles or not set(match.roles).isdisjoint(_roles(message)))
    )


def _peer(match: Match, message: InboundMessage) -> bool:
    return _has_peer(match, message.target, message.target.peer_id) and _same_place(match, message)


def _parent_peer(match: Match, message: InboundMessage) -> bool:
    parent = _fact(message, "parentPeerId")
    return parent is not None and _has_peer(match, message.target, parent) and _same_place(match, message)


def _peer_wildcard(match: Match, message: InboundMessage) -> bool:
    return (
        match.peer is not None
        and match.peer.id == "*"
        and _same_kind(match.peer.kind, message.target.peer_kind)
        and _same_place(match, message)
    )


def _has_peer(match: Match, target: Target, peer_id: str) -> bool:
    peer = match.peer
    return bool(peer_id) and peer is not None and peer.id == peer_id and _same_kind(peer.kind, target.peer_kind)


def _same_kind(wanted: PeerKind, found: PeerKind) -> bool:
    """Groups and channels match each other: platforms do not agree which is which."""
    return wanted == found or "direct" not in (wanted, found)


def _guild_roles(match: Match, message: InboundMessage) -> bool:
    return match.peer is None and bool(match.roles) and _same_place(match, message)


def _guild(match: Match, message: InboundMessage) -> bool:
    return match.peer is None and not match.roles and match.guild_id is not None and _same_place(match, message)


def _team(match: Match, message: InboundMessage) -> bool:
    return _plain(match) and match.guild_id is None and match.team_id is not None and _same_place(match, message)


def _account(match: Match, message: InboundMessage) -> bool:
    return _bare(match) and match.account_id != "*" and _same_place(match, message)


def _channel(match: Match, message: InboundMessage) -> bool:
    return _bare(match) and match.account_id == "*" and _same_place(match, message)


def _plain(match: Match) -> bool:
    return match.peer is None and not match.roles


def _bare(match: Match) -> bool:
    return _plain(match) and match.guild_id is None and match.team_id is None


_TIERS: Final[tuple[tuple[str, Callable[[Match, InboundMessage], bool]], ...]] = (
    ("peer", _peer),
    ("parent peer", _parent_peer),
    ("any peer", _peer_wildcard),
    ("guild and roles", _guild_roles),
    ("guild", _guild),
    ("team", _team),
    ("account", _account),
    ("channel", _channel),
)


def _fact(message: InboundMessage, name: str) -> str | None:
    return _text(message.extra.get(name)) or None


def _roles(message: InboundMessage) -> set[str]:
    roles = message.extra.get("roles")
    return {_text(role) for role in roles} - {""} if isinstance(roles, list | tuple) else set()


def _text(value: object) -> str:
    """Read an id that a channel gave as text or as a number; anything else is no id."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""
