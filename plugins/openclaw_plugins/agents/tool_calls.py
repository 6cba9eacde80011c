"""The tool calls of one turn: who may be called, in what order, and when it is enough."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from openclaw_kernel.api import (
    RetryClass,
    Step,
    StepBegun,
    Tool,
    ToolCall,
    ToolContext,
    ToolResult,
    ToolResultMessage,
    Tools,
    ToolSpec,
    TurnSink,
)
from openclaw_plugins.agents.plan import AgentPlan
from openclaw_plugins.agents.tokens import cut_middle

SAME_CALL_LIMIT: Final = 3
"""The how-manieth identical call in a row is refused."""
MAX_PARALLEL: Final = 8


def offered_tools(plan: AgentPlan, tools: Tools) -> dict[str, Tool[Any]]:
    """Return the tools that the agent may use, by name."""
    return {tool.name: tool for tool in tools.all() if plan.permits(tool)}


def tool_specs(offered: Mapping[str, Tool[Any]]) -> tuple[ToolSpec, ...]:
    """Return the tools as a model is told of them, in a fixed order so that its prompt stays cached."""
    return tuple(ToolSpec(name=name, description=tool.description, parameters=tool.schema()) for name, tool in sorted(offered.items()))


class ToolCaller:
    """Runs the calls of one turn; every failure is a result for the model."""

    def __init__(
        self,
        *,
        tools: Tools,
        offered: Mapping[str, Tool[Any]],
        sink: TurnSink,
        context: Callable[[str], ToolContext],
        now_ms: Callable[[], int],
        result_tokens: int,
    ) -> None:
        self._tools = tools
        self._offered = offered
        self._sink = sink
        self._context = context
        self._now_ms = now_ms
        self._result_tokens = result_tokens
        self._last: tuple[str, str] | None = None
        self._repeats = 0

    async def run(self, calls: Sequence[ToolCall]) -> list[ToolResultMessage]:
        """Run the calls: side by side where all are pure, else one after the other. Results are in the order of the calls."""
        refusals = [self._refusal(call) for call in calls]
        pairs = list(zip(calls, refusals, strict=True))
        results: list[ToolResultMessage] = []
        if len(calls) > 1 and all(refusal or self._is_pure(call) for call, refusal in pairs):
            places = asyncio.Semaphore(MAX_PARALLEL)
            # One that may not begin any more must not leave the others running: they end when the turn is cancelled.
            outcomes = await asyncio.gather(*(self._run_in(places, call, refusal) for call, refusal in pairs), return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
                await self._sink.record(outcome)
                results.append(outcome)
            return results
        for call, refusal in pairs:
            result = await self._run_one(call, refusal)
            await self._sink.record(result)
            results.append(result)
        return results

    async def _run_in(self, places: asyncio.Semaphore, call: ToolCall, refusal: str | None) -> ToolResultMessage:
        async with places:
            return await self._run_one(call, refusal)

    async def _run_one(self, call: ToolCall, refusal: str | None) -> ToolResultMessage:
        if refusal is not None:
            return await self._refused(call, refusal)
        retry_class = self._offered[call.name].retry_class
        started = self._now_ms()
        number = await self._sink.begin_step(
            StepBegun(kind="tool", name=call.name, started_ms=started, retry_class=retry_class, call_id=call.id, arguments=call.arguments)
        )
        self._sink.tool("start", call_id=call.id, name=call.name, arguments=call.arguments)
        result = await self._tools.run(call.name, self._context(call.id), call.arguments)
        text = self._show(call, result)
        step = self._step(call, started, text if result.is_error else None, retry_class)
        await self._sink.end_step(number, step)
        return ToolResultMessage(call_id=call.id, name=call.name, text=text, is_error=result.is_error, timestamp_ms=step.ended_ms)

    async def _refused(self, call: ToolCall, refusal: str) -> ToolResultMessage:
        started = self._now_ms()
        tool = self._offered.get(call.name)
        self._sink.tool("start", call_id=call.id, name=call.name, arguments=call.arguments)
        text = self._show(call, ToolResult(text=refusal, is_error=True))
        step = self._step(call, started, text, tool.retry_class if tool is not None else None)
        await self._sink.record_step(step)
        return ToolResultMessage(call_id=call.id, name=call.name, text=text, is_error=True, timestamp_ms=step.ended_ms)

    def _show(self, call: ToolCall, result: ToolResult) -> str:
        text = cut_middle(result.text, self._result_tokens)
        self._sink.tool("result", call_id=call.id, name=call.name, arguments=call.arguments, result=text, is_error=result.is_error)
        return text

    def _step(self, call: ToolCall, started_ms: int, error: str | None, retry_class: RetryClass | None) -> Step:
        return Step(
            kind="tool",
            name=call.name,
            started_ms=started_ms,
            ended_ms=self._now_ms(),
            error=error.partition("\n")[0][:200] if error is not None else None,
            retry_class=retry_class.value if retry_class is not None else None,
            call_id=call.id,
        )

    def _is_pure(self, call: ToolCall) -> bool:
        tool = self._offered.get(call.name)
        return tool is not None and tool.retry_class is RetryClass.PURE

    def note(self, call: ToolCall) -> None:
        """Count a call that was answered before."""
        same = (call.name, json.dumps(call.arguments, sort_keys=True, ensure_ascii=False, default=str))
        self._repeats = self._repeats + 1 if same == self._last else 1
        self._last = same

    def _refusal(self, call: ToolCall) -> str | None:
        """Return why a call is not run, and count it."""
        self.note(call)
        if call.name not in self._offered:
            return f"there is no tool {call.name!r}; available: {', '.join(sorted(self._offered)) or 'none'}"
        if self._repeats >= SAME_CALL_LIMIT:
            return (
                f"not run: {call.name} was called {self._repeats} times in a row with the same arguments; "
                "use the results so far, or do something else"
            )
        return None
