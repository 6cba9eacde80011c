"""The door for WebSocket clients: a request becomes a run once it is on disk, and a repeat of it changes nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeVar

from openclaw_kernel.api import (
    Attachment,
    Call,
    Claim,
    Client,
    Command,
    CommandCall,
    InboundMessage,
    InvalidRequest,
    KeptAnswer,
    RequestKey,
    Target,
    UserPart,
)
from openclaw_plugins.conversation import ledger, writable
from openclaw_plugins.conversation.collecting import Collected, collect
from openclaw_plugins.conversation.command_desk import Visit
from openclaw_plugins.conversation.endings import Endings
from openclaw_plugins.conversation.lanes import Lanes
from openclaw_plugins.conversation.ledger import Inbound
from openclaw_plugins.conversation.runs import Outcome, Run, RunOptions
from openclaw_plugins.conversation.turns import Begun, TurnRunner, begin_in
from openclaw_plugins.conversation.world import World

ValueT = TypeVar("ValueT")

FULL: Final = "Too many messages are waiting in this conversation; this one was not taken. Send it again later."


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A message of a WebSocket client. `message_id` is the principal with the idempotency key."""

    key: RequestKey
    run_id: str
    message_id: str
    session_key: str
    agent_id: str
    message: InboundMessage
    parts: tuple[UserPart, ...]
    options: RunOptions
    owner: str | None
    commands: bool = True
    interrupt: bool = False
    collect: bool = False
    answered_at_once: bool = True
    """True where the answer is that the run begins, false where it is how the run ends."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What became of a request: `started`, `in_flight`, or `known` for one that was answered before."""

    status: Literal["started", "in_flight", "known"]
    reply: dict[str, Any]
    """What `chat.send` answers first."""
    run: Run | None = None
    inbound_id: int = 0
    """The message of a request that is `known`."""
    answer: KeptAnswer | None = None
    """What a request that is `known` was answered, where that is written."""


@dataclass(frozen=True, slots=True)
class _WayIn:
    """How a run gets to its turn: whom it stops, whom it carries, whether there is room, whether it begins at once."""

    interrupted: Run | None
    collected: Collected
    full: bool
    claimed: bool


