"""What an earlier process left behind: what waited waits again; what ran goes on, or ends with a word about why it does not."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from openclaw_kernel.api import AssistantMessage, Message, ToolResultMessage, UserMessage
from openclaw_plugins.conversation import journal, ledger, transcript
from openclaw_plugins.conversation.calls import Call
from openclaw_plugins.conversation.durable import write_patiently
from openclaw_plugins.conversation.endings import INTERRUPTED, Endings
from openclaw_plugins.conversation.intake import run_of
from openclaw_plugins.conversation.lanes import Lanes
from openclaw_plugins.conversation.ledger import Inbound
from openclaw_plugins.conversation.runs import Outcome, Resumed, Run
from openclaw_plugins.conversation.sink import Sink
from openclaw_plugins.conversation.world import World

logger: Final = logging.getLogger(__name__)

MOST_RESUMES: Final = 2
UNREADABLE: Final = "cannot be read back"
_BROKEN_OFF: Final = frozenset({"error", "timeout", "aborted"})
"""Stop reasons of an assistant message that is what there was of an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What is on disk of a turn that ran when its process ended."""

    attempts: int
    """How often it was begun, without those where the gateway stopped in order."""
    stopped: bool = False
    """Whether somebody asked for its end."""
    message: UserMessage | None = None
    """None where its beginning cannot be found."""
    messages: tuple[Message, ...] = ()
    """Those after the user message."""
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """The turn ends like this."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Resume:
    """The turn goes on from these messages."""

    messages: tuple[Message, ...]


Decision: TypeAlias = End | Resume


def decide(left: Left) -> Decision:
    """Decide what becomes of a turn. Pure.

    Nothing that may have had an effect is done a second time: that is for a person to say.
    """
    if left.stopped:
        return End(Outcome(status="aborted", stop_reason="aborted"))
    answered = {message.call_id for message in left.messages if isinstance(message, ToolResultMessage)}
    doubtful = [call for call in left.calls if call.state == "running" and call.has_effects and call.call_id not in answered]
    if doubtful:
        return End(_interrupted(_in_doubt(doubtful)))
    if left.message is None:
        return End(_interrupted(INTERRUPTED))
    last = left.messages[-1] if left.messages else None
    if isinstance(last, AssistantMessage) and not last.tool_calls:
        if last.stop_reason not in _BROKEN_OFF:
            resumed = Resumed(messages=left.messages, calls=left.calls)
            return End(Outcome(status="ok", text=resumed.text, stop_reason=last.stop_reason or "stop", model=_ref(last)))
        return decide_attempt(left, left.messages[:-1])
    return decide_attempt(left, left.messages)


def decide_attempt(left: Left, messages: tuple[Message, ...]) -> Decision:
    """Let a turn go on that may, unless it was cut off too often: it may be what ends the process."""
    if left.attempts > MOST_RESUMES:
        times = f"the gateway stopped {left.attempts} times during this turn"
        return End(_interrupted(f"{times}, so it was not begun again. Please send your message again, or ask for less at once."))
    return Resume(messages)


def _interrupted(error: str) -> Outcome:
    return Outcome(status="interrupted", error=error, stop_reason="interrupted")


def _in_doubt(calls: Sequence[Call]) -> str:
    names = " and ".join(dict.fromkeys(f"the tool {call.name}" if call.kind == "tool" else f"the model {call.name}" for call in calls))
    return (
        f"I was interrupted while {names} was at work: what it was doing may or may not have taken effect, so I did not do it again. "
        "Please look, then tell me how to go on."
    )


def _ref(message: AssistantMessage) -> str | None:
    return f"{message.provider}/{message.model}" if message.provider and message.model else None


