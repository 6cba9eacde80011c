"""Settings of one entry of `models.providers` that runs a model on this machine."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from openclaw_kernel.api import PluginSettings


class LocalSettings(PluginSettings):
    """`models.providers.local`; every key has a default that suits the bundled model on two cores."""

    model_config = ConfigDict(validate_by_name=True, protected_namespaces=())

    api: Literal["local"] = "local"
    """Names this provider plugin; needed where the entry's id is not `local`."""
    model_path: str | None = None
    """A model file in the GGUF format; unset means the bundled SmolLM2-135M-Instruct."""
    context_tokens: Annotated[int, Field(ge=512, le=131_072)] = 4096
    """Tokens of prompt and answer together; each costs memory (23 KiB for the bundled model, which knows 8192)."""
    threads: Annotated[int, Field(ge=1, le=256)] | None = None
    """Processor threads to compute with; unset means all cores but one, which stays free for the gateway."""
    max_output_tokens: Annotated[int, Field(ge=1, le=32_768)] = 256
    """Longest answer, where the agent sets no limit."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Liveliness of answers; 0 takes the likeliest word each time, which keeps a very small model with the facts."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Only the likeliest words that together have this probability are considered; without effect at temperature 0."""
    repeat_penalty: Annotated[float, Field(ge=1, le=2)] = 1.0
    """Above 1 discourages words that were used before; spoils facts of a very small model."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Makes answers repeatable at a temperature above 0; unset means a new one each time."""
    stop: list[str] = []
    """Texts at which an answer ends, beside the model's own end mark."""
    system_prompt: Literal["compact", "full"] = "compact"
    """`compact` replaces the agent's instructions by one sentence and a short example conversation, and sends only
    the last turns: a very small model loses its way in more. `full` sends everything: for larger models."""
    compact_prompt: str = "You are a helpful AI assistant."
    """The sentence that `compact` puts in place of the agent's instructions."""
    history_turns: Annotated[int, Field(ge=1, le=100)] = 8
    """How many of the last questions `compact` sends, with their answers."""
    preload: bool = True
    """Load the model in the background at the start; false waits for the first question."""
    load_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Longest the model may take to load."""
    silence_seconds: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """A worker that shows no sign of life for so long amid an answer is ended and started anew."""
