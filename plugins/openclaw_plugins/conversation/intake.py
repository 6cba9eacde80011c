"""The door for channels: every message is written before it is acknowledged, then goes one way to one end."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import sqlite3
import uuid
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Final

from openclaw_kernel.api import (
    Admission,
    Command,
    CommandCall,
    GatewayError,
    InboundMessage,
    Route,
    Verdict,
)
from openclaw_plugins.conversation import journal, ledger, outbox_rows, writable
from openclaw_plugins.conversation.command_desk import Visit
from openclaw_plugins.conversation.durable import write_patiently, write_until_done
from openclaw_plugins.conversation.lanes import Lanes
from openclaw_plugins.conversation.ledger import Inbound
from openclaw_plugins.conversation.runs import Run, RunOptions
from openclaw_plugins.conversation.stop_words import is_stop
from openclaw_plugins.conversation.submissions import Submissions
from openclaw_plugins.conversation.world import World

logger: Final = logging.getLogger(__name__)

BACKLOG: Final = 4096
BATCH: Final = 128
LEFT_AT_ONCE: Final = 100
AHEAD_MS: Final = 86_400_000
"""How far a platform's clock may be ahead of ours."""
BROKEN: Final = "Something went wrong with your message; it was not answered. Please try again."
_BRACKETS: Final = re.compile(r"[\[\]\s]+")


