"""Runs: one accepted message that becomes a turn, from the lane to its one end."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeAlias

from openclaw_kernel.api import Admission, AssistantMessage, Message, Target, ThinkingLevel, Usage, UserPart
from openclaw_plugins.conversation.calls import Call, Journal

RunStatus: TypeAlias = Literal["ok", "error", "timeout", "aborted", "interrupted"]
ErrorKind: TypeAlias = Literal["refusal", "timeout", "rate_limit", "context_length", "unknown"]

SUMMARY_CHARACTERS: Final = 4000

arrivals: Final = itertools.count(1)
"""Numbers messages and commands in the order in which they came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the sender chose for one message; kept with it, so that it holds after a restart."""

    model: str | None = None
    thinking: ThinkingLevel | None = None
    timeout_seconds: float | None = None
    extra_system_prompt: str | None = None
    channel: str | None = None
    deliver_to: Target | None = None
    """Where the answer goes beside the transcript; None for nowhere."""
    reply_to_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended."""

    status: RunStatus
    text: str = ""
    error: str | None = None
    error_kind: ErrorKind | None = None
    stop_reason: str | None = None
    model: str | None = None
    usage: Usage = Usage()
    cost_usd: float | None = None
    silent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """What an earlier process recorded of a turn that goes on."""

    messages: tuple[Message, ...]
    """Those after the user message."""
    calls: tuple[Call, ...]

    @property
    def text(self) -> str:
        """What was said so far, as the person saw it."""
        said = ""
        for message in self.messages:
            if isinstance(message, AssistantMessage) and message.text:
                said += message.text if not said or said.endswith("\n") else f"\n\n{message.text}"
        return said


class RunView(Protocol):
    """What clients and the origin channel see of a run while it goes on, and of its end."""

    @property
    def text_so_far(self) -> str:
        """All the text that was streamed."""
        ...

    @property
    def unrecorded(self) -> str:
        """The streamed text that no recorded message has."""
        ...

    @property
    def seq(self) -> int:
        """The number of the event that was sent last."""
        ...

    def started(self) -> None:
        """Tell that the turn begins."""

    def text(self, delta: str) -> None:
        """Show more of the answer."""

    def thinking(self, delta: str) -> None:
        """Show more of the model's reasoning."""

    def tool(
        self,
        phase: Literal["start", "result"],
        *,
        call_id: str,
        name: str,
        arguments: Mapping[str, Any],
        result: str,
        is_error: bool,
    ) -> None:
        """Show a tool call."""

    def message_recorded(self) -> None:
        """Take note that what was streamed so far is in the transcript."""

    def close(self) -> None:
        """Take nothing more; what was streamed so far is shown."""

    def ended(self, outcome: Outcome, message: Mapping[str, Any] | None) -> None:
        """Tell the end, once."""

    def progress_ended(self) -> None:
        """Tell the origin channel that nothing more comes."""


@dataclass(slots=True, kw_only=True, eq=False)
class Run:
    """One message on its way through a lane."""

    run_id: str
    inbound_id: int
    session_key: str
    agent_id: str
    text: str
    received_ms: int
    options: RunOptions
    parts: tuple[UserPart, ...] | None = None
    """Attachments that are still in memory; None means they are in the ledger, if there are any."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What the transcript keeps of the sender."""
    request: tuple[str, str] | None = None
    """Message id and hash of the request, for a run that a WebSocket client began."""
    owner: str | None = None
    """Connection id that gets tool events."""
    route_reason: str | None = None
    """Which rule brought it here."""
    admission: Admission | None = None
    """Why it may start a turn; None where that is written already."""
    collects: bool = False
    """True where it may become one turn with what comes after it, while it waits."""
    number: int = field(default_factory=lambda: next(arrivals))
    after: tuple[asyncio.Future[None], ...] = ()
    """Commands that came before and have not been answered: its turn begins after them."""

    session_id: str = ""
    row_id: int = 0
    message: Message | None = None
    user_seq: int = 0
    started_ms: int | None = None
    ended_ms: int | None = None
    lined_up: bool = False
    """True for one that has or waits for its lane, false for a command or one that is refused."""
    begun: bool = False
    attempt: int = 1
    """How often its turn was begun, with this time."""
    resumed: Resumed | None = None
    """What an earlier process recorded of its turn, for one that goes on from there."""
    journal: Journal | None = None
    """Its calls, once it runs."""
    settled: bool = False
    """True once its end is decided; stopping it comes too late."""
    stream: RunView | None = None
    stopped: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    stop_status: Literal["aborted", "interrupted"] = "aborted"
    outcome: Outcome | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self, status: Literal["aborted", "interrupted"] = "aborted") -> bool:
        """Ask the run to end; return False where it ends already.

        `aborted` ends it for good; `interrupted` leaves it as it is, for the next process.
        """
        if self.settled or self.stopped.done():
            return False
        self.stop_status = status
        self.stopped.set_result(None)
        return True

    @property
    def is_left(self) -> bool:
        """Tell whether it was broken off for the next process, which goes on with it unless its stop is written."""
        return self.stopped.done() and self.stop_status == "interrupted" and self.outcome is None


