"""One turn: begun durably, run by the agent runtime, and handed to its end, whatever happens in between."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from openclaw_kernel.api import (
    AgentRuntime,
    AgentTimeout,
    GatewayError,
    Message,
    Text,
    ThinkingLevel,
    Turn,
    TurnClosed,
    TurnResult,
    Usage,
    UserMessage,
    UserPart,
)
from openclaw_plugins.conversation import journal, ledger, sessions, transcript, writable
from openclaw_plugins.conversation.chat_events import RunStream
from openclaw_plugins.conversation.durable import write_patiently
from openclaw_plugins.conversation.endings import Endings, visible
from openclaw_plugins.conversation.runs import ErrorKind, Outcome, Run, insert_run
from openclaw_plugins.conversation.sessions import PREVIEW_CHARACTERS, TITLE_CHARACTERS, SessionRow, shorten
from openclaw_plugins.conversation.sink import Sink
from openclaw_plugins.conversation.transcript import Entry
from openclaw_plugins.conversation.world import World

logger: Final = logging.getLogger(__name__)

SILENT: Final = "NO_REPLY"
GRACE_SECONDS: Final = 0.5
ABANDON_SECONDS: Final = 0.8
ABANDON_LATE_SECONDS: Final = 0.4


@dataclass(frozen=True, slots=True)
class Begun:
    """What the write that begins a turn hands back."""

    row: SessionRow
    created: bool
    entry: Entry
    run_row: int


def begin_in(connection: sqlite3.Connection, run: Run, now_ms: int) -> Begun:
    """Write, inside one write, that a run has its lane: the user message, the run, the ledger's state."""
    row, created = sessions.find_or_create(connection, run.session_key, run.agent_id, now_ms)
    parts = run.parts
    if parts is None:
        parts = ledger.parts_of(ledger.read_attachments(connection, "inbound", run.inbound_id))
    (entry,) = transcript.append(connection, row.session_id, (_user_message(run, parts),), run_id=run.run_id, now_ms=now_ms)
    run_row = insert_run(connection, run, row.session_id, now_ms)
    ledger.advance(
        connection,
        run.inbound_id,
        "running",
        now_ms=now_ms,
        agent_id=run.agent_id,
        session_key=run.session_key,
        run_id=run.run_id,
        route_reason=run.route_reason,
        admission=run.admission,
    )
    ledger.drop_attachments(connection, "inbound", run.inbound_id)
    origin = run.options.deliver_to
    place: dict[str, Any] = {}
    if origin is not None:
        place = {
            "channel": origin.channel,
            "account_id": origin.account_id,
            "peer_kind": origin.peer_kind,
            "peer_id": origin.peer_id,
            "thread_id": origin.thread_id,
        }
    elif row.channel is None:
        place = {"channel": ledger.WEBCHAT}
    row = replace(
        row,
        updated_ms=now_ms,
        interaction_ms=now_ms,
        last_run_id=run.run_id,
        title=row.title or shorten(run.text, TITLE_CHARACTERS) or None,
        preview=shorten(run.text, PREVIEW_CHARACTERS) or row.preview,
        archived=0,
        **place,
    )
    return Begun(sessions.save(connection, row), created, entry, run_row)


def resume_in(connection: sqlite3.Connection, run: Run, now_ms: int) -> SessionRow | None:
    """Write, inside one write, that a run goes on which an earlier process did not end; return its session's row.

    What that process had begun and not ended is closed: its calls are made again, as new ones.
    """
    journal.interrupt(connection, run.row_id, now_ms)
    connection.execute("UPDATE conversation_runs SET resumes = resumes + 1 WHERE id = ?", (run.row_id,))
    ledger.advance(
        connection,
        run.inbound_id,
        "running",
        now_ms=now_ms,
        agent_id=run.agent_id,
        session_key=run.session_key,
        run_id=run.run_id,
    )
    return sessions.find(connection, run.session_key)


def _user_message(run: Run, parts: Sequence[UserPart]) -> UserMessage:
    text = (Text(run.text),) if run.text or not parts else ()
    return UserMessage(content=(*text, *parts), timestamp_ms=run.received_ms, extra=run.extra)


