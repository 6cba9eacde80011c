"""Where commands are answered: beside the lanes, each between the messages that came before it and those that came after."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from openclaw_kernel.api import Command, CommandCall, GatewayError
from openclaw_plugins.conversation.runs import arrivals

logger: Final = logging.getLogger(__name__)

COMMAND_SECONDS: Final = 30.0
_arrived: ContextVar[int | None] = ContextVar("openclaw_conversation_command_arrived", default=None)


def concerns(number: int) -> bool:
    """Tell whether the command that is being answered may stop a run: one that came after it is none of its business."""
    arrived = _arrived.get()
    return arrived is None or number < arrived


@dataclass(frozen=True, slots=True)
class Visit:
    """One command from its arrival to its answer."""

    session_key: str
    number: int = field(default_factory=lambda: next(arrivals))
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class CommandDesk:
    """Answers commands and remembers which are being answered."""

    def __init__(self) -> None:
        self._visits: dict[str, list[Visit]] = {}

    def arrive(self, session_key: str) -> Visit:
        """Take a command in at its place among the messages; follow with `leave`."""
        visit = Visit(session_key)
        self._visits.setdefault(session_key, []).append(visit)
        return visit

    def leave(self, visit: Visit) -> None:
        """Let the messages go on that came after a command."""
        if not visit.done.done():
            visit.done.set_result(None)
        visits = self._visits.get(visit.session_key, [])
        if visit in visits:
            visits.remove(visit)
        if not visits:
            self._visits.pop(visit.session_key, None)

    def before(self, session_key: str) -> tuple[asyncio.Future[None], ...]:
        """Return the ends of the commands that a message of this moment comes after."""
        return tuple(visit.done for visit in self._visits.get(session_key, ()))

    async def answer(self, visit: Visit, command: Command, call: CommandCall) -> str:
        """Return a command's answer; a command that fails or hangs answers that it did."""

        async def bounded() -> str:
            _arrived.set(visit.number)
            async with asyncio.timeout(COMMAND_SECONDS):
                return await command.run(call)

        (answer,) = await asyncio.gather(bounded(), return_exceptions=True)
        if isinstance(answer, str):
            return answer
        if isinstance(answer, TimeoutError):
            return f"/{command.name} did not answer within {COMMAND_SECONDS:g} s."
        if isinstance(answer, GatewayError):
            return answer.message
        logger.error("command /%s failed", command.name, exc_info=answer)
        return f"/{command.name} failed; the log says more."