@dataclass(frozen=True, slots=True)
class EndedRun:
    """What is kept of a run."""

    run_id: str
    session_key: str
    state: str
    started_ms: int | None
    ended_ms: int | None
    text: str | None
    error: str | None
    stop_reason: str | None


class RunBoard:
    """Every run that has not ended, by run id and by request.

    The run id of a client's run is the key that the client chose: clients that chose alike have a run each.
    """

    def __init__(self) -> None:
        self._runs: dict[str, list[Run]] = {}
        self._requests: dict[str, Run] = {}
        self._sessions: dict[str, list[Run]] = {}
        self._waiting: dict[str, list[tuple[str | None, asyncio.Future[Run]]]] = {}
        self.ending: set[int] = set()
        """Messages whose end is decided and not on disk."""

    def add(self, run: Run) -> None:
        """Take up a run."""
        alike = self._runs.setdefault(run.run_id, [])
        if run not in alike:
            alike.append(run)
        self._sessions.setdefault(run.session_key, []).append(run)
        if run.request is not None:
            self._requests[run.request[0]] = run

    def remove(self, run: Run) -> None:
        """Forget a run that never came to be."""
        alike = self._runs.get(run.run_id, [])
        if run in alike:
            alike.remove(run)
        if not alike:
            self._runs.pop(run.run_id, None)
        siblings = self._sessions.get(run.session_key, [])
        if run in siblings:
            siblings.remove(run)
        if not siblings:
            self._sessions.pop(run.session_key, None)
        if run.request is not None and self._requests.get(run.request[0]) is run:
            del self._requests[run.request[0]]

    def ended(self, run: Run) -> None:
        """Forget an ended run and wake who waits for it."""
        self.remove(run)
        run.done.set()
        for message_id, waiter in self._waiting.get(run.run_id, ()):
            # Who waits for a run of its own is not told of another client's.
            if not waiter.done() and (message_id not in self._requests or self._requests[message_id].run_id != run.run_id):
                waiter.set_result(run)

    def find(self, run_id: str, message_id: str | None = None, session_key: str | None = None) -> Run | None:
        """Return an active run, of a session: that of the client's own message where there is one, else the newest of the id."""
        alike = [run for run in self._runs.get(run_id, ()) if session_key in (None, run.session_key)]
        own = [run for run in alike if run.request is not None and run.request[0] == message_id]
        found = own or alike
        return found[-1] if found else None

    def by_request(self, message_id: str) -> Run | None:
        """Return the active run of a client's request."""
        return self._requests.get(message_id)

    def inbound_ids(self) -> set[int]:
        """Return the messages of the active runs, and of those whose end is still to be written."""
        return {run.inbound_id for alike in self._runs.values() for run in alike} | self.ending

    def of_session(self, session_key: str) -> Sequence[Run]:
        """Return the active runs of a session, in the order in which they came."""
        return tuple(self._sessions.get(session_key, ()))

    def beside_lanes(self) -> Sequence[Run]:
        """Return the active runs that have no lane and wait for none: commands, and what is refused."""
        return [run for runs in self._sessions.values() for run in runs if not run.lined_up]

    async def wait(self, run_id: str, seconds: float, message_id: str | None = None) -> Run | None:
        """Wait for a run of this id to end, also one that is not there yet, the client's own first; None after the time."""
        waiter: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        place = (message_id, waiter)
        self._waiting.setdefault(run_id, []).append(place)
        try:
            async with asyncio.timeout(seconds):
                return await waiter
        except TimeoutError:
            return None
        finally:
            waiting = self._waiting.get(run_id, [])
            if place in waiting:
                waiting.remove(place)
            if not waiting:
                self._waiting.pop(run_id, None)