class Recovery:
    """Takes up, once at the start, the messages that have no end."""

    def __init__(self, world: World, lanes: Lanes, endings: Endings) -> None:
        self._world = world
        self._lanes = lanes
        self._endings = endings

    async def recover(self) -> Sequence[Inbound]:
        """Line up what waited, take up or end what ran; return, in order, the messages about which nothing was decided yet."""
        left, unreadable = await self._world.store.read(ledger.unfinished)
        stopped = await self._world.store.read(_stopped_ids)
        if unreadable:
            await self._give_up(unreadable)
        ran = [entry for entry in left if entry.state == "running"]
        runs = await asyncio.gather(*(self._take_up(entry, stopped=entry.id in stopped) for entry in ran))
        for run in runs:
            if run is not None:
                self._line_up(run)
        undecided: list[Inbound] = []
        for entry in left:
            if entry.state == "running":
                continue
            if entry.id in stopped:
                await self._end(run_of(entry), Left(attempts=0, stopped=True))
            elif entry.state == "queued" and not undecided:
                self._line_up(run_of(entry))
            else:
                # What waited stays behind a message that came before it, also where about that one nothing was decided yet.
                undecided.append(entry)
        return undecided

    def _line_up(self, run: Run) -> None:
        run.lined_up = True
        self._world.board.add(run)
        self._lanes.enqueue(run)

    async def _give_up(self, inbound_ids: Sequence[int]) -> None:
        now = self._world.now_ms()

        def write(connection: sqlite3.Connection) -> None:
            for inbound_id in inbound_ids:
                ledger.end(connection, inbound_id, "dead_lettered", UNREADABLE, now)
                journal.give_up(connection, inbound_id, UNREADABLE, now)

        await write_patiently(self._world.store, write)

    async def _take_up(self, entry: Inbound, *, stopped: bool) -> Run | None:
        """Return the run of a turn that goes on; one that does not is ended."""
        run = run_of(entry)
        (left,) = await asyncio.gather(self._read(run, stopped=stopped), return_exceptions=True)
        if isinstance(left, BaseException):
            logger.error("message %s of %s: its turn cannot be read back and ends", entry.message_id, entry.channel, exc_info=left)
            left = Left(attempts=0, stopped=stopped)
        decision = decide(left)
        if isinstance(decision, Resume):
            run.message = left.message
            run.resumed = Resumed(messages=decision.messages, calls=left.calls)
            return run
        await self._end(run, left, decision.outcome)
        return None

    async def _end(self, run: Run, left: Left, outcome: Outcome | None = None) -> None:
        self._world.board.add(run)
        sink = Sink(self._world, run)
        sink.take_up(left.messages)
        await self._endings.finish(run, outcome or Outcome(status="aborted", stop_reason="aborted"), sink)

    async def _read(self, run: Run, *, stopped: bool) -> Left:
        """Read what is on disk of a run, and note in it what it is to go on with."""
        found = await self._world.store.read(lambda connection: _read_turn(connection, run))
        if found is None:
            return Left(attempts=0, stopped=stopped)
        run.begun = True
        run.row_id, run.session_id, run.started_ms, resumes, run.user_seq, attempts, messages, calls = found
        run.attempt = resumes + 2
        first = messages[0] if messages else None
        return Left(
            attempts=attempts,
            stopped=stopped,
            message=first if isinstance(first, UserMessage) else None,
            messages=tuple(messages[1:]),
            calls=calls,
        )


def _stopped_ids(connection: sqlite3.Connection) -> set[int]:
    rows = connection.execute(
        "SELECT id FROM conversation_inbound WHERE state IN ('accepted', 'routed', 'queued', 'running') AND stop_ms IS NOT NULL"
    )
    return {row[0] for row in rows}


_TurnRows: TypeAlias = tuple[int, str, int | None, int, int, int, list[Message], tuple[Call, ...]]


def _read_turn(connection: sqlite3.Connection, run: Run) -> _TurnRows | None:
    """Return row, session, start, resumes, first message's number, attempts, messages and calls of a message's newest turn."""
    row = connection.execute(
        "SELECT runs.id, runs.session_id, runs.started_ms, runs.resumes, inbound.attempts FROM conversation_runs AS runs"
        " JOIN conversation_inbound AS inbound ON inbound.id = runs.inbound_id WHERE runs.inbound_id = ? ORDER BY runs.id DESC LIMIT 1",
        (run.inbound_id,),
    ).fetchone()
    if row is None:
        return None
    run_row, session_id, started_ms, resumes, attempts = row
    try:
        first, messages = transcript.read_turn(connection, session_id, run.run_id)
    except (ValueError, KeyError, TypeError):
        # Its row is known all the same, and gets the end.
        logger.exception("run %s: its messages cannot be read back", run.run_id)
        first, messages = 0, []
    return run_row, session_id, started_ms, resumes, first, attempts, messages, journal.read(connection, run_row)
