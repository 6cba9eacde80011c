"""The journal of a turn: a row for each model call and tool call from its beginning to its end."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from openclaw_kernel.api import TurnClosed, Usage
from openclaw_plugins.conversation.calls import Call
from openclaw_plugins.conversation.runs import Run

STOPPED: Final = "the turn was stopped; nothing more may begin in it"


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