class TurnRunner:
    """Performs runs, each in its lane's turn."""

    def __init__(self, world: World, endings: Endings) -> None:
        self._world = world
        self._endings = endings

    async def perform(self, run: Run) -> None:
        """Take a run from its lane to its end. Return within a second of its stop, also where the runtime does not."""
        await _commands_before(run)
        if run.stopped.done():
            if run.stop_status == "aborted":
                await self._endings.finish(run, _stopped(""), _recalled(self._world, run))
            # Else the gateway stops before the turn goes on: it waits in the ledger for the next start.
            return
        now = self._world.now_ms()
        if run.resumed is not None:
            row = await write_patiently(self._world.store, lambda connection: resume_in(connection, run, now))
            self._took_up(run, row, now)
        elif not run.begun:
            begun = await write_patiently(self._world.store, lambda connection: begin_in(connection, run, now))
            self.took_lane(run, begun, now)
        sink = _recalled(self._world, run)
        run.journal = sink.journal
        outcome, task = await self._execute(run, sink)
        if outcome is not None:
            await self._endings.finish(run, outcome, sink)
        else:
            await self._leave(run)
        if task is not None and not task.done():
            # A turn that overran its time had its grace before; the lane is free within a second all the same.
            late = outcome is not None and outcome.status == "timeout"
            await asyncio.wait({task}, timeout=ABANDON_LATE_SECONDS if late else ABANDON_SECONDS)
            if not task.done():
                logger.error("run %s ignored its cancellation and was abandoned; its session goes on", run.run_id)

    async def _leave(self, run: Run) -> None:
        """Let a turn stay open in the ledger, where the next start takes it up, for the gateway stops."""
        try:
            await self._world.store.write(lambda connection: ledger.leave(connection, run.inbound_id))
        except GatewayError as error:
            logger.warning("run %s: that it was left in order is not written, so it counts as cut off: %s", run.run_id, error.message)

    def took_lane(self, run: Run, begun: Begun, now_ms: int) -> None:
        """Take note that the write that begins a run is on disk."""
        run.begun = True
        run.parts = ()
        run.started_ms = now_ms
        run.session_id = begun.row.session_id
        run.row_id = begun.run_row
        run.user_seq = begun.entry.seq
        run.message = begun.entry.message
        world = self._world
        run.stream = RunStream(run, world.events, world.channels, now_ms)
        world.sessions.put(begun.row, created=begun.created)
        world.transcript.committed((begun.entry,))
        world.session_events.message(run.run_id, run.session_key, run.agent_id, begun.entry.to_wire())
        world.changed(begun.row, "created" if begun.created else "send")

    def _took_up(self, run: Run, row: SessionRow | None, now_ms: int) -> None:
        """Take note that the write by which a run goes on is on disk."""
        world = self._world
        run.stream = RunStream(run, world.events, world.channels, now_ms)
        if row is not None:
            world.changed(row, "send")

    # --- running ------------------------------------------------------------------------------------------------------

    async def _execute(self, run: Run, sink: Sink) -> tuple[Outcome | None, asyncio.Task[Any] | None]:
        """Run a turn; return how it ended, None for one that is left to the next process, and its task."""
        world = self._world
        try:
            runtime = world.runtime
        except LookupError:
            return _error("no plugin runs agents; enable the plugin agents"), None
        agent = runtime.agent(run.agent_id)
        if agent is None:
            return _error(f"agent {run.agent_id} is not configured; add it under agents.entries"), None
        stream, message = run.stream, run.message
        if stream is None or message is None:
            return _error("the turn was not begun"), None
        stream.started()
        turn = await self._turn(run, message)
        timeout = turn.timeout_seconds or agent.timeout_seconds
        task = world.spawn(f"turn {run.run_id}", _call(runtime, turn, sink))
        await asyncio.wait({task, run.stopped}, timeout=timeout + GRACE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        run.settled = True
        partial = stream.text_so_far
        sink.partial = stream.unrecorded
        if task.done():
            # A task that was cancelled from outside ends as if it had been stopped.
            answer = None if task.cancelled() else task.result()
            outcome = _stopped(partial) if answer is None or isinstance(answer, TurnClosed) else _outcome(answer, partial)
        else:
            task.cancel()
            if run.stopped.done():
                outcome = _stopped(partial)
            else:
                text = f"no answer within {timeout:g} s"
                outcome = Outcome(status="timeout", text=partial, error=text, error_kind="timeout")
        sink.close()
        if outcome.status == "aborted" and run.stop_status == "interrupted":
            return None, task
        return _with_spent(outcome, sink, resumed=run.resumed is not None), task

    async def _turn(self, run: Run, message: Message) -> Turn:
        world = self._world
        row = world.sessions.cached(run.session_key) or await world.sessions.get(run.session_key)
        options = run.options
        history = await world.transcript.history(run.session_id, run.user_seq)
        return Turn(
            run_id=run.run_id,
            agent_id=run.agent_id,
            session_key=run.session_key,
            session_id=run.session_id,
            message=message,
            history=history,
            model=options.model or (row.model if row is not None else None),
            thinking=options.thinking or (cast("ThinkingLevel | None", row.thinking_level) if row is not None else None),
            timeout_seconds=options.timeout_seconds,
            extra_system_prompt=options.extra_system_prompt,
            channel=options.channel,
            resumed=run.resumed.messages if run.resumed is not None else (),
        )


def _stopped(partial: str) -> Outcome:
    return Outcome(status="aborted", text=partial, stop_reason="aborted")


def _recalled(world: World, run: Run) -> Sink:
    """Return where a turn reports, which knows what an earlier process recorded of it."""
    sink = Sink(world, run)
    if run.resumed is not None:
        sink.take_up(run.resumed.messages)
    return sink


async def _commands_before(run: Run) -> None:
    """Wait for the commands that came before a message, unless it is stopped."""
    for done in run.after:
        await asyncio.wait({done, run.stopped}, return_when=asyncio.FIRST_COMPLETED)
    run.after = ()


async def _call(runtime: AgentRuntime, turn: Turn, sink: Sink) -> TurnResult | BaseException:
    # A task that raises would count as a fault of this plugin; what the runtime raises is the turn's end.
    async def run() -> TurnResult:
        return await runtime.run(turn, sink)

    (answer,) = await asyncio.gather(run(), return_exceptions=True)
    return answer


def _outcome(answer: TurnResult | BaseException, partial: str) -> Outcome:
    if isinstance(answer, BaseException):
        logger.error("the agent runtime raised", exc_info=answer)
        kind: ErrorKind = "timeout" if isinstance(answer, AgentTimeout | TimeoutError) else "unknown"
        return Outcome(status="error", text=partial, error=visible(answer), error_kind=kind)
    outcome = Outcome(
        status=answer.status,
        text=writable.text(answer.text),
        error=None if answer.error is None else writable.text(answer.error),
        error_kind=answer.error_kind,
        stop_reason=answer.stop_reason,
        model=answer.model,
        usage=answer.usage,
        cost_usd=answer.cost_usd if answer.cost_usd is not None else answer.usage.cost_usd,
    )
    if answer.status != "ok":
        return replace(outcome, text=outcome.text or partial, error=outcome.error or "the turn failed")
    if answer.text.strip() == SILENT:
        return replace(outcome, text="", silent=True)
    if not answer.text.strip():
        return replace(outcome, status="error", error="the model gave an empty answer", error_kind="unknown")
    return outcome


def _with_spent(outcome: Outcome, sink: Sink, *, resumed: bool) -> Outcome:
    """Return the outcome of a turn that was cut off, now or before, with what all its calls have taken."""
    if not resumed and (outcome.usage != Usage() or outcome.cost_usd is not None):
        return outcome
    usage, cost = sink.spent()
    return replace(outcome, usage=usage, cost_usd=cost)


def _error(text: str) -> Outcome:
    return Outcome(status="error", error=text, error_kind="unknown")
