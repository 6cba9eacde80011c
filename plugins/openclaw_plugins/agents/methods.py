"""RPC methods on agents, models, tools and usage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from openclaw_kernel.api import (
    Call,
    Gateway,
    InvalidRequest,
    ModelInfo,
    Params,
    PluginContext,
    Providers,
    Scope,
    Sessions,
    Tools,
    rpc,
)
from openclaw_plugins.agents.catalog import (
    PROFILES,
    ModelRow,
    ProfileRow,
    ToolGroup,
    configured_models,
    model_rows,
    tool_groups,
)
from openclaw_plugins.agents.plan import AgentPlan, agent_ids
from openclaw_plugins.agents.runtime import Runtime
from openclaw_plugins.agents.usage import Day, Totals, UsageReport, day_ms

MOST_DAYS: Final = 366
_EARLIEST: Final = date(1971, 1, 1)
_LATEST: Final = date(2999, 12, 31)
Name = Annotated[str, Field(min_length=1)]
_SESSION_AGENT: Final = re.compile(r"agent:([a-z0-9][a-z0-9_-]{0,63}):", re.IGNORECASE)
_OFFSET: Final = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2})(?::?(\d{2}))?")


class AgentsListParams(Params):
    pass


class AgentIdentityParams(Params):
    agent_id: Name | None = None
    session_key: str | None = None


class ModelsListParams(Params):
    """`view` and `provider` choose; every row has all its details at once, so what asks for more, or for fresh ones, is accepted."""

    agent_id: Name | None = None
    session_key: Name | None = None
    provider: Name | None = None
    include_details: bool = False
    include_default_models: bool = False
    include_provider_capabilities: bool = False
    prepared_only: bool = False
    refresh: bool = False
    view: Literal["default", "configured", "provider-config", "all"] = "default"


class ToolsCatalogParams(Params):
    agent_id: Name | None = None
    include_plugins: bool = True


class UsageStatusParams(Params):
    pass


class UsageCostParams(Params):
    days: Annotated[int, Field(ge=1, le=MOST_DAYS)] = 30
    """How many days back, today included; not used where `startDate` is given."""
    start_date: date | None = None
    end_date: date | None = None
    mode: Literal["utc", "gateway", "specific"] = "utc"
    """Whose midnight ends a day: UTC's, the gateway's, or that of `utcOffset`."""
    utc_offset: str | None = None
    agent_id: Name | None = None


class AgentIdentityRow(TypedDict):
    name: NotRequired[str]
    emoji: NotRequired[str]
    avatar: NotRequired[str]


class AgentModelRow(TypedDict):
    primary: NotRequired[str]
    fallbacks: NotRequired[list[str]]


class AgentRow(TypedDict):
    id: str
    name: str
    identity: AgentIdentityRow
    workspace: str
    model: AgentModelRow
    thinkingDefault: NotRequired[str]


class AgentsList(TypedDict):
    defaultId: str
    mainKey: str
    scope: Literal["per-sender", "global"]
    agents: list[AgentRow]


class AgentIdentity(TypedDict):
    agentId: str
    name: str
    nameSource: Literal["config", "workspace", "default"]
    avatar: NotRequired[str]
    emoji: NotRequired[str]


class ModelsList(TypedDict):
    models: list[ModelRow]


class ToolsCatalog(TypedDict):
    agentId: str
    profiles: list[ProfileRow]
    groups: list[ToolGroup]


class ProviderUsage(TypedDict):
    provider: str
    displayName: str
    windows: list[Any]
    """Quota windows; no bundled provider reports any."""
    error: NotRequired[str]


class UsageStatus(TypedDict):
    updatedAt: int
    providers: list[ProviderUsage]


class UsageCost(TypedDict):
    updatedAt: int
    days: int
    daily: list[Day]
    totals: Totals


class AgentMethods:
    """What clients may ask about agents; reads config and services at each call."""

    def __init__(self, context: PluginContext, runtime: Runtime) -> None:
        self._context = context
        self._runtime = runtime

    @rpc("agents.list", scope=Scope.READ, params=AgentsListParams, result=AgentsList)
    def agents_list(self, call: Call, params: AgentsListParams) -> AgentsList:
        """List the configured agents."""
        rows: list[AgentRow] = []
        for info in self._runtime.agents():
            model: AgentModelRow = {"primary": info.model} if info.model else {}
            if info.fallbacks:
                model["fallbacks"] = list(info.fallbacks)
            row: AgentRow = {
                "id": info.id,
                "name": info.name,
                "identity": _identity(info.name, info.emoji, info.avatar),
                "workspace": info.workspace,
                "model": model,
            }
            if info.thinking is not None:
                row["thinkingDefault"] = info.thinking
            rows.append(row)
        return {
            "defaultId": self._runtime.default_agent_id(),
            "mainKey": self._context.config.session.main_key,
            "scope": "per-sender",
            "agents": rows,
        }

    @rpc("agent.identity.get", scope=Scope.READ, params=AgentIdentityParams, result=AgentIdentity)
    def agent_identity(self, call: Call, params: AgentIdentityParams) -> AgentIdentity:
        """Tell how an agent presents itself, by its id or by a session of it."""
        plan = self._plan(params.agent_id if params.agent_id is not None else _agent_of(params.session_key))
        info = self._runtime.agent(plan.id)
        files = self._runtime.workspace_text(plan)
        name = info.name if info is not None else plan.id
        source: Literal["config", "workspace", "default"] = "config" if plan.name else "workspace" if files.name else "default"
        identity: AgentIdentity = {"agentId": plan.id, "name": name, "nameSource": source}
        if avatar := plan.avatar or files.avatar:
            identity["avatar"] = avatar
        if emoji := plan.emoji or files.emoji:
            identity["emoji"] = emoji
        return identity

    @rpc("models.list", scope=Scope.READ, params=ModelsListParams, result=ModelsList)
    def models_list(self, call: Call, params: ModelsListParams) -> ModelsList:
        """List the models, all that are known or those that agents name."""
        if params.prepared_only and params.refresh:
            raise InvalidRequest("preparedOnly and refresh exclude each other; send one of them")
        providers = self._context.service(Providers)
        agent_id = params.agent_id if params.agent_id is not None else _agent_of(params.session_key)
        if params.view == "configured" or (agent_id is not None and params.view == "default"):
            ids = agent_ids(self._context.config) if agent_id is None else (agent_id,)
            models: Sequence[ModelInfo] = configured_models([self._plan(each) for each in ids], providers)
        else:
            models = providers.models()
        return {"models": model_rows((info for info in models if params.provider in (None, info.provider)), providers)}

    @rpc("tools.catalog", scope=Scope.READ, params=ToolsCatalogParams, result=ToolsCatalog)
    def tools_catalog(self, call: Call, params: ToolsCatalogParams) -> ToolsCatalog:
        """List the tools by kind and plugin; those denied to the agent are left out."""
        plan = self._plan(params.agent_id)
        tools = self._context.service(Tools)
        bundled = {status.id for status in self._context.service(Gateway).plugins() if status.bundled}
        listed = [(tool, tools.source(tool.name)) for tool in tools.all()]
        if not params.include_plugins:
            listed = [(tool, source) for tool, source in listed if source in bundled]
        groups = tool_groups(listed, bundled=bundled, denied=plan.deny)
        return {"agentId": plan.id, "profiles": PROFILES, "groups": groups}

    @rpc("usage.status", scope=Scope.READ, params=UsageStatusParams, result=UsageStatus)
    def usage_status(self, call: Call, params: UsageStatusParams) -> UsageStatus:
        """List the providers and what stops them from answering."""
        providers = self._context.service(Providers)
        rows: list[ProviderUsage] = []
        for provider in providers.ids():
            row: ProviderUsage = {"provider": provider, "displayName": provider, "windows": []}
            if problem := providers.problem(provider):
                row["error"] = problem
            rows.append(row)
        return {"updatedAt": self._context.now_ms(), "providers": rows}

    @rpc("usage.cost", scope=Scope.READ, params=UsageCostParams, result=UsageCost)
    async def usage_cost(self, call: Call, params: UsageCostParams) -> UsageCost:
        """Sum tokens and cost of the model calls by day."""
        now = self._context.now_ms()
        zone = _zone(params)
        first, last = _span(params, today=datetime.fromtimestamp(now / 1000, zone).date())
        plan = self._plan(params.agent_id) if params.agent_id is not None else None
        report = UsageReport()
        # A day at a time: a year of calls is more than anybody wants in memory.
        for day in (first + timedelta(days=count) for count in range((last - first).days + 1)):
            rows = await self._context.service(Sessions).usage_rows(*day_ms(day, zone))
            report.add(day, (row for row in rows if plan is None or row["agentId"] == plan.id))
        return {"updatedAt": now, "days": (last - first).days + 1, "daily": report.daily, "totals": report.totals}

    def _plan(self, agent_id: str | None) -> AgentPlan:
        wanted = agent_id or self._runtime.default_agent_id()
        plan = self._runtime.plan(wanted)
        if plan is None:
            known = ", ".join(agent_ids(self._context.config))
            raise InvalidRequest(
                f"unknown agent id {wanted!r}; configured: {known}",
                details={"code": "UNKNOWN_AGENT_ID", "agentId": wanted},
            )
        return plan


def _identity(name: str, emoji: str | None, avatar: str | None) -> AgentIdentityRow:
    identity: AgentIdentityRow = {"name": name}
    if emoji:
        identity["emoji"] = emoji
    if avatar:
        identity["avatar"] = avatar
    return identity


def _span(params: UsageCostParams, *, today: date) -> tuple[date, date]:
    """Return the first and the last day of a report."""
    last = params.end_date or today
    if not _EARLIEST <= last <= _LATEST or (params.start_date is not None and params.start_date < _EARLIEST):
        raise InvalidRequest(f"startDate and endDate must be between {_EARLIEST} and {_LATEST}")
    first = params.start_date or max(_EARLIEST, last - timedelta(days=params.days - 1))
    if first > last:
        raise InvalidRequest(f"startDate {first} is after endDate {last}; swap them")
    if (last - first).days >= MOST_DAYS:
        raise InvalidRequest(f"startDate {first} to endDate {last} are more than {MOST_DAYS} days; ask for them in parts")
    return first, last


def _zone(params: UsageCostParams) -> tzinfo | None:
    """Return whose midnights count; None is the gateway's own zone, with its summer and its winter time."""
    if params.mode == "gateway":
        return None
    if params.mode == "utc" or params.utc_offset is None:
        return UTC
    found = _OFFSET.fullmatch(params.utc_offset.strip())
    if found is None or int(found[2]) > 14 or int(found[3] or 0) > 59:  # noqa: PLR2004 - the hours and minutes that an offset has at most
        raise InvalidRequest(f"utcOffset {params.utc_offset!r} is not an offset; write it like UTC+2 or -05:30")
    offset = timedelta(hours=int(found[2]), minutes=int(found[3] or 0))
    return timezone(-offset if found[1] == "-" else offset)


def _agent_of(session_key: str | None) -> str | None:
    """The agent that a full session key names."""
    found = _SESSION_AGENT.match(session_key or "")
    return found[1].lower() if found else None
