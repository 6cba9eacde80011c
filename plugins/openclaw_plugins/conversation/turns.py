"""One turn: begun durably, run by the agent runtime, ended durably and visibly, whatever happens in between."""

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
    AssistantMessage,
    GatewayError,
    Message,
    ProviderError,
    Step,
    Text,
    ThinkingLevel,
    Turn,
    TurnResult,
    UserMessage,
    UserPart,
)
from openclaw_plugins.conversation import ledger, outbox, sessions, transcript
from openclaw_plugins.conversation.chat_events import RunStream
from openclaw_plugins.conversation.keys import chat_type_of
from openclaw_plugins.conversation.runs import (
    ErrorKind,
    Outcome,
    Run,
    end_run,
    insert_run,
    insert_steps,
)
from openclaw_plugins.conversation.session_rows import STATUSES, split_model
from openclaw_plugins.conversation.sessions import PREVIEW_CHARACTERS, TITLE_CHARACTERS, SessionRow, shorten
from openclaw_plugins.conversation.sink import Sink
from openclaw_plugins.conversation.transcript import Entry
from openclaw_plugins.conversation.world import World

logger: Final = logging.getLogger(__name__)

SILENT: Final = "NO_REPLY"
GRACE_SECONDS: Final = 0.5
ABANDON_SECONDS: Final = 0.8
ABANDON_LATE_SECONDS: Final = 0.4
INTERRUPTED: Final = "I was interrupted before I could finish. Please send your message again."

_END_STATES: Final[dict[str, ledger.EndState]] = {
    "ok": "answered",
    "error": "dead_lettered",
    "timeout": "dead_lettered",
    "aborted": "suppressed",
    "interrupted": "dead_lettered",
}


@dataclass(frozen=True, slots=True)
class Begun:
    """What the write that begins a turn hands back."""

    row: SessionRow
    created: bool
    entry: Entry
    run_row: int


@dataclass(frozen=True, slots=True)
class Ended:
    """What the write that ends a turn hands back."""

    entries: Sequence[Entry]
    row: SessionRow | None
    outgoing: outbox.Outgoing | None


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


def _user_message(run: Run, parts: Sequence[UserPart]) -> UserMessage:
    text = (Text(run.text),) if run.text or not parts else ()
    return UserMessage(content=(*text, *parts), timestamp_ms=run.received_ms, extra=run.extra)


