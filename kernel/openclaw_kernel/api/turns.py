"""A turn and what runs it (plugin `agents`, replaceable): `context.service(AgentRuntime)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from openclaw_kernel.api.provider import ThinkingLevel, Usage
from openclaw_kernel.api.tool import RetryClass
from openclaw_kernel.api.transcript import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn to run. `history` ends before the new user message; `message` is the new one.

    `resumed` is what this turn recorded after it, before the gateway stopped in its midst: the turn goes on from there. A call
    in it without a result may be made again, or was never made.
    """

    run_id: str
    agent_id: str
    session_key: str
    session_id: str
    message: Message
    history: tuple[Message, ...]
    model: str | None = None
    """Model reference chosen for the session or the call; None means the agent's."""
    thinking: ThinkingLevel | None = None
    timeout_seconds: float | None = None
    extra_system_prompt: str | None = None
    channel: str | None = None
    resumed: tuple[Message, ...] = ()


class TurnSink(Protocol):
    """Where a running turn reports. The first three never wait."""

    def text(self, delta: str) -> None: ...
    def thinking(self, delta: str) -> None: ...
    def tool(
        self,
        phase: Literal["start", "result"],
        *,
        call_id: str,
        name: str,
        arguments: Mapping[str, Any],
        result: str = "",
        is_error: bool = False,
    ) -> None: ...
    async def record(self, message: Message) -> None:
        """Append a finished message to the transcript, durably."""
        ...

    async def begin_step(self, step: StepBegun) -> int:
        """Write down that a call begins; return its number in the journal.

        On disk before it returns where the call is side-effecting. Raise `TurnClosed` where the turn was stopped or has
        ended: the call must not be made.
        """
        ...

    async def end_step(self, number: int, step: Step) -> None:
        """Write down how a call ended, together with the message that is recorded next."""
        ...

    async def record_step(self, step: Step) -> None:
        """Write down a call that began and ended elsewhere, together with the message that is recorded next."""
        ...


class TurnClosed(Exception):
    """The turn was stopped or has ended; nothing more may begin in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBegun:
    """A model or tool call that is about to be made. Times are Unix milliseconds."""

    kind: Literal["model", "tool"]
    name: str
    """`provider/model` or the tool's name."""
    started_ms: int
    retry_class: RetryClass
    """What may be done about the call where the process dies before it has ended."""
    call_id: str | None = None
    """The tool call's id in the transcript; None for a model."""
    arguments: Mapping[str, Any] | None = None
    """Only their digest is kept here; the transcript has the arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One model or tool call of a turn, as the usage reports need it. Times are Unix milliseconds."""

    kind: Literal["model", "tool"]
    name: str
    """`provider/model` or the tool's name."""
    started_ms: int
    ended_ms: int
    usage: Usage = Usage()
    cost_usd: float | None = None
    error: str | None = None
    retry_class: str | None = None
    call_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnResult:
    """How a turn ended. `error` is one line for the person who asked; `error_kind` is the protocol's."""

    status: Literal["ok", "error", "timeout"]
    text: str
    stop_reason: str | None = None
    error: str | None = None
    error_kind: Literal["refusal", "timeout", "rate_limit", "context_length", "unknown"] | None = None
    model: str | None = None
    usage: Usage = Usage()
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentInfo:
    """One configured agent."""

    id: str
    name: str
    is_default: bool
    emoji: str | None
    avatar: str | None
    workspace: str
    model: str | None
    """Model reference in force, None where no provider has a model."""
    fallbacks: tuple[str, ...]
    context_tokens: int | None
    thinking: ThinkingLevel | None
    timeout_seconds: float


class AgentRuntime(Protocol):
    """Runs turns (plugin `agents`). Cancelling `run` aborts the model call and every tool within a second."""

    async def run(self, turn: Turn, sink: TurnSink) -> TurnResult: ...
    def agents(self) -> Sequence[AgentInfo]: ...
    def agent(self, agent_id: str) -> AgentInfo | None: ...
    def default_agent_id(self) -> str: ...
    def problems(self) -> Sequence[str]:
        """Return what keeps agents from answering as configured, a line each with the cure, without I/O."""
        ...