class Submissions:
    """Takes requests in, each under its idempotency key."""

    def __init__(self, world: World, lanes: Lanes, turns: TurnRunner, endings: Endings) -> None:
        self._world = world
        self._lanes = lanes
        self._turns = turns
        self._endings = endings

    async def submit(self, request: Request) -> Submission:
        """Take a client's message; return once it is on disk. A repeat changes nothing.

        Raise `InvalidRequest` where the same key came with another payload.
        """
        return await self._world.complete(f"submit {request.run_id}", self._submit(request))

    async def _submit(self, request: Request) -> Submission:
        known = self._joined(request)
        if known is not None:
            return known
        command = self._world.commands.find(request.message.text) if request.commands else None
        run = self._run_of_request(request)
        self._world.board.add(run)
        if command is not None:
            return await self._submit_command(request, run, command)
        way = self._way_in(request, run)
        entry = _entry_of(request, "accepted" if way.claimed or way.full else "queued")
        run.text = way.collected.text(run.text)
        entry.message = replace(entry.message, text=run.text)
        now = self._world.now_ms()

        def write(connection: sqlite3.Connection) -> tuple[dict[str, Any], Begun | None] | Submission:
            known = self._take(connection, request, entry, run, now)
            if known is not None:
                return known
            if way.interrupted is not None:
                ledger.supersede(connection, way.interrupted.inbound_id, run.run_id, now)
            way.collected.write(connection, run, now)
            begun = begin_in(connection, run, now) if way.claimed else None
            reply = _started(request, begun.entry.seq if begun is not None else None, interrupts=way.interrupted is not None)
            self._keep(connection, request, run.inbound_id, reply)
            return reply, begun

        if way.claimed:
            # The transcript takes the files in the same write.
            entry.message = replace(entry.message, attachments=())
        written = None
        try:
            written = await self._written(run, write, claimed=way.claimed)
        finally:
            if not isinstance(written, tuple):
                way.collected.put_back(self._lanes)
        if isinstance(written, Submission):
            return written
        reply, begun = written
        self._go_in(run, way, begun, now)
        return Submission("started", reply, run)

    def _way_in(self, request: Request, run: Run) -> _WayIn:
        """Decide what comes of a run's lane; what it takes out of the lane is out from now on."""
        earlier = [other for other in self._world.board.of_session(run.session_key) if other is not run]
        collected = collect(self._lanes, earlier, run) if request.collect else Collected()
        full = not collected.runs and self.is_full(run.session_key)
        # One that is not taken in takes nobody's place.
        interrupted = self._lanes.running(run.session_key) if request.interrupt and not full else None
        run.lined_up = not full
        run.after = self._world.desk.before(run.session_key)
        # One that is still being written is not in its lane, which may be free meanwhile: it must not be overtaken.
        is_first = not any(other.lined_up for other in earlier)
        # A run that cannot begin at once is not written as begun: a restart would end it as interrupted.
        claimed = is_first and not full and not run.after and self._lanes.is_open and self._lanes.claim(run)
        return _WayIn(interrupted, collected, full, claimed)

    def _go_in(self, run: Run, way: _WayIn, begun: Begun | None, now_ms: int) -> None:
        """Do with a run what is on disk."""
        for earlier in way.collected.runs:
            self._world.spawn(f"collect {earlier.run_id}", self._collected(earlier))
        if begun is not None:
            self._turns.took_lane(run, begun, now_ms)
            self._lanes.start(run)
            return
        if way.full:
            self._world.spawn(f"refuse {run.run_id}", self.refuse_full(run))
            return
        run.parts = None
        if way.interrupted is not None:
            way.interrupted.stop()
        self._lanes.enqueue(run, first=way.interrupted is not None)

    async def _collected(self, run: Run) -> None:
        """Tell whoever follows a run that another one carries its message; that is on disk."""
        run.stop()
        await self._endings.finish(run, Outcome(status="aborted", stop_reason="superseded"))

    async def _submit_command(self, request: Request, run: Run, command: tuple[Command, str]) -> Submission:
        entry = _entry_of(request, "routed")
        entry.message = replace(entry.message, attachments=())
        now = self._world.now_ms()
        visit = self._world.desk.arrive(run.session_key)

        def write(connection: sqlite3.Connection) -> Submission:
            known = self._take(connection, request, entry, run, now)
            if known is not None:
                return known
            reply = _started(request)
            self._keep(connection, request, run.inbound_id, reply)
            return Submission("started", reply, run)

        submission = None
        try:
            submission = await self._written(run, write, claimed=False)
        finally:
            if submission is None or submission.run is None:
                self._world.desk.leave(visit)
        if submission.run is None:
            return submission
        self._world.spawn(f"command {command[0].name}", self.answer_command(run, visit, *command))
        return submission

    def _take(self, connection: sqlite3.Connection, request: Request, entry: Inbound, run: Run, now_ms: int) -> Submission | None:
        """Write key and message in one; return what is known of a repeat, for which nothing is written."""
        requests = self._world.requests
        claim = requests.claim(connection, request.key)
        if claim.state != "new":
            return _known(request, claim)
        inbound_id = ledger.append(connection, entry, now_ms)
        if inbound_id is not None:
            run.inbound_id = inbound_id
            return None
        # The ledger remembers longer than the table of keys, and messages from before there was one.
        older = ledger.find(connection, ledger.WEBCHAT, ledger.DEFAULT_ACCOUNT, request.message_id)
        if older is None or older.request_hash != request.key.digest:
            raise _conflict(request.run_id)
        reply = older.reply or _started(request)
        self._keep(connection, request, older.id, reply)
        return Submission("known", reply, inbound_id=older.id)

    def _keep(self, connection: sqlite3.Connection, request: Request, inbound_id: int, reply: dict[str, Any]) -> None:
        if request.answered_at_once:
            self._world.requests.complete(connection, request.key, reply)
        else:
            self._world.requests.note(connection, request.key, str(inbound_id))

    async def _written(self, run: Run, write: Callable[[sqlite3.Connection], ValueT], *, claimed: bool) -> ValueT:
        """Run the accepting write; a run that it did not take up leaves no trace in memory."""
        taken: ValueT | None = None
        try:
            taken = await self._world.store.write(write)
        finally:
            if taken is None or (isinstance(taken, Submission) and taken.run is None):
                self._world.board.remove(run)
                run.done.set()
                if claimed:
                    self._lanes.release(run)
        return taken

    def _joined(self, request: Request) -> Submission | None:
        active = self._world.board.by_request(request.message_id)
        if active is None:
            return None
        if active.request is not None and active.request[1] != request.key.digest:
            raise _conflict(request.run_id)
        # A client that comes back on a new connection goes on seeing its tools.
        active.owner = request.owner or active.owner
        return Submission("in_flight", {"runId": request.run_id, "status": "in_flight"}, active)

    def is_full(self, session_key: str) -> bool:
        """Tell whether no further message may wait in a session."""
        # Counts also those whose writing is under way, and not the one that has the lane.
        waiting = sum(run.lined_up for run in self._world.board.of_session(session_key)) - 1
        return waiting >= self._world.context.config.session.queue_limit

    async def end_broken(self, run: Run, error: str) -> None:
        """End a run that nothing works on any more, visibly for whoever follows it."""
        self._world.board.add(run)
        await self._endings.finish(run, Outcome(status="error", error=error, error_kind="unknown"))

    async def refuse_full(self, run: Run) -> None:
        """End a run for which there is no room, visibly."""
        self._world.board.add(run)
        await self._endings.finish(run, Outcome(status="error", error=FULL, error_kind="rate_limit"))

    async def answer_command(self, run: Run, visit: Visit, command: Command, arguments: str) -> None:
        """Run a command beside the lane; its answer is the run's end."""
        call = CommandCall(session_key=run.session_key, agent_id=run.agent_id, arguments=arguments, target=None, sender_id=run.run_id)
        try:
            text = writable.text(await self._world.desk.answer(visit, command, call))
        finally:
            self._world.desk.leave(visit)
        await self._endings.finish(run, Outcome(status="ok", text=text, stop_reason="command", silent=not text))

    def _run_of_request(self, request: Request) -> Run:
        return Run(
            run_id=request.run_id,
            inbound_id=0,
            session_key=request.session_key,
            agent_id=request.agent_id,
            text=request.message.text,
            received_ms=request.message.timestamp_ms,
            options=request.options,
            parts=request.parts,
            extra={"idempotencyKey": request.run_id},
            request=(request.message_id, request.key.digest),
            owner=request.owner,
            collects=request.collect,
        )


