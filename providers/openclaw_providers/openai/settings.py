"""The settings of one instance, `models.providers.<id>`, and what is known of the usual servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import Field

from openclaw_kernel.api import OAuthClient, Secret
from openclaw_kernel.api.remote import ModelCost, ServedModel, ServerSettings


class OpenAISettings(ServerSettings):
    api: Literal["openai-completions"] = "openai-completions"
    """Names the provider plugin where the id does not."""
    base_url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] | None = None
    """URL of the API up to and including `/v1`; the known ids have their own."""
    api_key: Secret | None = None
    """The key, best as a reference such as `${env:OPENAI_API_KEY}`; local servers need none."""
    oauth: OAuthClient | None = None
    """An authorization server to log in at, in place of a key: openclaw-kernel auth login."""
    models: list[ServedModel] = []
    """The models to offer, the first being the default; none means those that the server lists."""
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
    models: tuple[ServedModel, ...] = ()


def _known_model(identity: str, name: str, *, window: int, output: int, prices: tuple[float, float]) -> ServedModel:
    return ServedModel(
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
