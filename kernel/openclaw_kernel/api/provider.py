"""The contract of a model provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from openclaw_kernel.api.tool import RetryClass
from openclaw_kernel.api.transcript import Message, PairedMessages, Thinking, ToolCall

ThinkingLevel: TypeAlias = Literal["off", "minimal", "low", "medium", "high"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """One model. Prices are US dollars per million tokens, None where unknown; 0.0 for a local model."""

    id: str
    """The provider's own name of the model."""
    provider: str
    """The provider instance, i.e. the key in `models.providers`."""
    name: str
    context_window: int | None = None
    max_output_tokens: int | None = None
    reasoning: bool = False
    tools: bool = True
    images: bool = False
    input_price: float | None = None
    output_price: float | None = None
    cache_read_price: float | None = None
    cache_write_price: float | None = None
    retry_class: RetryClass = RetryClass.PURE
    """What may happen to a call that was running when the process died: `side-effecting` for a model that acts by itself."""

    @property
    def ref(self) -> str:
        """`provider/model`."""
        return f"{self.provider}/{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """A tool as the model is told of it; `parameters` is a JSON Schema object."""

    name: str
    description: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """One model call. Tool calls and results are always paired: `messages` is made `PairedMessages`, which cannot hold others."""

    model: str
    system: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: Literal["auto", "none"] = "auto"
    """`none` asks for an answer without further calls; the tools stay named, because a history that holds calls may need them."""
    max_output_tokens: int | None = None
    thinking: ThinkingLevel | None = None
    agent_id: str
    session_key: str
    session_id: str
    """Changes when the session is reset; a provider that keeps its own conversation resumes by it."""
    run_id: str
    workspace: Path

    def __post_init__(self) -> None:
        if not isinstance(self.messages, PairedMessages):
            object.__setattr__(self, "messages", PairedMessages(self.messages))


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the visible answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """More of the reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolStep:
    """A tool that the provider ran itself (an agentic command-line provider), shown but not run by us."""

    id: str
    name: str
    phase: Literal["start", "result"]
    arguments: dict[str, Any] = field(default_factory=dict)
    result: str = ""
    is_error: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one call; `input_tokens` excludes cached ones. `cost_usd` only where the provider itself states it."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The last event of every stream that did not raise."""

    stop_reason: Literal["stop", "length", "tool_calls", "refusal"]
    tool_calls: tuple[ToolCall, ...] = ()
    thinking: tuple[Thinking, ...] = ()
    """Reasoning blocks that must be sent back with the tool results."""
    usage: Usage = Usage()
    model: str | None = None
    """The model that answered, where it differs from the one asked for."""


ModelEvent: TypeAlias = TextDelta | ThinkingDelta | ToolStep | Completed


@runtime_checkable
class Provider(Protocol):
    """One instance in `models.providers`, registered by `openclaw_register_providers`."""

    id: str
    """The key in `models.providers`."""
    label: str

    async def start(self) -> None:
        """Prepare what needs preparing (a worker); must not wait for the network. Raise as `Channel.start` does."""

    async def stop(self) -> None:
        """Close every client and child; safe to call twice."""

    def models(self) -> Sequence[ModelInfo]:
        """Return the models known now, without I/O; the first is the provider's default."""

    def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Call the model. Raise `ProviderError`; closing the iterator aborts the call within a second."""

    def problem(self) -> str | None:
        """Say in one line with the cure why this provider cannot answer now (a missing key), or return None."""
