"""What the settings of every provider with a server have, and its models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from openclaw_config.secrets import Secret
from openclaw_kernel.api.provider import ModelInfo
from openclaw_kernel.api.settings import PluginSettings


class ModelCost(PluginSettings):
    """Prices of a model; None where unknown."""

    input: float | None = None
    """US dollars per million input tokens."""
    output: float | None = None
    """US dollars per million output tokens."""
    cache_read: float | None = None
    """US dollars per million input tokens read from the cache."""
    cache_write: float | None = None
    """US dollars per million input tokens written to the cache."""


class ServedModel(PluginSettings):
    """One model of `models.providers.<id>.models`."""

    id: str
    """The server's own name of the model."""
    name: str | None = None
    """Display name."""
    reasoning: bool = False
    """The model takes a reasoning effort."""
    tools: bool = True
    """The model can call tools."""
    input: list[Literal["text", "image"]] = ["text"]
    """What the model reads."""
    context_window: Annotated[int, Field(ge=1)] | None = None
    """Tokens of prompt and answer together."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of one answer."""
    cost: ModelCost = ModelCost()
    """Prices, for the usage reports."""

    def info(self, provider: str, *, price: float | None = None) -> ModelInfo:
        """Return what the gateway is told of the model; `price` is for what has none: 0.0 on a server that is free."""
        cost = self.cost
        return ModelInfo(
            id=self.id,
            provider=provider,
            name=self.name or self.id,
            context_window=self.context_window,
            max_output_tokens=self.max_tokens,
            reasoning=self.reasoning,
            tools=self.tools,
            images="image" in self.input,
            input_price=price if cost.input is None else cost.input,
            output_price=price if cost.output is None else cost.output,
            cache_read_price=price if cost.cache_read is None else cost.cache_read,
            cache_write_price=price if cost.cache_write is None else cost.cache_write,
        )


class ServerSettings(PluginSettings):
    """What every instance has that asks a server."""

    api_key: Secret | None = None
    """The key, best as a reference such as `${env:NAME}`."""
    headers: dict[str, Secret] = {}
    """Further HTTP headers of every request; a value may be a reference such as `${env:NAME}`."""
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 120
    """Longest silence of the server, before the answer and within it."""

    def sent_headers(self) -> dict[str, str]:
        """Return the headers as they are sent, secrets included."""
        return {name: value.unwrap() for name, value in self.headers.items()}
