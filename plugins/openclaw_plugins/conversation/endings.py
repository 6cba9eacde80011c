"""The one end of a run: transcript, ledger, session and answer in one write, then everybody is told."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from openclaw_kernel.api import AssistantMessage, GatewayError, Message, ProviderError, Text
from openclaw_plugins.conversation import journal, ledger, outbox_rows, sessions, transcript
from openclaw_plugins.conversation.calls import Call
from openclaw_plugins.conversation.chat_events import RunStream
from openclaw_plugins.conversation.durable import write_patiently, write_until_done
from openclaw_plugins.conversation.keys import chat_type_of
from openclaw_plugins.conversation.runs import Outcome, Run, end_run, insert_run
from openclaw_plugins.conversation.session_rows import STATUSES, split_model
from openclaw_plugins.conversation.sessions import PREVIEW_CHARACTERS, SessionRow, shorten
from openclaw_plugins.conversation.sink import Sink
from openclaw_plugins.conversation.transcript import Entry
from openclaw_plugins.conversation.world import World

logger: Final = logging.getLogger(__name__)

INTERRUPTED: Final = "I was interrupted before I could finish. Please send your message again."
STOPPED: Final = "stopped"
"""Why a message was suppressed whose turn somebody stopped."""

_END_STATES: Final[dict[str, ledger.EndState]] = {
    "ok": "answered",
    "error": "dead_lettered",
    "timeout": "dead_lettered",
    "aborted": "suppressed",
    "interrupted": "dead_lettered",
}


@dataclass(frozen=True, slots=True)
class Ended:
    """What the write that ends a turn hands back."""

    entries: Sequence[Entry]
    row: SessionRow | None
    outgoing: outbox_rows.Outgoing | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What the write that ends a run takes."""

    run: Run
    outcome: Outcome
    now_ms: int
    messages: Sequence[Message] = ()
    calls: Sequence[Call] = ()

    def write(self, connection: sqlite3.Connection) -> Ended:
        """Write it all; what ended before gets no second answer."""
        run, outcome, now_ms = self.run, self.outcome, self.now_ms
        entries = transcript.append(connection, run.session_id, self.messages, run_id=run.run_id, now_ms=now_ms) if self.messages else []
        if run.row_id:
            journal.write(connection, run, self.calls)
            journal.interrupt(connection, run.row_id, now_ms)
        row = sessions.find(connection, run.session_key)
        run_row = run.row_id or insert_run(connection, run, row.session_id if row is not None else "", now_ms)
        end_run(connection, run_row, outcome, now_ms)
        reason = outcome.error or ("silent" if outcome.silent else STOPPED if outcome.status == "aborted" else outcome.stop_reason)
        state: ledger.EndState = "suppressed" if outcome.silent else _END_STATES[outcome.status]
        if not run.begun:
            ledger.note_decision(connection, run)
        first = ledger.end(connection, run.inbound_id, state, None if state == "answered" else reason, now_ms)
        draft = _reply(run, outcome) if first else None
        outgoing = outbox_rows.insert(connection, draft, now_ms) if draft is not None else None
        if row is not None and run.begun and row.session_id == run.session_id:
            row = sessions.save(connection, _ended_row(row, run, outcome, now_ms))
        return Ended(entries, row, outgoing)

    def reduced(self, problem: BaseException) -> Ending:
        """Return the end of a run of which something cannot be written down: that it failed."""
        return Ending(run=self.run, outcome=Outcome(status="error", error=visible(problem), error_kind="unknown"), now_ms=self.now_ms)


