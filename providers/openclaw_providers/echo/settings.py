"""The settings of one echo provider, `models.providers.<id>`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from openclaw_kernel.api import PluginSettings, ProviderErrorKind


class EchoTool(PluginSettings):
    name: str
    """The tool to call."""
    arguments: dict[str, Any] = {}
    """Its arguments."""


class EchoSettings(PluginSettings):
    api: Literal["echo"] = "echo"
    """Names the provider plugin where the id does not."""
    delay_ms: Annotated[int, Field(ge=0, le=60_000)] = 0
    """Milliseconds before each word of an answer."""
    fail: ProviderErrorKind | None = None
    """Every call fails in this way."""
    retry_after: Annotated[float, Field(ge=0)] | None = None
    """Seconds after which a failure of kind rate_limit says it is over."""
    tool: EchoTool | None = None
    """Call this tool on every message of a person, then repeat its result."""
    reply: str | None = None
    """The answer to everything, instead of an echo."""
    context_window: Annotated[int, Field(ge=16)] = 32_768
    """Tokens (words) a request may have; a longer one fails as too long."""
