"""The contract of a tool that a model may call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from openclaw_kernel.api.secrets import NO_SECRETS, AgentSecrets

ParamsT = TypeVar("ParamsT", bound=BaseModel)


class RetryClass(StrEnum):
    """What may happen to a call that was running when the process died."""

    PURE = "pure"
    IDEMPOTENT = "idempotent"
    SIDE_EFFECTING = "side-effecting"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """For whom a tool runs."""

    agent_id: str
    session_key: str
    run_id: str
    call_id: str
    workspace: Path
    secrets: AgentSecrets = field(default=NO_SECRETS, repr=False, compare=False)
    """Named secrets in the agent's scope; the kernel puts in those of the call's agent, whatever its caller gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What a tool returns to the model."""

    text: str
    is_error: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool(Generic[ParamsT]):
    """One tool. Cancelling `run` must end it, with all its children, within a second; raise `ToolError` for the model."""

    name: str
    label: str
    description: str
    params: type[ParamsT]
    run: Callable[[ToolContext, ParamsT], Awaitable[ToolResult]]
    retry_class: RetryClass
    timeout_seconds: float
    group: str = "plugin"
    """Group in the catalogue: `fs`, `runtime`, `web`, `memory`, `sessions`, `messaging`, `plugin`."""
    enabled: bool = True
    """False registers the tool but offers it to no model unless an agent's `tools.allow` names it."""

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the parameters."""
        return self.params.model_json_schema()
