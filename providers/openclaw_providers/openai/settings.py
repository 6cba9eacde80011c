"""The settings of one instance, `models.providers.<id>`, and what is known of the usual servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from openclaw_kernel.api import ModelInfo, OAuthClient, Secret


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


class OpenAIModel(_Model):
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


class OpenAISettings(_Model):
    api: Literal["openai-completions"] = "openai-completions"
    """Names the provider plugin where the id does not."""
    base_url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] | None = None
    """URL of the API up to and including `/v1`; the known ids have their own."""
    api_key: Secret | None = None
    """The key, best as a reference such as `${env:OPENAI_API_KEY}`; local servers need none."""
    oauth: OAuthClient | None = None
    """An authorization server to log in at, in place of a key: openclaw-kernel auth login."""
    headers: dict[str, Secret] = {}
    """Further HTTP headers of every request; a value may be a reference such as `${env:NAME}`."""
    models: list[OpenAIModel] = []
    """The models to offer, the first being the default; none means those that the server lists."""
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 120
    """Longest silence of the server, before the answer and within it."""
    stream_usage: bool = True
    """Ask for token counts in the stream; false for old servers that refuse `stream_options`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What a known server wants. `key_variable` is the usual environment variable, None where it asks for no key."""

    label: str
    base_url: str | None
    key_variable: str | None = None
    output_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    states_cost: bool = False
    free: bool = False
    models: tuple[OpenAIModel, ...] = ()


def _known_model(identity: str, name: str, *, window: int, output: int, prices: tuple[float, float]) -> OpenAIModel:
    return OpenAIModel(
        id=identity,
        name=name,
        reasoning=True,
        input=["text", "image"],
        contextWindow=window,
        maxTokens=output,
        cost=ModelCost(input=prices[0], output=prices[1]),
    )


SERVERS: Final[Mapping[str, Server]] = MappingProxyType(
    {
        "openai": Server(
            label="OpenAI",
            base_url="https://api.openai.com/v1",
            key_variable="OPENAI_API_KEY",
            output_limit="max_completion_tokens",
            models=(_known_model("gpt-5.4-mini", "GPT-5.4 mini", window=400_000, output=128_000, prices=(0.75, 4.5)),),
        ),
        "openrouter": Server(
            label="OpenRouter",
            base_url="https://openrouter.ai/api/v1",
            key_variable="OPENROUTER_API_KEY",
            states_cost=True,
        ),
        "ollama": Server(label="Ollama", base_url="http://127.0.0.1:11434/v1", free=True),
        "vllm": Server(label="vLLM", base_url="http://127.0.0.1:8000/v1", free=True),
        "lmstudio": Server(label="LM Studio", base_url="http://127.0.0.1:1234/v1", free=True),
    }
)


def server_of(identity: str) -> Server:
    """Return what is known of the server behind an instance; of a stranger, nothing but its id."""
    return SERVERS.get(identity, Server(label=identity, base_url=None))


def model_info(provider: str, model: OpenAIModel, *, free: bool) -> ModelInfo:
    """Return what the gateway is told of a model; a free server's costs nothing where no price is set."""
    price = 0.0 if free else None
    cost = model.cost
    return ModelInfo(
        id=model.id,
        provider=provider,
        name=model.name or model.id,
        context_window=model.context_window,
        max_output_tokens=model.max_tokens,
        reasoning=model.reasoning,
        tools=model.tools,
        images="image" in model.input,
        input_price=price if cost.input is None else cost.input,
        output_price=price if cost.output is None else cost.output,
        cache_read_price=price if cost.cache_read is None else cost.cache_read,
        cache_write_price=price if cost.cache_write is None else cost.cache_write,
    )
