"""What one agent may be handed: named secrets, and the providers it may use. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from openclaw_config.models import Config

Fault: TypeAlias = tuple[tuple[str, ...], str, str]

ONLY_AGENT: Final = "main"
"""The agent there is where none is listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentScope:
    """`providers` is None where all are meant."""

    secrets: frozenset[str] = frozenset()
    providers: frozenset[str] | None = None

    def permits_provider(self, provider: str) -> bool:
        """Tell whether the agent may use a provider."""
        return self.providers is None or provider in self.providers


NOTHING = AgentScope(providers=frozenset())


def agent_scope(config: Config, agent_id: str) -> AgentScope:
    """Return an agent's scope; one that is not configured has nothing."""
    defaults, entries = config.agents.defaults, config.agents.entries
    entry = entries.get(agent_id)
    if entry is None and (entries or agent_id != ONLY_AGENT):
        return NOTHING
    secrets = defaults.secrets if entry is None or entry.secrets is None else entry.secrets
    providers = defaults.providers if entry is None or entry.providers is None else entry.providers
    return AgentScope(secrets=frozenset(secrets), providers=None if providers is None else frozenset(providers))


def scope_faults(config: Config) -> Iterator[Fault]:
    """Yield place, what was found and the cure for every name in a scope that names nothing."""
    holders: dict[tuple[str, ...], tuple[Collection[str], Collection[str]]] = {
        ("agents", "defaults"): (config.agents.defaults.secrets, config.agents.defaults.providers or ())
    }
    for agent_id, entry in config.agents.entries.items():
        holders["agents", "entries", agent_id] = (entry.secrets or (), entry.providers or ())
    for where, (secrets, providers) in holders.items():
        yield from _faults((*where, "secrets"), secrets, config.secrets.entries, "secrets.entries")
        yield from _faults((*where, "providers"), providers, config.models.providers, "models.providers")


def _faults(where: tuple[str, ...], names: Collection[str], known: Collection[str], place: str) -> Iterator[Fault]:
    for name in names:
        if name not in known:
            import difflib

            near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            cure = f"did you mean {near[0]!r}?" if near else f"add it there; there are: {', '.join(sorted(known)) or 'none'}"
            yield where, f"names {name[:60]!r}, which {place} does not have", cure
