"""The section `plugins.entries.web-tools.config`, and what the model may ask of the tool."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from openclaw_kernel.api import PluginSettings


class WebToolsSettings(PluginSettings):
    allow_private: list[Annotated[str, Field(pattern=r"^[^\s/@]+:[0-9]{1,5}$")]] = []
    """Places in the own network that may be fetched, each as exact `host:port`, e.g. `nas.home.arpa:8080`."""
    max_bytes: Annotated[int, Field(ge=1_024, le=64 << 20)] = 2 << 20
    """How much of a page is read, after unpacking."""
    timeout_seconds: Annotated[int, Field(ge=1, le=300)] = 20
    """Longest a fetch may take with all its redirects, in seconds."""


class FetchParams(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: Annotated[str, Field(max_length=8_192)]
    """Address of the page, http or https."""
    max_chars: Annotated[int, Field(ge=100, le=400_000)] = 20_000
    """How much text to return at most."""
    format: Literal["markdown", "text", "raw"] = "markdown"
    """markdown keeps headings and links, text has neither, raw is the page as sent."""
