"""The echo provider itself."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from openclaw_kernel.api import (
    Completed,
    ModelEvent,
    ModelInfo,
    ModelRequest,
    ProviderError,
    ProviderErrorKind,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
    Usage,
)
from openclaw_providers.echo.settings import EchoSettings
from openclaw_providers.echo.wire import Plan, count_words, pieces, plan

MODEL = "echo"


class EchoProvider:
    """One instance in `models.providers`."""

    label = "Echo"

    def __init__(self, identity: str, settings: EchoSettings) -> None:
        self.id = identity
        self._settings = settings
        self._calls = itertools.count(1)

    async def start(self) -> None:
        """Nothing to prepare."""

    async def stop(self) -> None:
        """Nothing to close."""

    def models(self) -> Sequence[ModelInfo]:
        """Return the one model."""
        return (
            ModelInfo(
                id=MODEL,
                provider=self.id,
                name="Echo",
                context_window=self._settings.context_window,
                images=True,
                input_price=0.0,
                output_price=0.0,
                cache_read_price=0.0,
                cache_write_price=0.0,
            ),
        )

    def problem(self) -> str | None:
        """Return None: it can always answer."""
        return None

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Answer by the last message; see `wire.plan` for what it may ask for."""
        made = plan(request.messages, self._settings)
        read = count_words(request.messages)
        if read > self._settings.context_window:
            message = f"the prompt has {read} words, more than contextWindow {self._settings.context_window}"
            raise ProviderError(ProviderErrorKind.CONTEXT_LENGTH, message, provider=self.id, model=request.model)
        async with aclosing(self._words(made, request)) as words:
            async for event in words:
                yield event
        calls: tuple[ToolCall, ...] = ()
        if made.tool is not None:
            calls = (ToolCall(f"echo_{next(self._calls)}", made.tool, made.arguments),)
        yield Completed(
            stop_reason="tool_calls" if calls else "stop",
            tool_calls=calls,
            thinking=(Thinking(made.thinking),) if made.thinking else (),
            usage=Usage(input_tokens=read, output_tokens=len(made.text.split())),
        )

    async def _words(self, made: Plan, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        if made.thinking:
            yield ThinkingDelta(made.thinking)
        words = pieces(made.text)
        for index, word in enumerate(words):
            if made.fail is not None and index == made.fail_after_words:
                break
            # Without a delay nothing waits: an instant model is what the benchmarks need.
            if made.delay_ms:
                await asyncio.sleep(made.delay_ms / 1000)
            yield TextDelta(word)
        if made.fail is not None:
            told = f"told to fail with {made.fail}"
            raise ProviderError(made.fail, told, provider=self.id, model=request.model, retry_after=made.retry_after)
        if made.hang:
            await asyncio.Event().wait()
