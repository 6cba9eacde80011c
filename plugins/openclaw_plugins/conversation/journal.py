"""The journal of a turn: a row for each model call and tool call from its beginning to its end, and what a row may be."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

from openclaw_kernel.api import RetryClass, Step, StepBegun, TurnClosed, Usage
from openclaw_plugins.conversation import writable
from openclaw_plugins.conversation.runs import Run

CallState: TypeAlias = Literal["running", "done", "failed", "interrupted"]

STOPPED: Final = "the turn was stopped; nothing more may begin in it"


@dataclass(slots=True, kw_only=True)
class Call:
    """One row. `number` counts the calls of a turn, over all its attempts; times are Unix milliseconds."""

    number: int
    kind: Literal["model", "tool"]
    name: str
    started_ms: int
    ended_ms: int = 0
    state: CallState = "running"
    retry_class: str | None = None
    call_id: str | None = None
    attempt: int = 1
    digest: str | None = None
    usage: Usage = Usage()
    cost_usd: float | None = None
    error: str | None = None

    @property
    def has_effects(self) -> bool:
        """Tell whether making the call again could do something twice; what is not known to be harmless could."""
        return self.retry_class not in (RetryClass.PURE, RetryClass.IDEMPOTENT)

    def cut_off(self) -> Call:
        """Return the row as it is after the process that made the call has died."""
        return replace(self, state="interrupted") if self.state == "running" else self

    def end(self, step: Step) -> None:
        """Take down how the call ended."""
        self.ended_ms = max(step.ended_ms, 1)
        self.state = "done" if step.error is None else "failed"
        self.usage, self.cost_usd = step.usage, step.cost_usd
        self.error = None if step.error is None else writable.text(step.error)


class Journal:
    """The calls of one run in memory, and which of them are still to be written."""

    def __init__(self, run: Run) -> None:
        self._attempt = run.attempt
        earlier = run.resumed.calls if run.resumed is not None else ()
        self.calls: dict[int, Call] = {call.number: call.cut_off() for call in earlier}
        self._unwritten: dict[int, Call] = {}

    def open(self, step: StepBegun) -> Call:
        """Begin a row; it is written with `take`."""
        return self._add(
            Call(
                number=self._next(),
                kind=step.kind,
                name=writable.text(step.name),
                started_ms=step.started_ms,
                retry_class=step.retry_class.value,
                call_id=None if step.call_id is None else writable.text(step.call_id),
                attempt=self._attempt,
                digest=None if step.arguments is None else digest_of(step.arguments),
            )
        )

    def close(self, number: int, step: Step) -> None:
        """End a row."""
        call = self.calls[number]
        call.end(step)
        self._unwritten[number] = call

    def add(self, step: Step) -> None:
        """Take down a call that began and ended elsewhere."""
        call = Call(
            number=self._next(),
            kind=step.kind,
            name=writable.text(step.name),
            started_ms=step.started_ms,
            retry_class=step.retry_class,
            call_id=None if step.call_id is None else writable.text(step.call_id),
            attempt=self._attempt,
        )
        call.end(step)
        self._add(call)

    def take(self) -> list[Call]:
        """Return the rows to be written as they are now, which are taken as written; give them back where that fails."""
        taken, self._unwritten = [replace(call) for call in self._unwritten.values()], {}
        return taken

    def give_back(self, calls: Iterable[Call]) -> None:
        """Take rows as unwritten again."""
        self._unwritten = {call.number: self.calls[call.number] for call in calls} | self._unwritten

    def running(self) -> Sequence[Call]:
        """Return the calls that have begun in this process and not ended."""
        return [call for call in self.calls.values() if call.state == "running"]

    def spent(self) -> tuple[Usage, float | None]:
        """Return tokens and cost of the model calls so far; the cost is None where that of one is unknown."""
        ended = [call for call in self.calls.values() if call.kind == "model" and call.state in ("done", "failed")]
        known = [call.cost_usd for call in ended if call.cost_usd is not None]
        usage = Usage(
            input_tokens=sum(call.usage.input_tokens for call in ended),
            output_tokens=sum(call.usage.output_tokens for call in ended),
            cache_read_tokens=sum(call.usage.cache_read_tokens for call in ended),
            cache_write_tokens=sum(call.usage.cache_write_tokens for call in ended),
        )
        return usage, sum(known) if known and len(known) == len(ended) else None

    def _next(self) -> int:
        return max(self.calls, default=0) + 1

    def _add(self, call: Call) -> Call:
        self.calls[call.number] = call
        self._unwritten[call.number] = call
        return call


def digest_of(arguments: Mapping[str, Any]) -> str:
    """Return what calls with the same arguments have in common."""
    return hashlib.sha256(writable.encoded(arguments)).hexdigest()[:32]


# --- rows, inside a write or read ------------------------------------------------------------------------------------


def write(connection: sqlite3.Connection, run: Run, calls: Sequence[Call]) -> None:
    """Write rows as they are now; one that is there is brought up to date, and never from its end back to its beginning."""
    connection.executemany(
        "INSERT INTO conversation_steps (run, number, run_id, session_key, agent_id, kind, name, started_ms, ended_ms, state, call_id,"
        " attempt, digest, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_usd, error, retry_class)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (run, number) WHERE run IS NOT NULL DO UPDATE SET ended_ms = excluded.ended_ms, state = excluded.state,"
        " input_tokens = excluded.input_tokens, output_tokens = excluded.output_tokens,"
        " cache_read_tokens = excluded.cache_read_tokens, cache_write_tokens = excluded.cache_write_tokens,"
        " cost_usd = excluded.cost_usd, error = excluded.error WHERE state = 'running'",
        [
            (
                run.row_id,
                call.number,
                run.run_id,
                run.session_key,
                run.agent_id,
                call.kind,
                call.name,
                call.started_ms,
                call.ended_ms,
                call.state,
                call.call_id,
                call.attempt,
                call.digest,
                call.usage.input_tokens,
                call.usage.output_tokens,
                call.usage.cache_read_tokens,
                call.usage.cache_write_tokens,
                call.cost_usd,
                call.error,
                call.retry_class,
            )
            for call in calls
        ],
    )


def begin(connection: sqlite3.Connection, run: Run, calls: Sequence[Call]) -> None:
    """Write rows of calls that are about to be made; raise `TurnClosed` where the run has ended or its stop is written."""
    row = connection.execute(
        "SELECT 1 FROM conversation_runs JOIN conversation_inbound ON conversation_inbound.id = conversation_runs.inbound_id"
        " WHERE conversation_runs.id = ? AND conversation_runs.ended_ms IS NULL AND conversation_inbound.stop_ms IS NULL",
        (run.row_id,),
    ).fetchone()
    if row is None:
        raise TurnClosed(STOPPED)
    write(connection, run, calls)


def interrupt(connection: sqlite3.Connection, run_row: int, now_ms: int) -> None:
    """End the open rows of a run: nobody waits for what they began any more."""
    connection.execute(
        "UPDATE conversation_steps SET state = 'interrupted', ended_ms = ? WHERE run = ? AND state = 'running'", (now_ms, run_row)
    )


def give_up(connection: sqlite3.Connection, inbound_id: int, reason: str, now_ms: int) -> None:
    """End the open turns of a message that cannot be read, with their open rows."""
    rows = connection.execute("SELECT id FROM conversation_runs WHERE inbound_id = ? AND ended_ms IS NULL", (inbound_id,)).fetchall()
    for (run_row,) in rows:
        interrupt(connection, run_row, now_ms)
        connection.execute(
            "UPDATE conversation_runs SET state = 'interrupted', ended_ms = ?, error = ? WHERE id = ?", (now_ms, reason, run_row)
        )


def read(connection: sqlite3.Connection, run_row: int) -> tuple[Call, ...]:
    """Return the rows of a run in their order."""
    rows = connection.execute(
        "SELECT number, kind, name, started_ms, ended_ms, state, retry_class, call_id, attempt, digest, input_tokens, output_tokens,"
        " cache_read_tokens, cache_write_tokens, cost_usd, error FROM conversation_steps WHERE run = ? ORDER BY number",
        (run_row,),
    )
    return tuple(
        Call(
            number=row[0],
            kind=row[1],
            name=row[2],
            started_ms=row[3],
            ended_ms=row[4],
            state=row[5],
            retry_class=row[6],
            call_id=row[7],
            attempt=row[8],
            digest=row[9],
            usage=Usage(input_tokens=row[10], output_tokens=row[11], cache_read_tokens=row[12], cache_write_tokens=row[13]),
            cost_usd=row[14],
            error=row[15],
        )
        for row in rows
    )
