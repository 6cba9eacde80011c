"""The tool `config`: an agent looks at the configuration, and changes what is marked as its own to change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from openclaw_kernel.api import AuditOrigin, GatewayError, PluginContext, RetryClass, Tool, ToolContext, ToolError, ToolResult
from openclaw_kernel.api.config import Change, ConfigConflict, Configuration, Edit
from openclaw_kernel.api.edits import patch_edit
from openclaw_plugins.control.config_methods import plan_to_wire, results_to_wire

LONGEST_TEXT: Final = 20_000


class ConfigToolParams(BaseModel):
    model_config = ConfigDict(extra="forbid")

    action: Literal["get", "plan", "patch"]
    """get reads, plan says what a patch would do, patch does it."""
    path: str | None = None
    """For get: a dotted key, such as agents.entries.main."""
    patch: dict[str, Any] | None = None
    """For plan and patch: what to change; null deletes a key."""
    base_hash: str | None = Field(default=None, alias="baseHash")
    """For patch: the hash that get told."""


def config_tool(context: PluginContext) -> Tool[ConfigToolParams]:
    """The tool, offered to no agent that does not name it."""
    return Tool(
        name="config",
        label="Configuration",
        description=(
            "Read the gateway's configuration (secrets are hidden), see what a change would do, and change it. "
            "Only keys that their schema marks as writable by agents can be changed."
        ),
        params=ConfigToolParams,
        run=_ConfigTool(context).run,
        retry_class=RetryClass.SIDE_EFFECTING,
        timeout_seconds=60,
        group="runtime",
        enabled=False,
    )


class _ConfigTool:
    def __init__(self, context: PluginContext) -> None:
        self._context = context

    async def run(self, context: ToolContext, params: ConfigToolParams) -> ToolResult:
        configuration = self._context.service(Configuration)
        try:
            return ToolResult(text=await self._answer(configuration, context, params))
        except ConfigConflict as error:
            raise ToolError(f"{error.message}; what differs: {json.dumps(error.diff, ensure_ascii=False)[:LONGEST_TEXT]}") from error
        except GatewayError as error:
            issues = (error.details or {}).get("issues", ())
            raise ToolError("; ".join([error.message, *(f"{issue['path']}: {issue['message']}" for issue in issues)])) from error

    async def _answer(self, configuration: Configuration, context: ToolContext, params: ConfigToolParams) -> str:
        if params.action == "get":
            shown = await configuration.snapshot()
            return _text({"hash": shown["hash"], "value": _value_at(shown["config"], params.path)})
        edit = _edit_of(params)
        origin = AuditOrigin(actor=f"agent:{context.agent_id}", surface="tool")
        change = Change(origin=origin, reason=f"run {context.run_id}", by_agent=True)
        if params.action == "plan":
            return _text(plan_to_wire(await configuration.plan_edit(edit, by=change)))
        if params.base_hash is None:
            raise ToolError("baseHash: is missing; give the hash that the action get told")
        written = await configuration.write(edit, change, base_hash=params.base_hash)
        return _text({"hash": written.hash, "changed": list(written.changed_keys), "units": results_to_wire(written)})


def _edit_of(params: ConfigToolParams) -> Edit:
    if not params.patch:
        raise ToolError("patch: is missing; give an object with what to change")
    try:
        return patch_edit(json.dumps(params.patch))
    except ValueError as error:
        raise ToolError(str(error)) from error


def _value_at(config: Any, path: str | None) -> Any:
    for key in path.split(".") if path else ():
        if not isinstance(config, Mapping) or key not in config:
            raise ToolError(f"{path}: is not set; ask for a key above it")
        config = config[key]
    return config


def _text(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > LONGEST_TEXT:
        raise ToolError(f"the answer has {len(text)} characters; ask for a key below by path")
    return text