class TurnRunner:
    """Performs runs; what it promises is that each ends once, on disk and in sight of whoever asked."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def perform(self, run: Run) -> None:
        """Take a run from its lane to its end. Return within a second of its stop, also where the runtime does not."""
        if run.stopped.done():
            await self.finish(run, self._stopped(run, ""))
            return
        if not run.begun:
            now = self._world.now_ms()
            self.took_lane(run, await self._world.store.write(lambda connection: begin_in(connection, run, now)), now)
        sink = Sink(self._world, run)
        outcome, task = await self._execute(run, sink)
        await self.finish(run, outcome, sink)
        if task is not None and not task.done():
            # A turn that overran its time had its grace before; the lane is free within a second all the same.
            late = outcome.status == "timeout"
            await asyncio.wait({task}, timeout=ABANDON_LATE_SECONDS if late else ABANDON_SECONDS)
            if not task.done():
                logger.error("run %s ignored its cancellation and was abandoned; its session goes on", run.run_id)

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

    async def failed(self, run: Run, problem: BaseException) -> None:
        """End a run that broke off in our own code."""
        if not run.done.is_set():
            await self.finish(run, Outcome(status="error", error=_visible(problem), error_kind="unknown"))

    # --- running ------------------------------------------------------------------------------------------------------

    async def _execute(self, run: Run, sink: Sink) -> tuple[Outcome, asyncio.Task[Any] | None]:
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
            outcome = self._stopped(run, partial) if answer is None else _outcome(answer, partial)
        else:
            task.cancel()
            if run.stopped.done():
                outcome = self._stopped(run, partial)
            else:
                text = f"no answer within {timeout:g} s"
                outcome = Outcome(status="timeout", text=partial, error=text, error_kind="timeout")
        sink.close()
        return outcome, task

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
        )

    def _stopped(self, run: Run, partial: str) -> Outcome:
        if run.stop_status == "interrupted":
            return Outcome(status="interrupted", text=partial, error=INTERRUPTED, stop_reason="interrupted")
        return Outcome(status="aborted", text=partial, stop_reason="aborted")

    # --- ending -------------------------------------------------------------------------------------------------------

    async def finish(self, run: Run, outcome: Outcome, sink: Sink | None = None) -> None:
        """Write a run's end and tell it: transcript, ledger, session and answer in one write, then the events."""
        run.settled = True
        world = self._world
        now = world.now_ms()
        messages = [*(sink.pending if sink is not None else ()), *_closing(run, outcome, sink, now)]
        steps = tuple(sink.steps) if sink is not None else ()
        draft = _reply(run, outcome)

        def write(connection: sqlite3.Connection) -> Ended:
            return _end_in(connection, run, outcome, steps=steps, messages=messages, draft=draft, now_ms=now)

        ended = Ended((), None, None)
        try:
            ended = await world.store.write(write)
        except GatewayError as error:
            logger.exception("run %s: its end could not be written", run.run_id)
            outcome = replace(outcome, status="error", error=f"the answer could not be stored: {error.message}")
        run.outcome = outcome
        run.message = None
        run.ended_ms = now
        self._tell(run, outcome, ended, now)

    def _tell(self, run: Run, outcome: Outcome, ended: Ended, now_ms: int) -> None:
        world = self._world
        stream = run.stream or RunStream(run, world.events, world.channels, now_ms)
        world.board.ended(run)
        world.transcript.committed(ended.entries)
        if ended.row is not None:
            world.sessions.put(ended.row)
        stream.ended(outcome, _final_message(outcome, ended.entries, now_ms))
        for entry in ended.entries:
            world.session_events.message(run.run_id, run.session_key, run.agent_id, entry.to_wire())
        if ended.outgoing is not None and not run.started_ms:
            world.outbox.dispatch(ended.outgoing)
        elif ended.outgoing is not None:
            # The channel turns its draft into the answer, so the draft must not be closed before.
            ended.outgoing.on_attempt = stream.progress_ended
            world.outbox.dispatch(ended.outgoing)
        elif run.started_ms:
            stream.progress_ended()
        if ended.row is not None:
            world.changed(ended.row, "end")


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
        return Outcome(status="error", text=partial, error=_visible(answer), error_kind=kind)
    outcome = Outcome(
        status=answer.status,
        text=answer.text,
        error=answer.error,
        error_kind=answer.error_kind,
        stop_reason=answer.stop_reason,
        model=answer.model,
        usage=answer.usage,
        cost_usd=answer.cost_usd if answer.cost_usd is not None else answer.usage.cost_usd,
    )
    if answer.status != "ok":
        return replace(outcome, text=answer.text or partial, error=answer.error or "the turn failed")
    if answer.text.strip() == SILENT:
        return replace(outcome, text="", silent=True)
    if not answer.text.strip():
        return replace(outcome, status="error", error="the model gave an empty answer", error_kind="unknown")
    return outcome


def _error(text: str) -> Outcome:
    return Outcome(status="error", error=text, error_kind="unknown")


def _visible(problem: BaseException) -> str:
    if isinstance(problem, ProviderError | GatewayError):
        return problem.message
    return f"the turn failed ({type(problem).__name__}); the log says more"


