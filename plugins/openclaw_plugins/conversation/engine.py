"""The conversation as a whole: what starts, what stops, and what it offers to other plugins."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from openclaw_kernel.api import (
    Attachment,
    Gateway,
    GatewayError,
    InboundMessage,
    InvalidRequest,
    PluginContext,
    QueueCounts,
    SessionsSummary,
    Target,
    Unavailable,
    Verdict,
)
from openclaw_plugins.conversation import ledger, outbox_rows, sessions
from openclaw_plugins.conversation.command_desk import concerns
from openclaw_plugins.conversation.durable import write_patiently
from openclaw_plugins.conversation.endings import Endings
from openclaw_plugins.conversation.intake import Intake
from openclaw_plugins.conversation.lanes import Lanes
from openclaw_plugins.conversation.outbox import DeliveryRules
from openclaw_plugins.conversation.queue_counts import queue_counts
from openclaw_plugins.conversation.recovery import Recovery
from openclaw_plugins.conversation.restarts import tell_restarts
from openclaw_plugins.conversation.runs import Outcome, Run, arrivals, forget_old_runs, model_steps
from openclaw_plugins.conversation.sessions import SessionRow
from openclaw_plugins.conversation.settings import ConversationSettings
from openclaw_plugins.conversation.stop_words import is_stop
from openclaw_plugins.conversation.submissions import Submissions
from openclaw_plugins.conversation.turns import TurnRunner
from openclaw_plugins.conversation.world import World

logger: Final = logging.getLogger(__name__)

STOP_SECONDS: Final = 3.0
LEAST_DRAIN_SECONDS: Final = 0.05
RESET_SECONDS: Final = 2.0
STOP_WRITTEN_SECONDS: Final = 1.5
AHEAD_SECONDS: Final = 0.4
"""How long the store may take to answer before a stop does not wait for it."""
READY_POLL_SECONDS: Final = 0.02
READY_POLLS: Final = 500
CLEANING_ROWS: Final = 500
DAY_MS: Final = 86_400_000


class Conversation:
    """Implements the services `Ingress`, `Delivery` and `Sessions`."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._reloaded = asyncio.Event()
        self._world: World | None = None
        self._lanes: Lanes | None = None
        self._endings: Endings | None = None
        self._intake: Intake | None = None
        self._submissions: Submissions | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._stopped_ahead: dict[str, list[str]] = {}
        """Runs, by session, whose stop is carried out and not answered yet."""

    @property
    def world(self) -> World:
        """Return the shared state; raise `Unavailable` before the start."""
        if self._world is None:
            raise _not_started()
        return self._world

    @property
    def lanes(self) -> Lanes:
        if self._lanes is None:
            raise _not_started()
        return self._lanes

    @property
    def endings(self) -> Endings:
        if self._endings is None:
            raise _not_started()
        return self._endings

    @property
    def intake(self) -> Intake:
        if self._intake is None:
            raise _not_started()
        return self._intake

    @property
    def submissions(self) -> Submissions:
        if self._submissions is None:
            raise _not_started()
        return self._submissions

    # --- life ---------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the books and take up what an earlier process left; it goes on once the gateway is ready."""
        world = World(self._context, lambda: _delivery_rules(self._settings))
        endings = Endings(world)
        turns = TurnRunner(world, endings)
        lanes = Lanes(spawn=world.spawn, perform=turns.perform, failed=endings.failed)
        submissions = Submissions(world, lanes, turns, endings)
        intake = Intake(world, lanes, submissions)
        await world.sessions.open()
        await world.outbox.load()
        self._world, self._endings, self._lanes, self._intake = world, endings, lanes, intake
        self._submissions = submissions
        intake.take_up(await Recovery(world, lanes, endings).recover())
        self._tasks = [
            world.spawn("intake", self._work()),
            world.spawn("cleaning", self._clean()),
            world.spawn("imported sessions", self._import()),
        ]

    @property
    def _settings(self) -> ConversationSettings:
        # Asked for at each use: they may be others than a moment ago.
        return self._context.settings(ConversationSettings)

    def reloaded(self) -> None:
        """Begin a wait anew whose length is another now."""
        self._reloaded.set()

    @property
    def drain_seconds(self) -> float:
        """How long `drain` may take; never no time at all, for then it would not be called."""
        return max(self._settings.drain_seconds, LEAST_DRAIN_SECONDS)

    async def drain(self) -> None:
        """Begin no further turn; wait until turns and commands under way have ended and their answers are out.

        Cancelled when its time is over: then turns are broken off.
        """
        if self._lanes is None:
            return
        try:
            await self._drained()
        except asyncio.CancelledError:
            # Now, for providers stop before this plugin: a model call that fails by that would be the end of its turn.
            self.lanes.break_off()
            raise

    async def _drained(self) -> None:
        await self.lanes.drain()
        await self.intake.drain()
        for command in self.world.board.beside_lanes():
            await command.done.wait()
        await self.world.outbox.flush()

    async def close(self) -> None:
        """Break off what still runs; it goes on after the next start, and so does what is queued."""
        if self._world is None:
            return
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        await self.lanes.close(STOP_SECONDS)
        await self.world.outbox.stop()
        self.world.session_events.flush()

    async def _work(self) -> None:
        # Turns need providers, and sending needs channels, which start after this plugin.
        await self._until_ready()
        self.lanes.open()
        self.world.outbox.open()
        for problem in await asyncio.gather(tell_restarts(self.world), return_exceptions=True):
            if problem is not None:
                logger.error("nobody is told of the restart", exc_info=problem)
        await self.intake.work()

    async def _until_ready(self) -> None:
        gateway = self._context.service(Gateway)
        for _ in range(READY_POLLS):
            if gateway.ready:
                break
            await asyncio.sleep(READY_POLL_SECONDS)

    async def _import(self) -> None:
        await self._until_ready()
        while True:
            if (self._context.home / "imports").exists():
                # Imported here: few gateways take another's place.
                from openclaw_plugins.conversation.imported import take_up

                for problem in await asyncio.gather(take_up(self.world), return_exceptions=True):
                    if isinstance(problem, Exception):
                        logger.error("imported sessions: tried again in %.0f s", self._settings.sweep_seconds, exc_info=problem)
            await asyncio.sleep(self._settings.sweep_seconds)

    async def _clean(self) -> None:
        while True:
            if await self._reloaded_within(self._settings.sweep_seconds):
                continue
            for problem in await asyncio.gather(self.clean(), return_exceptions=True):
                if problem is not None:
                    logger.error("cleaning: it is tried again in %.0f s", self._settings.sweep_seconds, exc_info=problem)

    async def _reloaded_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._reloaded.wait()
        except TimeoutError:
            return False
        self._reloaded.clear()
        return True

    @property
    def ledger_days(self) -> int:
        """Return how long finished messages stay in the ledger."""
        return self._settings.ledger_days

    async def clean(self) -> None:
        """End what was left behind, and delete what is past its time, a bounded number of rows in each write."""
        now = self.world.now_ms()
        await self.intake.end_left_behind(now - round(self._settings.orphan_seconds * 1000))
        before = now - self._settings.ledger_days * DAY_MS
        # Runs go first: the number of a message may be given again, and its runs must not pass for those of another one.
        for forget in (forget_old_runs, ledger.forget_old):
            while await self.world.store.write(functools.partial(forget, before_ms=before, limit=CLEANING_ROWS)):
                pass

    # --- Ingress and Delivery -----------------------------------------------------------------------------------------

    async def accept(self, message: InboundMessage) -> bool:
        """Append durably; only then may the channel acknowledge. Return False for a repeat.

        A stop is carried out before that where the store takes its time.
        """
        ahead: asyncio.TimerHandle | None = None
        if is_stop(message.text):
            number = next(arrivals)
            ahead = asyncio.get_running_loop().call_later(
                AHEAD_SECONDS, lambda: self.world.spawn("stop ahead of the store", self._stop_ahead(message, number))
            )
        try:
            return await self.world.complete("accept a message", self.intake.accept(message))
        finally:
            if ahead is not None:
                ahead.cancel()

    async def _stop_ahead(self, message: InboundMessage, number: int) -> None:
        """Stop in this process what a message asks to stop that is not written yet; once it is, it is answered like any other."""
        world, target = self.world, message.target
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AHEAD_SECONDS):
                known = await world.store.read(
                    lambda connection: ledger.find(connection, target.channel, target.account_id, message.message_id)
                )
                if known is not None:
                    # A repeat must not stop what came after the first.
                    return
        route = world.policies.route(message)
        if world.policies.admit(message, route).verdict is not Verdict.ALLOW:
            return
        key = world.keys.canonical(route.session_key)
        runs = [run for run in world.board.of_session(key) if run.number < number and self._abort_run(run)]
        if not runs:
            return
        logger.warning("session %s: stopped, though the store has not taken the message that asks for it", key)
        self._stopped_ahead.setdefault(key, []).extend(run.run_id for run in runs)
        try:
            await self._write_stop(runs)
        except GatewayError as error:
            logger.warning("session %s: its stop is not written, and after a crash of the gateway it would go on: %s", key, error.message)

    async def enqueue(
        self,
        target: Target,
        *,
        text: str,
        attachments: Sequence[Attachment] = (),
        run_id: str | None = None,
        reply_to_id: str | None = None,
    ) -> str:
        """Store a message durably and send it in order; return its outbox id."""
        draft = outbox_rows.Draft(target=target, text=text, attachments=tuple(attachments), run_id=run_id, reply_to_id=reply_to_id)
        item = await self.world.complete("enqueue a message", self.world.outbox.enqueue(draft))
        return item.outbox_id

    # --- Sessions -----------------------------------------------------------------------------------------------------

    def summary(self, agent_id: str | None = None) -> SessionsSummary:
        """Return a cached summary without I/O."""
        if self._world is None:
            return SessionsSummary(path=str(self._context.home), count=0, recent=())
        return self._world.sessions.summary(agent_id, self._world.now_ms())

    async def queue(self) -> QueueCounts:
        """Count what is under way."""
        return await self.world.store.read(queue_counts)

    async def new_session(self, session_key: str) -> str:
        """Reset: abort what runs, start an empty transcript; return the new session id."""
        row = await self.reset(self.world.keys.canonical(session_key))
        return row.session_id

    async def stop(self, session_key: str) -> Sequence[str]:
        """Abort the running turn and drop the queued ones; return the run ids."""
        key = self.world.keys.canonical(session_key)
        return [*self._stopped_ahead.pop(key, ()), *await self.abort(key)]

    async def describe(self, session_key: str) -> Mapping[str, Any]:
        """Return the session's row as `sessions.list` shows it; one that does not exist yet is shown as it would begin."""
        key = self.world.keys.canonical(session_key)
        row = await self.world.sessions.get(key)
        if row is None:
            now = self.world.now_ms()
            row = SessionRow(key, self.world.keys.agent(key), "", "direct", "direct", now, now)
            wire = self.world.wire_row(row)
            del wire["sessionId"]
            return wire
        return self.world.wire_row(row)

    async def set_model(self, session_key: str, model: str | None) -> None:
        """Choose the model of a session, None for the agent's; raise `InvalidRequest` for one that is not known."""
        ref = self.known_model(model) if model is not None else None
        await self.change(self.world.keys.canonical(session_key), "model", model=ref)

    async def usage_rows(self, since_ms: int, until_ms: int) -> Sequence[Mapping[str, Any]]:
        """Return model steps of a span of time."""
        return await self.world.store.read(lambda connection: model_steps(connection, since_ms, until_ms))

    # --- what methods and commands build on ---------------------------------------------------------------------------

    def known_model(self, ref: str) -> str:
        """Return the full reference of a model; raise `InvalidRequest` for one that no provider has."""
        found = self.world.providers.find(ref)
        if found is None:
            known = ", ".join(info.ref for info in list(self.world.providers.models())[:10]) or "none is configured"
            raise InvalidRequest(f"model: there is no model {ref[:120]!r}; use one of {known}")
        return found.ref

    async def abort(self, key: str, run_id: str | None = None, *, message_id: str | None = None, waiting: bool = False) -> list[str]:
        """Stop a session's running turn and drop what waits, or only the run that is named; return the run ids.

        With `waiting` the named run and all that waits. Of several runs of one id that of the client's own message is meant.

        The stop works at once, and is on disk before this returns: what is stopped stays so after a crash. Raise
        `GatewayError` where it cannot be written, or not in time; in this process it is stopped all the same.
        """
        runs = self._signal(key, run_id, message_id, waiting=waiting)
        if runs:
            try:
                async with asyncio.timeout(STOP_WRITTEN_SECONDS):
                    await self.world.complete(f"write the stop of {key}", self._write_stop(runs))
            except TimeoutError:
                text = f"session {key}: stopped, but the store has not taken that yet; after a crash of the gateway now it would go on"
                raise Unavailable(text, retry_after_ms=1000) from None
        return [run.run_id for run in runs]

    def at_work(self, key: str) -> list[str]:
        """Return the names of the tools that a session's turn runs now and that have effects."""
        run = self.lanes.running(key)
        calls = run.journal.running() if run is not None and run.journal is not None else ()
        return [call.name for call in calls if call.kind == "tool" and call.has_effects]

    def _signal(self, key: str, run_id: str | None = None, message_id: str | None = None, *, waiting: bool = False) -> list[Run]:
        """Stop runs in this process, before anything is waited for."""
        runs = self.world.board.of_session(key)
        if run_id is not None:
            running, named = self.lanes.running(key), self.world.board.find(run_id, message_id, key)
            runs = [run for run in runs if run is named or (waiting and run is not running)]
        return [run for run in runs if self._abort_run(run)]

    async def _write_stop(self, runs: Sequence[Run]) -> None:
        now = self.world.now_ms()
        await write_patiently(self.world.store, lambda connection: ledger.ask_to_stop(connection, runs, now))

    def _abort_run(self, run: Run) -> bool:
        if not run.lined_up or not concerns(run.number) or not (run.stop() or run.is_left):
            return False
        if self.lanes.withdraw(run.session_key, run):
            self.world.spawn(f"drop {run.run_id}", self._drop(run))
        return True

    async def _drop(self, run: Run) -> None:
        await self.endings.finish(run, Outcome(status="aborted", stop_reason="aborted"))

    async def abort_and_wait(self, key: str) -> None:
        """Stop all of a session's runs and wait until their ends are written."""
        runs = [run for run in self.world.board.of_session(key) if run.lined_up and concerns(run.number)]
        self._signal(key)
        try:
            async with asyncio.timeout(RESET_SECONDS):
                for run in runs:
                    await run.done.wait()
        except TimeoutError:
            raise Unavailable(f"session {key}: its turn has not ended yet; try again", retry_after_ms=1000) from None

    async def reset(self, key: str) -> SessionRow:
        """Abort what runs and give the session an empty transcript."""
        return await self.world.complete("reset a session", self._reset(key))

    async def _reset(self, key: str) -> SessionRow:
        world = self.world
        await self.require_place(key)
        await self.abort_and_wait(key)
        now = world.now_ms()
        agent_id = world.keys.agent(key)

        def write(connection: sqlite3.Connection) -> tuple[SessionRow, SessionRow, bool]:
            row, created = sessions.find_or_create(connection, key, agent_id, now)
            return row, row if created else sessions.renew(connection, row, now), created

        before, row, created = await world.store.write(write)
        world.transcript.forget(before.session_id)
        world.sessions.put(row, created=created)
        world.changed(row, "reset")
        return row

    async def require_place(self, key: str) -> None:
        """Raise `InvalidRequest` for a session that is not there and has no agent under whom it could begin."""
        if await self.world.sessions.get(key) is None:
            self.world.require_agent(self.world.keys.agent(key))

    async def change(self, key: str, reason: str, **columns: Any) -> SessionRow:
        """Set columns of a session's row, which begins to exist where it does not; return the row."""
        return await self.world.complete("change a session", self._change(key, reason, columns))

    async def _change(self, key: str, reason: str, columns: Mapping[str, Any]) -> SessionRow:
        world = self.world
        now = world.now_ms()
        agent_id = world.keys.agent(key)

        def write(connection: sqlite3.Connection) -> tuple[SessionRow, bool]:
            row, created = sessions.find_or_create(connection, key, agent_id, now)
            return sessions.save(connection, replace(row, updated_ms=now, **columns)), created

        row, created = await world.store.write(write)
        world.sessions.put(row, created=created)
        world.changed(row, reason)
        return row


def _delivery_rules(settings: ConversationSettings) -> DeliveryRules:
    return DeliveryRules(
        attempts=settings.delivery_attempts,
        first_delay=settings.delivery_first_delay_seconds,
        longest_delay=settings.delivery_longest_delay_seconds,
        expiry_ms=round(settings.delivery_expiry_hours * 3_600_000),
        unknown=settings.unknown_after_send,
        unknown_by_channel=settings.unknown_after_send_by_channel,
    )


def _not_started() -> Unavailable:
    return Unavailable("conversations have not started yet; try again", retry_after_ms=500)