class Endings:
    """Ends runs; each once, on disk and in sight of whoever asked."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def finish(self, run: Run, outcome: Outcome, sink: Sink | None = None) -> None:
        """Write a run's end and tell it.

        A store that fails for longer than half a second does not hold up the session: who listens is told so, and the end
        is written, and an answer for a channel sent, once the store is well again.
        """
        run.settled = True
        now = self._world.now_ms()
        messages = [*(sink.pending if sink is not None else ()), *_closing(run, outcome, sink, now)]
        calls = tuple(sink.journal.take()) if sink is not None else ()
        ending = Ending(run=run, outcome=outcome, now_ms=now, messages=messages, calls=calls)
        ended, ending = await self._written(ending)
        outcome = ending.outcome
        if isinstance(ended, GatewayError):
            self._world.spawn(f"write the end of {run.run_id}", self._end_later(ending))
            outcome = replace(outcome, status="error", error=f"the answer could not be stored: {ended.message}")
            ended = Ended((), None, None)
        run.outcome = outcome
        run.message = None
        run.ended_ms = now
        self._tell(run, outcome, ended, now)

    async def failed(self, run: Run, problem: BaseException) -> None:
        """End a run that broke off in our own code."""
        if run.done.is_set():
            return
        outcome = Outcome(status="error", error=visible(problem), error_kind="unknown")
        try:
            await self.finish(run, outcome)
        except BaseException:
            # Nothing works on it any more: whoever waits for it goes on, and its message is found to be left behind.
            run.outcome = run.outcome or outcome
            self._world.board.ended(run)
            raise

    async def _written(self, ending: Ending) -> tuple[Ended | GatewayError, Ending]:
        """Write an end, or at least that there is one; return why not where the store does not take it."""
        store, run = self._world.store, ending.run
        (answer,) = await asyncio.gather(write_patiently(store, ending.write), return_exceptions=True)
        if isinstance(answer, Ended | GatewayError):
            return answer, ending
        logger.error("run %s: its end cannot be written as it is", run.run_id, exc_info=answer)
        ending = ending.reduced(answer)
        (answer,) = await asyncio.gather(write_patiently(store, ending.write), return_exceptions=True)
        if isinstance(answer, Ended | GatewayError):
            return answer, ending
        raise answer

    async def _end_later(self, ending: Ending) -> None:
        run, unwritten = ending.run, self._world.board.ending
        unwritten.add(run.inbound_id)
        try:
            ended = await write_until_done(self._world.store, ending.write, what=f"the end of run {run.run_id}")
        finally:
            unwritten.discard(run.inbound_id)
        self._took_down(run, ended)
        if ended.outgoing is not None:
            self._world.outbox.dispatch(ended.outgoing)

    def _took_down(self, run: Run, ended: Ended) -> None:
        """Take note in memory of what is on disk, and show it."""
        world = self._world
        world.transcript.committed(ended.entries)
        for entry in ended.entries:
            world.session_events.message(run.run_id, run.session_key, run.agent_id, entry.to_wire())
        if ended.row is not None:
            world.sessions.put(ended.row)
            world.changed(ended.row, "end")

    def _tell(self, run: Run, outcome: Outcome, ended: Ended, now_ms: int) -> None:
        world = self._world
        stream = run.stream or RunStream(run, world.events, world.channels, now_ms)
        world.board.ended(run)
        stream.ended(outcome, _final_message(outcome, ended.entries, now_ms))
        self._took_down(run, ended)
        if ended.outgoing is not None:
            if run.started_ms:
                # The channel turns its draft into the answer, so the draft must not be closed before.
                ended.outgoing.on_attempt = stream.progress_ended
            world.outbox.dispatch(ended.outgoing)
        elif run.started_ms:
            stream.progress_ended()


def visible(problem: BaseException) -> str:
    """Return what a person is told of an exception."""
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


def _reply(run: Run, outcome: Outcome) -> outbox_rows.Draft | None:
    target = run.options.deliver_to
    if target is None or target.channel == ledger.WEBCHAT or outcome.silent or outcome.status == "aborted":
        return None
    text = outcome.text if outcome.status == "ok" else f"⚠️ {outcome.error or 'the turn failed'}"
    return outbox_rows.Draft(
        target=target,
        text=text,
        run_id=run.run_id,
        inbound_id=run.inbound_id,
        reply_to_id=run.options.reply_to_id if chat_type_of(run.session_key) != "direct" else None,
    )


def _ended_row(row: SessionRow, run: Run, outcome: Outcome, now_ms: int) -> SessionRow:
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
    return replace(row, input_tokens=spent[0], output_tokens=spent[1], total_tokens=sum(spent)) if any(spent) else row


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