def _closing(run: Run, outcome: Outcome, sink: Sink | None, now_ms: int) -> list[Message]:
    """Return what the transcript still lacks: results of cut-off calls, then the answer or what there is of it."""
    if not run.begun:
        return []
    found: list[Message] = []
    if sink is not None:
        found += [transcript.interrupted_result(call.id, call.name, now_ms) for call in sink.open_calls()]
    provider, model = split_model(outcome.model)
    if outcome.status == "ok":
        if outcome.text and not (sink is not None and sink.answered):
            found.append(
                AssistantMessage(
                    content=(Text(outcome.text),),
                    timestamp_ms=now_ms,
                    provider=provider,
                    model=model,
                    stop_reason=outcome.stop_reason or "stop",
                )
            )
        return found
    failed = outcome.status != "aborted"
    partial = sink.partial if sink is not None else ""
    content = (Text(partial),) if partial else ()
    if failed or content:
        found.append(
            AssistantMessage(
                content=content,
                timestamp_ms=now_ms,
                provider=provider,
                model=model,
                stop_reason="error" if failed else "aborted",
                extra={"errorMessage": outcome.error, "errorKind": outcome.error_kind or "unknown"} if failed else {},
            )
        )
    return found


def _reply(run: Run, outcome: Outcome) -> outbox.Draft | None:
    target = run.options.deliver_to
    if target is None or target.channel == ledger.WEBCHAT or outcome.silent or outcome.status == "aborted":
        return None
    text = outcome.text if outcome.status == "ok" else f"⚠️ {outcome.error or 'the turn failed'}"
    return outbox.Draft(
        target=target,
        text=text,
        run_id=run.run_id,
        inbound_id=run.inbound_id,
        reply_to_id=run.options.reply_to_id if chat_type_of(run.session_key) != "direct" else None,
    )


def _end_in(
    connection: sqlite3.Connection,
    run: Run,
    outcome: Outcome,
    *,
    steps: Sequence[Step],
    messages: Sequence[Message],
    draft: outbox.Draft | None,
    now_ms: int,
) -> Ended:
    entries = transcript.append(connection, run.session_id, messages, run_id=run.run_id, now_ms=now_ms) if messages else []
    insert_steps(connection, run, steps)
    row = sessions.find(connection, run.session_key)
    if not run.row_id:
        run.row_id = insert_run(connection, run, row.session_id if row is not None else "", now_ms)
    end_run(connection, run.row_id, outcome, now_ms)
    reason = outcome.error or ("silent" if outcome.silent else outcome.stop_reason)
    state: ledger.EndState = "suppressed" if outcome.silent else _END_STATES[outcome.status]
    ledger.end(connection, run.inbound_id, state, None if state == "answered" else reason, now_ms)
    outgoing = outbox.insert(connection, draft, now_ms) if draft is not None else None
    if row is not None and run.begun and row.session_id == run.session_id:
        usage = outcome.usage
        spent = (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens)
        row = replace(
            row,
            updated_ms=now_ms,
            preview=shorten(outcome.text, PREVIEW_CHARACTERS) or row.preview,
            status=STATUSES[outcome.status],
            last_run_id=run.run_id,
            last_run_error=outcome.error,
            run_model=outcome.model or row.run_model,
            cost_usd=row.cost_usd if outcome.cost_usd is None else (row.cost_usd or 0.0) + outcome.cost_usd,
        )
        if any(spent):
            row = replace(row, input_tokens=spent[0], output_tokens=spent[1], total_tokens=sum(spent))
        sessions.save(connection, row)
    return Ended(entries, row, outgoing)


def _final_message(outcome: Outcome, entries: Sequence[Entry], now_ms: int) -> dict[str, Any] | None:
    """Return what the terminal `chat` event carries: the answer, or what there is of it; None for a silent one."""
    if outcome.silent or not outcome.text:
        return None
    message: dict[str, Any] = {}
    for entry in reversed(entries):
        if isinstance(entry.message, AssistantMessage):
            message = entry.to_wire()
            break
    return {
        "timestamp": now_ms,
        **message,
        "role": "assistant",
        "content": [{"type": "text", "text": outcome.text}],
    }