class Intake:
    """Takes messages in; its one worker decides for each where it goes."""

    def __init__(self, world: World, lanes: Lanes, submissions: Submissions) -> None:
        self._world = world
        self._lanes = lanes
        self._submissions = submissions
        self._backlog: deque[Inbound] = deque()
        self._in_hand: Counter[int] = Counter()
        """Steps that are being taken, by message."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def take_up(self, entries: Sequence[Inbound]) -> None:
        """Decide about messages that an earlier process took in and did not line up, before any that comes now."""
        self._backlog.extend(entries)
        self._arrived.set()

    async def end_left_behind(self, before_ms: int) -> None:
        """End open messages that nothing in this process works on any more; their senders are told.

        Nothing should ever be left behind. If it is, by a fault of ours, silence would be the worst end.
        """
        after = 0
        while True:
            page = functools.partial(ledger.left_behind, before_ms=before_ms, after=after, limit=LEFT_AT_ONCE)
            rows = await self._world.store.read(page)
            in_hand = {entry.id for entry in self._backlog} | self._in_hand.keys() | self._world.board.inbound_ids()
            for left in rows:
                if left.id not in in_hand:
                    logger.error("message %s of %s was left behind and is ended", left.message_id, left.channel)
                    await self._end_left_behind(left)
            if len(rows) < LEFT_AT_ONCE:
                return
            after = rows[-1].id

    async def _end_left_behind(self, left: ledger.LeftBehind) -> None:
        now = self._world.now_ms()

        def write(connection: sqlite3.Connection) -> tuple[bool, outbox_rows.Outgoing | None]:
            ended = ledger.end(connection, left.id, "dead_lettered", ledger.LEFT_BEHIND, now)
            if ended and left.entry is None:
                journal.give_up(connection, left.id, ledger.LEFT_BEHIND, now)
            if not ended or left.entry is None or left.entry.from_client:
                return ended, None
            draft = outbox_rows.Draft(target=left.entry.message.target, text=BROKEN, inbound_id=left.id)
            return True, outbox_rows.insert(connection, draft, now)

        ended, outgoing = await self._world.store.write(write)
        if outgoing is not None:
            self._world.outbox.dispatch(outgoing)
        if ended and left.entry is not None and (left.entry.from_client or left.run_row is not None):
            # Who follows the run is told, and its row gets an end.
            run = run_of(left.entry)
            run.row_id = left.run_row or 0
            await self._submissions.end_broken(run, BROKEN)

    async def drain(self) -> None:
        """Wait until no step is being taken: a command that is cut off would be run again by the next process."""
        await self._idle.wait()

    async def work(self) -> None:
        """Decide about what arrives, in order, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._backlog:
                batch = [self._backlog.popleft() for _ in range(min(BATCH, len(self._backlog)))]
                self._room.set()
                await asyncio.gather(*[self._or_broken(entry, self._admit(entry)) for entry in batch])

    def _or_broken(self, entry: Inbound, step: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
        """Take a step on a message's way; whatever goes wrong with it is the end of this message alone."""
        # Counted from now on, not from when the step is first run: nothing may find the message left behind in between.
        self._in_hand[entry.id] += 1
        self._idle.clear()
        return self._take_step(entry, step)

    async def _take_step(self, entry: Inbound, step: Coroutine[Any, Any, None]) -> None:
        try:
            for problem in await asyncio.gather(step, return_exceptions=True):
                if problem is None:
                    continue
                for again in await asyncio.gather(self._broken(entry, problem), return_exceptions=True):
                    if again is not None:
                        logger.error("message %s of %s could not even be ended", entry.message_id, entry.channel, exc_info=again)
        finally:
            self._in_hand[entry.id] -= 1
            if not self._in_hand[entry.id]:
                del self._in_hand[entry.id]
            if not self._in_hand:
                self._idle.set()

    # --- channels -----------------------------------------------------------------------------------------------------

    async def accept(self, message: InboundMessage) -> bool:
        """Append durably; return False for a repeat."""
        while len(self._backlog) >= BACKLOG:
            self._room.clear()
            await self._room.wait()
        world = self._world
        now = world.now_ms()
        message = writable.message(message)
        entry = Inbound(
            id=0,
            channel=message.target.channel,
            account_id=message.target.account_id,
            message_id=message.message_id,
            # A platform's word on the time, as far as it can be: it is shown, and sorted by.
            received_ms=message.timestamp_ms if 0 < message.timestamp_ms <= now + AHEAD_MS else now,
            state="accepted",
            message=message,
        )
        inbound_id = await world.store.write(lambda connection: ledger.append(connection, entry, now))
        if inbound_id is None:
            return False
        entry.id = inbound_id
        # The files are on disk; nothing may hold them in memory until their turn comes.
        entry.message = replace(message, attachments=())
        self._backlog.append(entry)
        self._arrived.set()
        return True

    def take_again(self, entry: Inbound) -> None:
        """Decide about a message that was given a new beginning; it is on disk as accepted."""
        self._backlog.append(entry)
        self._arrived.set()

    async def _admit(self, entry: Inbound) -> None:
        """Decide about one message. Up to its first wait it runs in order of arrival, so that lanes keep that order."""
        if entry.session_key is not None and entry.agent_id is not None:
            route = Route(agent_id=entry.agent_id, session_key=entry.session_key, reason="")
        else:
            route = self._world.policies.route(entry.message)
            key = self._world.keys.canonical(route.session_key)
            route = replace(route, session_key=key)
            admission = self._world.policies.admit(entry.message, route)
            if admission.verdict is not Verdict.ALLOW:
                hint = admission.hint if admission.verdict is Verdict.HINT else ""
                await self._refuse(entry, route, admission, hint)
                return
            entry.admission = admission
        entry.agent_id, entry.session_key = route.agent_id, route.session_key
        text = entry.message.text
        # One that waited before a crash is no command, whatever it says.
        command = None if entry.state == "queued" else self._world.commands.find("/stop" if is_stop(text) else text)
        if command is None:
            await self._line_up(entry, route)
            return
        visit = self._world.desk.arrive(route.session_key)
        if entry.from_client:
            run = run_of(entry, route)
            self._world.board.add(run)
            step = self._submissions.answer_command(run, visit, *command)
        else:
            step = self._answer(entry, visit, *command, route_reason=route.reason)
        self._world.spawn(f"command {command[0].name}", self._or_broken(entry, step))

    async def _line_up(self, entry: Inbound, route: Route) -> None:
        run = run_of(entry, route)
        if self._submissions.is_full(run.session_key):
            await self._submissions.refuse_full(run)
            return
        run.lined_up = True
        run.after = self._world.desk.before(run.session_key)
        self._world.board.add(run)
        if self._lanes.enqueue(run):
            return
        now = self._world.now_ms()
        try:
            await write_patiently(
                self._world.store,
                lambda connection: ledger.advance(
                    connection,
                    run.inbound_id,
                    "queued",
                    now_ms=now,
                    agent_id=run.agent_id,
                    session_key=run.session_key,
                    run_id=run.run_id,
                    route_reason=route.reason or None,
                    admission=entry.admission,
                ),
            )
        except GatewayError as error:
            # It waits all the same; a restart would find it as accepted and route it again.
            logger.warning("message %s of %s: that it waits is not written: %s", entry.message_id, entry.channel, error.message)

    async def _refuse(self, entry: Inbound, route: Route, admission: Admission, hint: str) -> None:
        """End a message that starts no turn; the hint goes out once to each sender, whatever happens later."""
        now = self._world.now_ms()
        target = entry.message.target

        def write(connection: sqlite3.Connection) -> outbox_rows.Outgoing | None:
            ledger.advance(
                connection,
                entry.id,
                "routed",
                now_ms=now,
                agent_id=route.agent_id,
                session_key=route.session_key,
                run_id=None,
                route_reason=route.reason,
                admission=admission,
            )
            ended = ledger.end(connection, entry.id, "suppressed", admission.reason, now)
            if hint and ended and ledger.remember_hint(connection, target, entry.message.sender_id, now):
                return outbox_rows.insert(connection, outbox_rows.Draft(target=target, text=hint, inbound_id=entry.id), now)
            return None

        await self._write_and_send(entry, write)

    async def _broken(self, entry: Inbound, problem: BaseException) -> None:
        """End a message on whose way something raised; the sender is told, for silence would be worse."""
        logger.error("message %s of %s could not be taken", entry.message_id, entry.channel, exc_info=problem)
        now = self._world.now_ms()
        target = entry.message.target
        reason = writable.text(f"{type(problem).__name__}: {problem}")

        def write(connection: sqlite3.Connection) -> outbox_rows.Outgoing | None:
            ended = ledger.end(connection, entry.id, "dead_lettered", reason, now)
            if not ended or entry.from_client:
                return None
            return outbox_rows.insert(connection, outbox_rows.Draft(target=target, text=BROKEN, inbound_id=entry.id), now)

        await self._write_and_send(entry, write)

    async def _write_and_send(self, entry: Inbound, write: Callable[[sqlite3.Connection], outbox_rows.Outgoing | None]) -> None:
        outgoing = await write_until_done(self._world.store, write, what=f"the end of message {entry.message_id} of {entry.channel}")
        if outgoing is not None:
            self._world.outbox.dispatch(outgoing)

    # --- commands -----------------------------------------------------------------------------------------------------

    async def _answer(self, entry: Inbound, visit: Visit, command: Command, arguments: str, *, route_reason: str = "") -> None:
        """Run a command beside the lane and bring its answer to the sender."""
        key, agent_id = entry.session_key or "", entry.agent_id or ""
        call = CommandCall(
            session_key=key,
            agent_id=agent_id,
            arguments=arguments,
            target=entry.message.target,
            sender_id=entry.message.sender_id,
        )
        try:
            text = await self._world.desk.answer(visit, command, call)
        finally:
            self._world.desk.leave(visit)
        now = self._world.now_ms()
        target = entry.message.target

        def write(connection: sqlite3.Connection) -> outbox_rows.Outgoing | None:
            ledger.advance(
                connection,
                entry.id,
                "routed",
                now_ms=now,
                agent_id=agent_id,
                session_key=key,
                run_id=None,
                route_reason=route_reason,
                admission=entry.admission,
            )
            ended = ledger.end(connection, entry.id, "answered", f"command /{command.name}", now)
            if not text or not ended:
                return None
            return outbox_rows.insert(connection, outbox_rows.Draft(target=target, text=text, inbound_id=entry.id), now)

        await self._write_and_send(entry, write)


def run_of(entry: Inbound, route: Route | None = None) -> Run:
    """Return the run of a message."""
    message = entry.message
    if entry.from_client:
        extra: dict[str, Any] = {"idempotencyKey": entry.run_id}
        options = entry.options
    else:
        extra = _origin(message)
        options = RunOptions(channel=entry.channel, deliver_to=message.target, reply_to_id=message.message_id)
    return Run(
        run_id=entry.run_id or str(uuid.uuid4()),
        inbound_id=entry.id,
        session_key=entry.session_key or "",
        agent_id=entry.agent_id or "",
        text=message.text if entry.from_client else _with_sender(message),
        received_ms=entry.received_ms,
        options=options,
        route_reason=route.reason if route is not None and route.reason else None,
        admission=entry.admission,
        extra=extra,
        request=(entry.message_id, entry.request_hash) if entry.request_hash is not None else None,
    )


def _origin(message: InboundMessage) -> dict[str, Any]:
    """Return what the transcript keeps of where a message came from."""
    origin: dict[str, Any] = {
        "channel": message.target.channel,
        "sender": {"id": message.sender_id, "name": message.sender_name},
        "messageId": message.message_id,
    }
    if message.reply_to_id:
        origin["replyToId"] = message.reply_to_id
    return origin


def _with_sender(message: InboundMessage) -> str:
    """Return the text; where many talk, with who said it, in brackets that a name cannot forge."""
    if message.target.peer_kind == "direct":
        return message.text
    name = _BRACKETS.sub(" ", message.sender_name).strip()[:64] or message.sender_id
    return f"[{name}] {message.text}"
