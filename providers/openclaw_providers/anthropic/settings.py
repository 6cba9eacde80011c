"""The settings of one instance, `models.providers.<id>`, and the models known without asking."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from openclaw_kernel.api import ModelInfo, Secret

API_URL: Final = "https://api.anthropic.com"


class _Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=False,
    )


class ModelCost(_Model):
    input: float | None = None
    """US dollars per million input tokens."""
    output: float | None = None
    """US dollars per million output tokens."""
    cache_read: float | None = None
    """US dollars per million input tokens read from the cache."""
    cache_write: float | None = None
    """US dollars per million input tokens written to the cache."""


class AnthropicModel(_Model):
    id: str
    """The API's own name of the model."""
    name: str | None = None
    """Display name."""
    reasoning: bool = True
    """The model can think before it answers."""
    thinking_style: Literal["adaptive", "budget"] | None = None
    """How it is told to: by effort (adaptive, models since 4.6) or by tokens (budget); unset judges by the id."""
    tools: bool = True
    """The model can call tools."""
    input: list[Literal["text", "image"]] = ["text", "image"]
    """What the model reads."""
    context_window: Annotated[int, Field(ge=1)] | None = None
    """Tokens of prompt and answer together."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of one answer."""
    cost: ModelCost = ModelCost()
    """Prices, for the usage reports."""


class AnthropicSettings(_Model):
    api: Literal["anthropic-messages"] = "anthropic-messages"
    """Names the provider plugin where the id does not."""
    base_url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] = API_URL
    """URL of the API, without `/v1`."""
    api_key: Secret | None = None
    """The key, best as a reference such as `${env:ANTHROPIC_API_KEY}`."""
    headers: dict[str, Secret] = {}
    """Further HTTP headers of every request; a value may be a reference such as `${env:NAME}`."""
    models: list[AnthropicModel] = []
    """The models to offer, the first being the default; none means the known ones."""
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 120
    """Longest silence of the server, before the answer and within it."""
    max_output_tokens: Annotated[int, Field(ge=1)] = 8192
    """Most tokens of an answer where the agent sets no limit; the API demands one."""
    prompt_caching: bool = True
    """Mark prompt and conversation for the API's cache, which makes repeated ones cheaper."""


def _known(identity: str, name: str, *, window: int, output: int, prices: tuple[float, float] | None) -> AnthropicModel:
    cost = ModelCost()
    if prices is not None:
        # Reading the cache costs a tenth of the input's price, writing it a quarter more.
        read, write = round(prices[0] * 0.1, 4), round(prices[0] * 1.25, 4)
        cost = ModelCost(input=prices[0], output=prices[1], cacheRead=read, cacheWrite=write)
    return AnthropicModel(id=identity, name=name, contextWindow=window, maxTokens=output, cost=cost)


KNOWN_MODELS: Final = (
    _known("claude-sonnet-5-5", "Claude Sonnet 5.5", window=1_000_000, output=128_000, prices=(2.0, 10.0)),
    _known("claude-opus-5-5", "Claude Opus 5.5", window=1_000_000, output=128_000, prices=(4.0, 20.0)),
    # Its price has two tiers, by the length of the prompt, which one number cannot say.
    _known("claude-haiku-5-5", "Claude Haiku 5.5", window=1_000_000, output=128_000, prices=None),
    _known("claude-sonnet-4-6", "Claude Sonnet 4.6", window=200_000, output=64_000, prices=(3.0, 15.0)),
    _known("claude-haiku-4-5", "Claude Haiku 4.5", window=200_000, output=64_000, prices=(1.0, 5.0)),
)


def model_info(provider: str, model: AnthropicModel) -> ModelInfo:
    """Return what the gateway is told of a model."""
    return ModelInfo(
        id=model.id,
        provider=provider,
        name=model.name or model.id,
        context_window=model.context_window,
        max_output_tokens=model.max_tokens,
        reasoning=model.reasoning,
        tools=model.tools,
        images="image" in model.input,
        input_price=model.cost.input,
        output_price=model.cost.output,
        cache_read_price=model.cost.cache_read,
        cache_write_price=model.cost.cache_write,
    )
