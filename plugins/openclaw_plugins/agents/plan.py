"""What the config says of one agent, resolved; and which models it may use, in order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from openclaw_kernel.api import Config, ModelInfo, Providers, ThinkingLevel, Tool
from openclaw_plugins.agents.permitted import PermittedProviders

DEFAULT_AGENT: Final = "main"
_LISTED: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPlan:
    """One agent with the defaults filled in."""

    id: str
    name: str | None
    emoji: str | None
    avatar: str | None
    is_default: bool
    workspace: Path
    model: str | None
    model_key: str
    """Where in the config the model stands, or would."""
    fallbacks: tuple[str, ...]
    timeout_seconds: float
    context_tokens: int | None
    max_tool_rounds: int
    max_output_tokens: int | None
    thinking: ThinkingLevel | None
    allow: frozenset[str] | None
    deny: frozenset[str]
    providers: frozenset[str] | None
    """The providers the agent may use, None for all."""

    def permits(self, tool: Tool[Any]) -> bool:
        """Tell whether the agent may use a tool; `deny` wins, and what is off by default must be named."""
        if tool.name in self.deny:
            return False
        return tool.enabled if self.allow is None else tool.name in self.allow


def agent_ids(config: Config) -> Sequence[str]:
    """Return the configured agents in config order; without any there is `main`."""
    return tuple(config.agents.entries) or (DEFAULT_AGENT,)


def default_agent_id(config: Config) -> str:
    """Return the agent flagged `default`, else the first, else `main`."""
    flagged = [agent_id for agent_id, entry in config.agents.entries.items() if entry.default]
    return flagged[0] if flagged else agent_ids(config)[0]


def plan_agent(config: Config, agent_id: str, home: Path) -> AgentPlan | None:
    """Resolve one agent, None for one that is not configured; `home` is the gateway's state folder."""
    if agent_id not in agent_ids(config):
        return None
    defaults = config.agents.defaults
    entry = config.agents.entries.get(agent_id)
    own_model = entry is not None and entry.model is not None
    choice = entry.model if entry is not None and own_model else defaults.model
    tools = entry.tools if entry is not None and entry.tools is not None else defaults.tools
    is_default = agent_id == default_agent_id(config)
    context_tokens = entry.context_tokens if entry else None
    return AgentPlan(
        id=agent_id,
        name=(entry.identity.name or entry.name) if entry else None,
        emoji=entry.identity.emoji if entry else None,
        avatar=entry.identity.avatar if entry else None,
        is_default=is_default,
        workspace=_workspace(config, agent_id, home, is_default=is_default),
        model=choice if isinstance(choice, str) or choice is None else choice.primary,
        model_key=f"agents.entries.{agent_id}.model" if own_model else "agents.defaults.model",
        fallbacks=() if isinstance(choice, str) or choice is None else tuple(choice.fallbacks),
        timeout_seconds=_first(entry.timeout_seconds if entry else None, defaults.timeout_seconds),
        context_tokens=context_tokens if context_tokens is not None else defaults.context_tokens,
        max_tool_rounds=_first(entry.max_tool_rounds if entry else None, defaults.max_tool_rounds),
        max_output_tokens=(entry.max_output_tokens if entry else None) or defaults.max_output_tokens,
        thinking=(entry.thinking if entry else None) or defaults.thinking,
        allow=frozenset(tools.allow) if tools.allow is not None else None,
        deny=frozenset(tools.deny),
        providers=_providers(entry.providers if entry else None, defaults.providers),
    )


def _providers(own: Sequence[str] | None, default: Sequence[str] | None) -> frozenset[str] | None:
    named = default if own is None else own
    return None if named is None else frozenset(named)


def _first(own: int | None, default: int) -> int:
    return default if own is None else own


