"""The methods `messages.why` and `messages.dead.*`."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, NotRequired, TypeAlias

from pydantic import Field
from typing_extensions import TypedDict

from openclaw_kernel.api import Call, Gateway, Idempotency, InvalidRequest, Params, Requests, Scope, rpc
from openclaw_plugins.conversation.dead import DeadLetters, chosen, list_dead
from openclaw_plugins.conversation.engine import Conversation
from openclaw_plugins.conversation.finding import LONGEST_QUERY, MOST, find
from openclaw_plugins.conversation.why import explain, explain_requests, ledger_begins
from openclaw_plugins.conversation.wire import JsonObject, NonEmpty

MOST_DEAD: Final = 500
Id: TypeAlias = Annotated[str, Field(min_length=1, max_length=LONGEST_QUERY)]


class MessagesWhyParams(Params):
    id: Id
    """A run id, a platform's message id (also `channel:id` or `channel:chat:id`), a ledger id (`m12`), a delivery id, or its beginning."""


class Candidate(TypedDict):
    id: str
    kind: str
    about: str


class MessagesWhyResult(TypedDict):
    """The way of one message, or what an id can mean."""

    id: NotRequired[str]
    kind: NotRequired[Literal["message", "delivery", "note", "swept", "request"]]
    about: NotRequired[str]
    message: NotRequired[JsonObject | None]
    turns: NotRequired[list[JsonObject]]
    deliveries: NotRequired[list[JsonObject]]
    history: NotRequired[list[JsonObject]]
    note: NotRequired[JsonObject | None]
    swept: NotRequired[JsonObject | None]
    requests: NotRequired[list[JsonObject]]
    waitsBehind: NotRequired[list[str]]
    loopBlocks: NotRequired[list[JsonObject]]
    candidates: NotRequired[list[Candidate]]


class MessagesDeadListParams(Params):
    kind: Literal["message", "delivery"] | None = None
    limit: Annotated[int, Field(ge=1, le=MOST_DEAD)] = 100


class MessagesDeadListResult(TypedDict):
    items: list[JsonObject]
    total: int


class MessagesDeadShowParams(Params):
    id: Id


class MessagesDeadRetryParams(Params):
    id: Id
    idempotency_key: NonEmpty | None = None


class MessagesDeadForgetParams(Params):
    id: Id


class MessagesDeadChangedResult(TypedDict):
    ok: Literal[True]
    id: str
    kind: str
    state: str
    changed: bool
    runId: NotRequired[str]


class WhyMethods:
    """Answers what became of a message, and gives the dead a second chance."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    @rpc("messages.why", scope=Scope.READ, params=MessagesWhyParams, result=MessagesWhyResult)
    async def why(self, call: Call, params: MessagesWhyParams) -> dict[str, Any]:
        """Tell the way of a message: from whom, route, admission, wait, turns with their calls, deliveries with their attempts, end.

        An id that can mean several is answered with `candidates`.
        """
        answer, begins_ms = await self._conversation.world.store.read(
            lambda connection: _why(connection, params.id, self._conversation.world.requests)
        )
        if answer is None:
            raise self._unknown(params.id, begins_ms)
        message = answer.get("message")
        if message is not None and message["state"] in ("accepted", "routed", "queued"):
            answer["waitsBehind"] = self._ahead(message)
        if message is not None and (blocks := self._blocks(message)):
            answer["loopBlocks"] = blocks
        return answer

    def _blocks(self, message: JsonObject) -> list[JsonObject]:
        """Tell when the event loop did not run meanwhile: what a message waited for that is in no row of its own."""
        world = self._conversation.world
        until_ms = message["endedMs"] or world.context.now_ms()
        return [
            {"atMs": block.ended_ms, "ms": round(block.seconds * 1000), "plugin": block.plugin_id, "place": block.place}
            for block in world.context.service(Gateway).loop_blocks(message["receivedMs"], until_ms)
        ]

    @rpc("messages.dead.list", scope=Scope.READ, params=MessagesDeadListParams, result=MessagesDeadListResult)
    async def dead_list(self, call: Call, params: MessagesDeadListParams) -> dict[str, Any]:
        """List what could not be answered or delivered and was not forgotten, the newest first."""
        return await self._conversation.world.store.read(lambda connection: list_dead(connection, kind=params.kind, limit=params.limit))

    @rpc("messages.dead.show", scope=Scope.READ, params=MessagesDeadShowParams, result=MessagesWhyResult)
    async def dead_show(self, call: Call, params: MessagesDeadShowParams) -> dict[str, Any]:
        """Tell the way of the one message or delivery that a retry would take up."""
        return await self._conversation.world.store.read(lambda connection: explain(connection, chosen(connection, params.id)))

    @rpc(
        "messages.dead.retry",
        scope=Scope.WRITE,
        params=MessagesDeadRetryParams,
        result=MessagesDeadChangedResult,
        idempotency=Idempotency.JOIN,
    )
    async def dead_retry(self, call: Call, params: MessagesDeadRetryParams) -> dict[str, Any]:
        """Send a delivery again behind what waits in its conversation, or give a message one new turn.

        `changed` is false where it is on its way already; what may have arrived the first time may now come twice.
        """
        return (await self._dead.retry(params.id, call.client.principal)).to_json()

    @rpc(
        "messages.dead.forget",
        scope=Scope.WRITE,
        params=MessagesDeadForgetParams,
        result=MessagesDeadChangedResult,
        repeatable="what is forgotten stays forgotten",
    )
    async def dead_forget(self, call: Call, params: MessagesDeadForgetParams) -> dict[str, Any]:
        """Take one off the list of the dead; it can be asked for and not retried."""
        return (await self._dead.forget(params.id, call.client.principal)).to_json()

    @property
    def _dead(self) -> DeadLetters:
        return DeadLetters(self._conversation.world, self._conversation.intake)

    def _ahead(self, message: JsonObject) -> list[str]:
        """Return the runs that come before a message that waits."""
        key = message["route"]["sessionKey"]
        ahead: list[str] = []
        for run in self._conversation.world.board.of_session(key or ""):
            if run.run_id == message["runId"]:
                break
            if run.lined_up:
                ahead.append(run.run_id)
        return ahead

    def _unknown(self, query: str, begins_ms: int | None) -> InvalidRequest:
        days = self._conversation.ledger_days
        begins = "is empty" if begins_ms is None else f"begins {datetime.fromtimestamp(begins_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
        return InvalidRequest(
            f"id: nothing is known of {query[:80]!r}; the ledger keeps {days} days and {begins}; "
            "look for it with openclaw-kernel logs, or for its text in the chat's history",
            details={"code": "UNKNOWN_ID"},
        )


def _why(connection: sqlite3.Connection, query: str, requests: Requests) -> tuple[dict[str, Any] | None, int | None]:
    found = find(connection, query)
    if not found:
        # A stop word, or another request that made no message.
        seen = explain_requests(query, [asdict(request) for request in requests.seen(connection, query, MOST)])
        return seen, None if seen is not None else ledger_begins(connection)
    if len(found) > 1:
        return {"candidates": [one.to_json() for one in found]}, None
    return explain(connection, found[0]), None
