"""Where a running turn reports: to the clients at once, to the transcript durably."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from openclaw_kernel.api import AssistantMessage, Message, Step, ToolCall, ToolResultMessage
from openclaw_plugins.conversation import transcript
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

    def text(self, delta: str) -> None:
        if self._run.stream is not None:
            self._run.stream.text(delta)

    def thinking(self, delta: str) -> None:
        if self._run.stream is not None:
            self._run.stream.thinking(delta)

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
            self._run.stream.tool(phase, call_id=call_id, name=name, arguments=arguments, result=result, is_error=is_error)

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
            await self._write()

    async def record_step(self, step: Step) -> None:
        if not self._closed:
            self.steps.append(step)

    async def _write(self) -> None:
        run = self._run
        messages, self.pending = self.pending, []
        steps, self.steps = self.steps, []
        now = self._world.now_ms()

        def write(connection: sqlite3.Connection) -> list[transcript.Entry]:
            insert_steps(connection, run, steps)
            return transcript.append(connection, run.session_id, messages, run_id=run.run_id, now_ms=now)

        entries = await self._world.store.write(write)
        self._world.transcript.committed(entries)
        for entry in entries:
            self._world.session_events.message(run.run_id, run.session_key, run.agent_id, entry.to_wire())
