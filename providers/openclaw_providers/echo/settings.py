"""The settings of one echo provider, `models.providers.<id>`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from openclaw_kernel.api import ProviderErrorKind


class _Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=False,
    )


class EchoTool(_Model):
    name: str
    """The tool to call."""
    arguments: dict[str, Any] = {}
    """Its arguments."""


class EchoSettings(_Model):
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
