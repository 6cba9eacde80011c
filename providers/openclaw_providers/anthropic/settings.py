"""The settings of one instance, `models.providers.<id>`, and the models known without asking."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from openclaw_kernel.api import Secret
from openclaw_kernel.api.remote import ModelCost, ServedModel, ServerSettings

API_URL: Final = "https://api.anthropic.com"


class AnthropicModel(ServedModel):
    id: str
    """The API's own name of the model."""
    reasoning: bool = True
    """The model can think before it answers."""
    thinking_style: Literal["adaptive", "budget"] | None = None
    """How it is told to: by effort (adaptive, models since 4.6) or by tokens (budget); unset judges by the id."""
    input: list[Literal["text", "image"]] = ["text", "image"]
    """What the model reads."""


class AnthropicSettings(ServerSettings):
    api: Literal["anthropic-messages"] = "anthropic-messages"
    """Names the provider plugin where the id does not."""
    base_url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] = API_URL
    """URL of the API, without `/v1`."""
    api_key: Secret | None = None
    """The key, best as a reference such as `${env:ANTHROPIC_API_KEY}`."""
    models: list[AnthropicModel] = []
    """The models to offer, the first being the default; none means the known ones."""
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
