"""What clients see of models and tools. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final, Literal, NotRequired

from typing_extensions import TypedDict

from openclaw_kernel.api import ModelInfo, Providers, RetryClass, Tool
from openclaw_plugins.agents.plan import AgentPlan

Profile = Literal["minimal", "coding", "messaging", "full"]
Source = Literal["core", "plugin"]


class ModelRow(TypedDict):
    id: str
    name: str
    provider: str
    available: bool
    reasoning: bool
    supportsTools: bool
    input: list[Literal["text", "image"]]
    contextWindow: NotRequired[int]


class ToolRow(TypedDict):
    id: str
    label: str
    description: str
    source: Source
    pluginId: str
    optional: NotRequired[bool]
    risk: Literal["low", "medium", "high"]
    defaultProfiles: list[Profile]


class ToolGroup(TypedDict):
    id: str
    label: str
    source: Source
    pluginId: NotRequired[str]
    tools: list[ToolRow]


class ProfileRow(TypedDict):
    id: Profile
    label: str


PROFILES: Final[list[ProfileRow]] = [
    {"id": "minimal", "label": "Minimal"},
    {"id": "coding", "label": "Coding"},
    {"id": "messaging", "label": "Messaging"},
    {"id": "full", "label": "Full"},
]
_GROUP_LABELS: Final = {
    "fs": "Files",
    "runtime": "Runtime",
    "web": "Web",
    "memory": "Memory",
    "sessions": "Sessions",
    "messaging": "Messaging",
}
_GROUP_PROFILES: Final[dict[str, list[Profile]]] = {
    "fs": ["coding"],
    "runtime": ["coding"],
    "web": ["coding"],
    "memory": ["coding"],
    "sessions": ["coding", "messaging"],
    "messaging": ["messaging"],
}
_RISKS: Final[dict[RetryClass, Literal["low", "medium", "high"]]] = {
    RetryClass.PURE: "low",
    RetryClass.IDEMPOTENT: "medium",
    RetryClass.SIDE_EFFECTING: "high",
}


def model_rows(models: Iterable[ModelInfo], providers: Providers) -> list[ModelRow]:
    """Return the rows of `models.list`; a model is available where its provider has no problem."""
    rows: list[ModelRow] = []
    for info in models:
        row: ModelRow = {
            "id": info.id,
            "name": info.name or info.id,
            "provider": info.provider,
            "available": providers.problem(info.provider) is None,
            "reasoning": info.reasoning,
            "supportsTools": info.tools,
            "input": ["text", "image"] if info.images else ["text"],
        }
        if info.context_window:
            row["contextWindow"] = info.context_window
        rows.append(row)
    return rows


def configured_models(plans: Iterable[AgentPlan], providers: Providers) -> list[ModelInfo]:
    """Return the models that agents name in the config, each once; all models where none is named."""
    refs = [ref for plan in plans for ref in (plan.model, *plan.fallbacks) if ref is not None]
    found = (providers.find(ref) for ref in refs)
    named = {info.ref: info for info in found if info is not None}
    return list(named.values()) if refs else list(providers.models())


def tool_groups(tools: Iterable[tuple[Tool[Any], str]], *, bundled: Collection[str], denied: Collection[str]) -> list[ToolGroup]:
    """Return the groups of `tools.catalog` from tools with the ids of their plugins.

    Tools of bundled plugins stand under their kind; those of others under their plugin, after them.
    """
    groups: dict[str, ToolGroup] = {}
    for tool, plugin_id in tools:
        if tool.name in denied:
            continue
        core = plugin_id in bundled
        group_id = tool.group if core and tool.group in _GROUP_LABELS else f"plugin:{plugin_id}"
        group = groups.get(group_id)
        if group is None:
            group = {
                "id": group_id,
                "label": _GROUP_LABELS.get(group_id, plugin_id),
                "source": "core" if core else "plugin",
                "tools": [],
            }
            if group_id.startswith("plugin:"):
                group["pluginId"] = plugin_id
            groups[group_id] = group
        group["tools"].append(_tool_row(tool, plugin_id, core=core))
    order = list(_GROUP_LABELS)
    return sorted(groups.values(), key=lambda group: (order.index(group["id"]) if group["id"] in order else len(order), group["id"]))


def _tool_row(tool: Tool[Any], plugin_id: str, *, core: bool) -> ToolRow:
    row: ToolRow = {
        "id": tool.name,
        "label": tool.label,
        "description": tool.description,
        "source": "core" if core else "plugin",
        "pluginId": plugin_id,
        "risk": _RISKS[tool.retry_class],
        "defaultProfiles": [*_GROUP_PROFILES.get(tool.group, []), "full"] if tool.enabled else [],
    }
    if not tool.enabled:
        row["optional"] = True
    return row