def _workspace(config: Config, agent_id: str, home: Path, *, is_default: bool) -> Path:
    """Return the agent's own folder; two agents never share one unless both name it."""
    entry = config.agents.entries.get(agent_id)
    if entry is not None and entry.workspace:
        return home / Path(entry.workspace).expanduser()
    shared = config.agents.defaults.workspace
    if not shared:
        return home / "workspace" / agent_id
    folder = home / Path(shared).expanduser()
    return folder if is_default else folder.with_name(f"{folder.name}-{agent_id}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChain:
    """The models to try in order.

    `doubtful` are those whose provider reports a problem: they come last, but they come, for a call may be what ends the
    problem. `problems` has a line for every reference that leads to no model.
    """

    ready: tuple[ModelInfo, ...]
    doubtful: tuple[ModelInfo, ...]
    problems: tuple[str, ...]


def choose_models(plan: AgentPlan, requested: str | None, providers: Providers) -> ModelChain:
    """Return the chain for a turn: the requested model or the agent's, then the agent's fallbacks.

    An agent without a model has the first one of a provider that is ready, and no fallbacks.
    """
    everyone, providers = providers, _permitted(plan, providers)
    wanted = [(requested, "the model chosen for this session")] if requested else []
    if plan.model is not None and not requested:
        wanted = [(plan.model, plan.model_key)]
    if not wanted:
        return _any_model(providers, plan)
    wanted += [(ref, f"{plan.model_key}.fallbacks") for ref in plan.fallbacks]
    models: dict[str, ModelInfo] = {}
    problems: list[str] = []
    for ref, place in wanted:
        info = providers.find(ref)
        if info is None:
            problems.append(_not_there(ref, place, providers, everyone, plan))
        else:
            models.setdefault(info.ref, info)
    troubled = {info.provider for info in models.values() if providers.problem(info.provider) is not None}
    return ModelChain(
        ready=tuple(info for info in models.values() if info.provider not in troubled),
        doubtful=tuple(info for info in models.values() if info.provider in troubled),
        problems=tuple(dict.fromkeys(problems)),
    )


def missing_models(plans: Iterable[AgentPlan], providers: Providers) -> tuple[str, ...]:
    """Return a line for every model that the config names and nobody has.

    A provider that has not told its models yet gets the benefit of the doubt.
    """
    ids = providers.ids()
    told = {info.provider for info in providers.models()}
    lines: dict[str, None] = {}
    for plan in plans:
        seen = _permitted(plan, providers)
        wanted = [] if plan.model is None else [(plan.model, plan.model_key)]
        for ref, place in (*wanted, *((ref, f"{plan.model_key}.fallbacks") for ref in plan.fallbacks)):
            provider = ref.partition("/")[0]
            if (provider not in ids or provider in told) and seen.find(ref) is None:
                lines[_not_there(ref, place, seen, providers, plan)] = None
    return tuple(lines)


def _permitted(plan: AgentPlan, providers: Providers) -> Providers:
    return providers if plan.providers is None else PermittedProviders(providers, plan.providers)


def _any_model(providers: Providers, plan: AgentPlan) -> ModelChain:
    """Return the first model of a ready provider, else the first of each."""
    firsts: dict[str, ModelInfo] = {}
    for info in providers.models():
        firsts.setdefault(info.provider, info)
    ready = next((info for info in firsts.values() if providers.problem(info.provider) is None), None)
    if ready is not None:
        return ModelChain(ready=(ready,), doubtful=(), problems=())
    ids = providers.ids()
    lines = [f"{id_}: {providers.problem(id_) or 'it knows no model'}" for id_ in ids if id_ not in firsts]
    if not ids:
        lines = ["models.providers is empty; add a provider"]
        if plan.providers is not None:
            lines = [f"agents.entries.{plan.id}.providers leaves agent {plan.id!r} no provider; add one"]
    return ModelChain(ready=(), doubtful=tuple(firsts.values()), problems=tuple(lines))


def _not_there(ref: str, place: str, providers: Providers, everyone: Providers, plan: AgentPlan) -> str:
    provider = ref.partition("/")[0]
    if provider in everyone.ids() and provider not in providers.ids():
        return f'agent {plan.id!r} may not use "{ref}" ({place}); add {provider!r} to agents.entries.{plan.id}.providers'
    refs = [info.ref for info in providers.models()]
    more = f" and {len(refs) - _LISTED} more" if len(refs) > _LISTED else ""
    available = f"available: {', '.join(refs[:_LISTED])}{more}" if refs else "no provider has a model"
    return f'there is no model "{ref}" ({place}); {available}'