def _entry_of(request: Request, state: ledger.OpenState) -> Inbound:
    return Inbound(
        id=0,
        channel=ledger.WEBCHAT,
        account_id=ledger.DEFAULT_ACCOUNT,
        message_id=request.message_id,
        received_ms=request.message.timestamp_ms,
        state=state,
        message=request.message,
        options=request.options,
        agent_id=request.agent_id,
        session_key=request.session_key,
        run_id=request.run_id,
        request_hash=request.key.digest,
    )


def _started(request: Request, message_seq: int | None = None, *, interrupts: bool = False) -> dict[str, Any]:
    reply: dict[str, Any] = {"runId": request.run_id, "status": "started"}
    if message_seq is not None:
        reply["messageSeq"] = message_seq
    if interrupts:
        reply["interruptedActiveRun"] = True
    return reply


def _known(request: Request, claim: Claim) -> Submission:
    return Submission("known", _started(request), inbound_id=int(claim.record or 0), answer=claim.answer)


def key_of(call: Call) -> RequestKey:
    """Return the idempotency key of a call; raise `InvalidRequest` where it has none."""
    if call.request is None:
        raise InvalidRequest("idempotencyKey: is missing; give each request a new one")
    return call.request


def message_id_of(client: Client, idempotency_key: str) -> str:
    """Return what the ledger calls a client's message; nobody else's has the same."""
    return f"{client.principal}:{idempotency_key}"


def client_message(
    client: Client, idempotency_key: str, text: str, attachments: tuple[Attachment, ...], received_ms: int
) -> InboundMessage:
    """Return what a WebSocket client sent as the message it is."""
    return InboundMessage(
        target=_client_target(client.principal),
        message_id=idempotency_key,
        sender_id=client.principal,
        sender_name=client.display_name or "",
        text=text,
        attachments=attachments,
        timestamp_ms=received_ms,
        mentioned=True,
    )


def _client_target(principal: str) -> Target:
    return Target(channel=ledger.WEBCHAT, account_id=ledger.DEFAULT_ACCOUNT, peer_kind="direct", peer_id=principal)


def _conflict(run_id: str) -> InvalidRequest:
    return InvalidRequest(
        f"idempotencyKey {run_id[:80]!r} was used for another request; use a new key for each message",
        details={"reason": "chat-request-conflict"},
    )
