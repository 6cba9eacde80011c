"""The door for channels: every message is written before it is acknowledged, then goes one way to one end."""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
import uuid
from collections import deque
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any, Final

from openclaw_kernel.api import (
    Command,
    CommandCall,
    GatewayError,
    InboundMessage,
    Route,
    Verdict,
)
from openclaw_plugins.conversation import ledger, outbox
from openclaw_plugins.conversation.commands import is_stop
from openclaw_plugins.conversation.lanes import Lanes
from openclaw_plugins.conversation.ledger import Inbound
from openclaw_plugins.conversation.runs import Outcome, Run, RunOptions
from openclaw_plugins.conversation.submissions import Submissions, run_command
from openclaw_plugins.conversation.turns import INTERRUPTED, Begun, TurnRunner, begin_in
from openclaw_plugins.conversation.world import World

logger: Final = logging.getLogger(__name__)

BACKLOG: Final = 4096
BATCH: Final = 128
BROKEN: Final = "Something went wrong with your message; it was not answered. Please try again."
_BRACKETS: Final = re.compile(r"[\[\]\s]+")


class Intake:
    """Takes messages in; its one worker decides for each where it goes."""

    def __init__(self, world: World, lanes: Lanes, turns: TurnRunner, submissions: Submissions) -> None:
        self._world = world
        self._lanes = lanes
        self._turns = turns
        self._submissions = submissions
        self._backlog: deque[Inbound] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def recover(self) -> None:
        """Take up what an earlier process left: what waited waits again, what ran is ended as interrupted."""
        left = await self._world.store.read(ledger.unfinished)
        cut_off = (self._interrupted(entry) for entry in left if entry.state == "running")
        await asyncio.gather(*cut_off)
        for entry in left:
            if entry.state == "running":
                continue
            if entry.state == "queued":
                run = self._run_of(entry)
                run.lined_up = True
                self._world.board.add(run)
                self._lanes.enqueue(run)
            else:
                self._backlog.append(entry)
        self._arrived.set()

    async def _interrupted(self, entry: Inbound) -> None:
        outcome = Outcome(status="interrupted", error=INTERRUPTED, stop_reason="interrupted")
        await self._turns.finish(await self._cut_off(entry), outcome)

    async def work(self) -> None:
        """Decide about what arrives, in order, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._backlog:
                batch = [self._backlog.popleft() for _ in range(min(BATCH, len(self._backlog)))]
                self._room.set()
                results = await asyncio.gather(*(self._admit(entry) for entry in batch), return_exceptions=True)
                for entry, problem in zip(batch, results, strict=True):
                    if isinstance(problem, BaseException):
                        await self._broken(entry, problem)

    # --- channels -----------------------------------------------------------------------------------------------------

    async def accept(self, message: InboundMessage) -> bool:
        """Append durably; return False for a repeat."""
        while len(self._backlog) >= BACKLOG:
            self._room.clear()
            await self._room.wait()
        world = self._world
        now = world.now_ms()
        entry = Inbound(
            id=0,
            channel=message.target.channel,
            account_id=message.target.account_id,
            message_id=message.message_id,
            received_ms=message.timestamp_ms or now,
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
                await self._refuse(entry, route, admission.reason, hint)
                return
        entry.agent_id, entry.session_key = route.agent_id, route.session_key
        text = entry.message.text
        command = self._world.commands.find("/stop" if is_stop(text) else text)
        if command is not None and entry.from_client:
            run = self._run_of(entry)
            self._world.board.add(run)
            self._world.spawn(f"command {command[0].name}", self._submissions.answer_command(run, *command))
            return
        if command is not None:
            self._world.spawn(f"command {command[0].name}", self._answer(entry, *command, route_reason=route.reason))
            return
        await self._line_up(entry, route)

    async def _line_up(self, entry: Inbound, route: Route) -> None:
        run = self._run_of(entry)
        if self._submissions.is_full(run.session_key):
            await self._submissions.refuse_full(run)
            return
        run.lined_up = True
        self._world.board.add(run)
        now = self._world.now_ms()
        if self._lanes.claim(run):
            await self._begin_claimed(run, self._world.store.write(lambda connection: begin_in(connection, run, now)), now)
            return
        self._lanes.enqueue(run)
        await self._world.store.write(
            lambda connection: ledger.advance(
                connection,
                run.inbound_id,
                "queued",
                now_ms=now,
                agent_id=run.agent_id,
                session_key=run.session_key,
                run_id=run.run_id,
                route_reason=route.reason,
            )
        )

    async def _begin_claimed(self, run: Run, write: Awaitable[Begun], now_ms: int) -> None:
        try:
            begun = await write
        except GatewayError as error:
            self._lanes.release(run)
            await self._turns.failed(run, error)
            return
        self._turns.took_lane(run, begun, now_ms)
        self._lanes.start(run)

    async def _refuse(self, entry: Inbound, route: Route, reason: str, hint: str) -> None:
        """End a message that starts no turn; the hint goes out once to each sender, whatever happens later."""
        now = self._world.now_ms()
        target = entry.message.target

        def write(connection: sqlite3.Connection) -> outbox.Outgoing | None:
            ledger.advance(
                connection,
                entry.id,
                "routed",
                now_ms=now,
                agent_id=route.agent_id,
                session_key=route.session_key,
                run_id=None,
                route_reason=route.reason,
            )
            ledger.end(connection, entry.id, "suppressed", reason, now)
            if hint and ledger.remember_hint(connection, target, entry.message.sender_id, now):
                return outbox.insert(connection, outbox.Draft(target=target, text=hint, inbound_id=entry.id), now)
            return None

        outgoing = await self._world.store.write(write)
        if outgoing is not None:
            self._world.outbox.dispatch(outgoing)

    async def _broken(self, entry: Inbound, problem: BaseException) -> None:
        """End a message on whose way something raised; the sender is told, for silence would be worse."""
        logger.error("message %s of %s could not be taken", entry.message_id, entry.channel, exc_info=problem)
        now = self._world.now_ms()
        target = entry.message.target
        reason = f"{type(problem).__name__}: {problem}"

        def write(connection: sqlite3.Connection) -> outbox.Outgoing | None:
            ended = ledger.end(connection, entry.id, "dead_lettered", reason, now)
            if not ended or entry.from_client:
                return None
            return outbox.insert(connection, outbox.Draft(target=target, text=BROKEN, inbound_id=entry.id), now)

        try:
            outgoing = await self._world.store.write(write)
        except GatewayError:
            # It stays open in the ledger, and the next start takes it up again.
            logger.exception("message %s of %s could not even be ended", entry.message_id, entry.channel)
            return
        if outgoing is not None:
            self._world.outbox.dispatch(outgoing)

    # --- commands -----------------------------------------------------------------------------------------------------

    async def _answer(self, entry: Inbound, command: Command, arguments: str, *, route_reason: str = "") -> None:
        """Run a command beside the lane and bring its answer to the sender."""
        key, agent_id = entry.session_key or "", entry.agent_id or ""
        call = CommandCall(
            session_key=key,
            agent_id=agent_id,
            arguments=arguments,
            target=None if entry.from_client else entry.message.target,
            sender_id=entry.message.sender_id,
        )
        text = await run_command(command, call)
        now = self._world.now_ms()
        target = entry.message.target

        def write(connection: sqlite3.Connection) -> outbox.Outgoing | None:
            ledger.advance(
                connection,
                entry.id,
                "routed",
                now_ms=now,
                agent_id=agent_id,
                session_key=key,
                run_id=None,
                route_reason=route_reason,
            )
            ledger.end(connection, entry.id, "answered", f"command /{command.name}", now)
            if not text:
                return None
            return outbox.insert(connection, outbox.Draft(target=target, text=text, inbound_id=entry.id), now)

        outgoing = await self._world.store.write(write)
        if outgoing is not None:
            self._world.outbox.dispatch(outgoing)

    # --- runs ---------------------------------------------------------------------------------------------------------

    def _run_of(self, entry: Inbound) -> Run:
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
            extra=extra,
            request=(entry.message_id, entry.request_hash) if entry.request_hash is not None else None,
        )

    async def _cut_off(self, entry: Inbound) -> Run:
        """Return the run of a message whose turn an earlier process did not end."""
        run = self._run_of(entry)
        row = await self._world.store.read(
            lambda connection: connection.execute(
                "SELECT id, session_id, started_ms FROM conversation_runs WHERE inbound_id = ? ORDER BY id DESC LIMIT 1",
                (entry.id,),
            ).fetchone()
        )
        if row is not None:
            run.row_id, run.session_id, run.started_ms = row
            run.begun = True
        self._world.board.add(run)
        return run


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
