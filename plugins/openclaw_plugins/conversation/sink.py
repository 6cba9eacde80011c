"""Where a running turn reports: to the clients at once, to the transcript durably."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

from openclaw_kernel.api import (
    AssistantMessage,
    GatewayError,
    Message,
    Step,
    StepBegun,
    ToolCall,
    ToolResultMessage,
    TurnClosed,
    Usage,
)
from openclaw_plugins.conversation import journal, transcript, writable
from openclaw_plugins.conversation.calls import Call, Journal
from openclaw_plugins.conversation.durable import write_patiently
from openclaw_plugins.conversation.runs import Run
from openclaw_plugins.conversation.world import World

logger: Final = logging.getLogger(__name__)

JOURNAL_SECONDS: Final = 0.2
"""After so long a call that is harmless to repeat is written down too, for who asks what goes on."""


class Sink:
    """Implements `TurnSink` for one run.

    A message with tool calls, and each result, is on disk before the turn goes on. An answer without calls is written
    together with the run's end, before anybody is told of it. The row of a call that has effects is on disk before it begins;
    any other row, and the end of each, goes with the next message.
    """

    def __init__(self, world: World, run: Run) -> None:
        self._world = world
        self._run = run
        self._closed = False
        self._calls: dict[str, ToolCall] = {}
        self._half = ""
        self._timer: asyncio.TimerHandle | None = None
        self.journal = Journal(attempt=run.attempt, earlier=run.resumed.calls if run.resumed is not None else ())
        self.pending: list[Message] = []
        self.partial = ""
        """What was streamed and not recorded when the run's end was decided."""
        self.answered = False
        """True while the newest message is an answer without tool calls."""

    def open_calls(self) -> Sequence[ToolCall]:
        """Return the recorded tool calls that have no result."""
        return tuple(self._calls.values())

    def take_up(self, messages: Sequence[Message]) -> None:
        """Take note of what an earlier process recorded of this turn."""
        for message in messages:
            self._note(message)

    def close(self) -> None:
        """Take nothing more: the run's end is decided."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._run.stream is not None:
            self._run.stream.close()

    def spent(self) -> tuple[Usage, float | None]:
        """Return tokens and cost of the turn's model calls so far; the cost is None where that of one is unknown."""
        return self.journal.spent()

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
        if isinstance(message, AssistantMessage) and self._run.stream is not None:
            self._run.stream.message_recorded()
        self._note(message)
        self.pending.append(message)
        if not self.answered:
            messages, self.pending = self.pending, []
            # A turn that is cancelled meanwhile does not take the write back, so it must be told as well.
            await self._world.complete(f"record {self._run.run_id}", self._write(messages, self.journal.take()))

    async def begin_step(self, step: StepBegun) -> int:
        self._refuse_closed()
        call = self.journal.open(step)
        if call.has_effects:
            await self._world.complete(f"begin {step.name} of {self._run.run_id}", self._begin(self.journal.take()))
            self._refuse_closed()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(JOURNAL_SECONDS, self._write_down)
        return call.number

    async def end_step(self, number: int, step: Step) -> None:
        if not self._closed:
            self.journal.close(number, step)

    async def record_step(self, step: Step) -> None:
        if not self._closed:
            self.journal.add(step)

    def _note(self, message: Message) -> None:
        if isinstance(message, AssistantMessage):
            self._calls.update({call.id: call for call in message.tool_calls})
        elif isinstance(message, ToolResultMessage):
            self._calls.pop(message.call_id, None)
        self.answered = isinstance(message, AssistantMessage) and not message.tool_calls

    def _refuse_closed(self) -> None:
        if self._closed or self._run.stopped.done():
            raise TurnClosed(journal.STOPPED)

    async def _begin(self, calls: list[Call]) -> None:
        try:
            await write_patiently(self._world.store, lambda connection: journal.begin(connection, self._run, calls))
        except GatewayError:
            self.journal.give_back(calls)
            raise

    def _write_down(self) -> None:
        self._timer = None
        running = [replace(call) for call in self.journal.running()]
        if running and not self._closed:
            self._world.spawn(f"journal of {self._run.run_id}", self._write_running(running))

    async def _write_running(self, calls: list[Call]) -> None:
        """Write rows as they are now; what is taken with the next message brings them up to date, in whatever order they come."""
        try:
            await self._world.store.write(lambda connection: journal.begin(connection, self._run, calls))
        except GatewayError as error:
            logger.info("run %s: what goes on is not written down yet: %s", self._run.run_id, error.message)
        except TurnClosed:
            # It ended meanwhile, and its rows with it.
            return

    async def _write(self, messages: list[Message], calls: list[Call]) -> None:
        run = self._run
        now = self._world.now_ms()

        def write(connection: sqlite3.Connection) -> list[transcript.Entry]:
            journal.write(connection, run, calls)
            return transcript.append(connection, run.session_id, messages, run_id=run.run_id, now_ms=now)

        try:
            entries = await write_patiently(self._world.store, write)
        except GatewayError:
            # The run's end takes them along.
            self.pending = [*messages, *self.pending]
            self.journal.give_back(calls)
            raise
        self._world.transcript.committed(entries)
        for entry in entries:
            self._world.session_events.message(run.run_id, run.session_key, run.agent_id, entry.to_wire())