# --- rows, inside a write or read ------------------------------------------------------------------------------------


def insert_run(connection: sqlite3.Connection, run: Run, session_id: str, now_ms: int, state: str = "running") -> int:
    """Write that a turn begins; return the row's id."""
    cursor = connection.execute(
        "INSERT INTO conversation_runs (run_id, session_key, session_id, agent_id, inbound_id, state, started_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (run.run_id, run.session_key, session_id, run.agent_id, run.inbound_id, state, now_ms),
    )
    return int(cursor.lastrowid or 0)


def end_run(connection: sqlite3.Connection, row_id: int, outcome: Outcome, now_ms: int) -> None:
    """Write how a turn ended."""
    usage = outcome.usage
    connection.execute(
        "UPDATE conversation_runs SET state = ?, ended_ms = ?, text = ?, error = ?, error_kind = ?, stop_reason = ?, model = ?,"
        " input_tokens = ?, output_tokens = ?, cache_read_tokens = ?, cache_write_tokens = ?, cost_usd = ? WHERE id = ?",
        (
            outcome.status,
            now_ms,
            outcome.text[:SUMMARY_CHARACTERS],
            outcome.error,
            outcome.error_kind,
            outcome.stop_reason,
            outcome.model,
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_tokens,
            usage.cache_write_tokens,
            outcome.cost_usd,
            row_id,
        ),
    )


def find_ended(connection: sqlite3.Connection, run_id: str) -> EndedRun | None:
    """Return the newest run of an id."""
    row = connection.execute(
        "SELECT run_id, session_key, state, started_ms, ended_ms, text, error, stop_reason FROM conversation_runs"
        " WHERE run_id = ? ORDER BY id DESC LIMIT 1",
        (run_id,),
    ).fetchone()
    return None if row is None else EndedRun(*row)


def find_ended_of(connection: sqlite3.Connection, inbound_id: int) -> EndedRun | None:
    """Return the newest run of a message; its run id may be another message's as well, of another client."""
    row = connection.execute(
        "SELECT run_id, session_key, state, started_ms, ended_ms, text, error, stop_reason FROM conversation_runs"
        " WHERE inbound_id = ? ORDER BY id DESC LIMIT 1",
        (inbound_id,),
    ).fetchone()
    return None if row is None else EndedRun(*row)


def forget_old_runs(connection: sqlite3.Connection, before_ms: int, limit: int) -> bool:
    """Delete a bounded number of old runs and of their steps; return whether there may be more.

    A run goes after its steps: its number may be given again, and what is left of another one would pass for its journal.
    """
    steps = connection.execute(
        "DELETE FROM conversation_steps WHERE ended_ms < ? AND state IS NOT 'running'"
        " AND id IN (SELECT id FROM conversation_steps ORDER BY id LIMIT ?)",
        (before_ms, limit),
    ).rowcount
    if steps >= limit:
        return True
    runs = connection.execute(
        "DELETE FROM conversation_runs WHERE ended_ms < ? AND id IN (SELECT id FROM conversation_runs ORDER BY id LIMIT ?)",
        (before_ms, limit),
    ).rowcount
    return runs >= limit


def model_steps(connection: sqlite3.Connection, since_ms: int, until_ms: int) -> list[dict[str, Any]]:
    """Return the model calls of a span of time as the usage reports take them."""
    rows = connection.execute(
        "SELECT started_ms, session_key, agent_id, name, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,"
        " cost_usd FROM conversation_steps WHERE kind = 'model' AND started_ms >= ? AND started_ms < ?"
        " AND (state IS NULL OR state IN ('done', 'failed')) ORDER BY started_ms",
        (since_ms, until_ms),
    )
    found = []
    for started, key, agent_id, name, used, made, cache_read, cache_write, cost in rows:
        provider, _, model = name.partition("/")
        found.append(
            {
                "startedMs": started,
                "sessionKey": key,
                "agentId": agent_id,
                "provider": provider,
                "model": model or name,
                "input": used,
                "output": made,
                "cacheRead": cache_read,
                "cacheWrite": cache_write,
                "costUsd": cost,
            }
        )
    return found
