"""Where a running turn reports: to the clients at once, to the transcript durably."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from openclaw_kernel.api import AssistantMessage, GatewayError, Message, Step, ToolCall, ToolResultMessage, Usage
from openclaw_plugins.conversation import transcript, writable
from openclaw_plugins.conversation.durable import write_patiently
from openclaw_plugins.conversation.runs import Run, insert_steps
from openclaw_plugins.conversation.world import World

logger: Final = logging.getLogger(__name__)


class Sink:
    """Implements `TurnSink` for one run.

    A message with tool calls, and each result, is on disk before the turn goes on. An answer without calls is written
    together with the run's end, before anybody is told of it; steps go with the next message.
    """

    def __init__(self, world: World, run: Run) -> None:
        self._world = world
        self._run = run
        self._closed = False
        self._calls: dict[str, ToolCall] = {}
        self._half = ""
        self._model_steps: list[Step] = []
        self.pending: list[Message] = []
        self.steps: list[Step] = []
        self.partial = ""
        """What was streamed and not recorded when the run's end was decided."""
        self.answered = False
        """True while the newest message is an answer without tool calls."""

    def open_calls(self) -> Sequence[ToolCall]:
        """Return the recorded tool calls that have no result."""
        return tuple(self._calls.values())

    def close(self) -> None:
        """Take nothing more: the run's end is decided."""
        self._closed = True
        if self._run.stream is not None:
            self._run.stream.close()

    def spent(self) -> tuple[Usage, float | None]:
        """Return tokens and cost of the model calls so far; the cost is None where that of one is unknown."""
        costs = [step.cost_usd for step in self._model_steps]
        known = [cost for cost in costs if cost is not None]
        usages = [step.usage for step in self._model_steps]
        usage = Usage(
            input_tokens=sum(one.input_tokens for one in usages),
            output_tokens=sum(one.output_tokens for one in usages),
            cache_read_tokens=sum(one.cache_read_tokens for one in usages),
            cache_write_tokens=sum(one.cache_write_tokens for one in usages),
        )
        return usage, sum(known) if known and len(known) == len(costs) else None

    def text(self, delta: str) -> None:
        delta = self._half + delta
        # A model's stream may be cut between the halves of a surrogate pair.
        self._half = delta[-1:] if "\ud800" <= delta[-1:] <= "\udbff" else ""
        if self._run.stream is not None:
            self._run.stream.text(writable.text(delta.removesuffix(self._half)))

    def thinking(self, delta: str) -> None:
        if self._run.stream is not None:
            self._run.stream.thinking(writable.text(delta))

    def tool(
        self,
        phase: Literal["start", "result"],
        *,
        call_id: str,
        name: str,
        arguments: Mapping[str, Any],
        result: str = "",
        is_error: bool = False,
    ) -> None:
        if self._run.stream is not None:
            self._run.stream.tool(
                phase,
                call_id=writable.text(call_id),
                name=writable.text(name),
                arguments=writable.value(arguments),
                result=writable.text(result),
                is_error=is_error,
            )

    async def record(self, message: Message) -> None:
        if self._closed:
            logger.info("run %s: a message that came after its end was left out", self._run.run_id)
            return
        if isinstance(message, AssistantMessage):
            if self._run.stream is not None:
                self._run.stream.message_recorded()
            self._calls.update({call.id: call for call in message.tool_calls})
        elif isinstance(message, ToolResultMessage):
            self._calls.pop(message.call_id, None)
        self.pending.append(message)
        self.answered = isinstance(message, AssistantMessage) and not message.tool_calls
        if not self.answered:
            messages, self.pending = self.pending, []
            steps, self.steps = self.steps, []
            # A turn that is cancelled meanwhile does not take the write back, so it must be told as well.
            await self._world.complete(f"record {self._run.run_id}", self._write(messages, steps))

    async def record_step(self, step: Step) -> None:
        if self._closed:
            return
        self.steps.append(step)
        if step.kind == "model":
            self._model_steps.append(step)

    async def _write(self, messages: list[Message], steps: list[Step]) -> None:
        run = self._run
        now = self._world.now_ms()

        def write(connection: sqlite3.Connection) -> list[transcript.Entry]:
            insert_steps(connection, run, steps)
            return transcript.append(connection, run.session_id, messages, run_id=run.run_id, now_ms=now)

        try:
            entries = await write_patiently(self._world.store, write)
        except GatewayError:
            # The run's end takes them along.
            self.pending = [*messages, *self.pending]
            self.steps = [*steps, *self.steps]
            raise
        self._world.transcript.committed(entries)
        for entry in entries:
            self._world.session_events.message(run.run_id, run.session_key, run.agent_id, entry.to_wire())
