"""One call of a model: its stream, the deltas that reach the person, and what is left when it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import cast

from openclaw_kernel.api import (
    AssistantMessage,
    Completed,
    ModelEvent,
    ModelRequest,
    ProviderError,
    ProviderErrorKind,
    Step,
    TextDelta,
    ThinkingDelta,
    ToolStep,
    TurnSink,
)


@dataclass(slots=True)
class Spoken:
    """What the person has seen of a turn so far, over all its calls."""

    deltas: list[str] = field(default_factory=list)
    tool_steps: int = 0
    _recalled: tuple[int, int] = (0, 0)

    @property
    def text(self) -> str:
        """Exactly the deltas sent to the sink."""
        return "".join(self.deltas)

    def recall(self, message: AssistantMessage) -> None:
        """Take up what was said, and which tools were called, before the gateway stopped in the midst of the turn."""
        if message.text:
            self.deltas.append(self.spaced(message.text))
        self.tool_steps += len(message.tool_calls)
        self._recalled = (len(self.deltas), self.tool_steps)

    def spaced(self, text: str) -> str:
        """Return the first words of a further call: the words before a tool call and those after it are one answer."""
        return f"\n\n{text}" if self.deltas and not self.deltas[-1].endswith("\n") else text

    @property
    def anything(self) -> bool:
        """Whether another model could no longer answer unnoticed; with what was said before a stop, any may go on."""
        return (len(self.deltas), self.tool_steps) != self._recalled


@dataclass(slots=True)
class ModelCall:
    """One call in progress. `said` is the text of this call alone, also when it broke off; `acted` tells of tools that it ran itself."""

    provider: str
    request: ModelRequest
    sink: TurnSink
    spoken: Spoken
    now_ms: Callable[[], int]
    said: list[str] = field(default_factory=list)
    acted: bool = False
    running: dict[str, int] = field(default_factory=dict)

    async def run(self, stream: AsyncIterator[ModelEvent], *, first_event_seconds: float | None) -> Completed:
        """Pass the events on and return the last one; raise `ProviderError`.

        `first_event_seconds` bounds the silence before the first event, where another model could step in.
        """
        # Every stream is a generator in fact: closing it is what aborts the call.
        async with aclosing(cast("AsyncGenerator[ModelEvent, None]", stream)) as events:
            try:
                async with asyncio.timeout(first_event_seconds):
                    event = await anext(events, None)
            except TimeoutError as error:
                raise self._error(ProviderErrorKind.TIMEOUT, f"no answer began within {first_event_seconds:.0f} seconds") from error
            while event is not None:
                if isinstance(event, Completed):
                    return event
                await self._pass_on(event)
                event = await anext(events, None)
        raise self._error(ProviderErrorKind.UNAVAILABLE, "the answer broke off")

    async def _pass_on(self, event: TextDelta | ThinkingDelta | ToolStep) -> None:
        match event:
            case TextDelta() if event.text:
                self._say(event.text)
            case ThinkingDelta():
                self.sink.thinking(event.text)
            case ToolStep():
                await self._show_step(event)

    def _say(self, text: str) -> None:
        if not self.said:
            text = self.spoken.spaced(text)
        self.said.append(text)
        self.spoken.deltas.append(text)
        self.sink.text(text)

    async def _show_step(self, step: ToolStep) -> None:
        self.spoken.tool_steps += 1
        self.acted = True
        self.sink.tool(
            step.phase,
            call_id=step.id,
            name=step.name,
            arguments=step.arguments,
            result=step.result,
            is_error=step.is_error,
        )
        if step.phase == "start":
            self.running[step.id] = self.now_ms()
            return
        now = self.now_ms()
        await self.sink.record_step(
            Step(
                kind="tool",
                name=step.name,
                started_ms=self.running.pop(step.id, now),
                ended_ms=now,
                call_id=step.id,
                error=step.result.partition("\n")[0][:200] if step.is_error else None,
            )
        )

    def _error(self, kind: ProviderErrorKind, message: str) -> ProviderError:
        return ProviderError(kind, message, provider=self.provider, model=self.request.model)
