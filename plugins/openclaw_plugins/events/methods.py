"""The methods that follow events by cursor; the log and its feeds are the kernel's."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from openclaw_kernel.api import Call, EventReplay, GapReason, Params, PluginContext, Scope, rpc

EventName = Annotated[str, Field(min_length=1, max_length=100)]


class SubscribeParams(Params):
    """Where to begin, and which events."""

    since: Annotated[str | None, Field(min_length=1, max_length=100)] = None
    events: Annotated[list[EventName] | None, Field(min_length=1, max_length=100)] = None


class Nothing(Params):
    """No params."""


class Gap(TypedDict):
    """Why events since the cursor are missing; `oldestTs` is the time of the oldest event that is kept."""

    reason: GapReason
    oldestTs: NotRequired[int]


class SubscribeResult(TypedDict):
    """The cursor that the events follow."""

    subscribed: Literal[True]
    cursor: str
    gap: NotRequired[Gap]


class UnsubscribeResult(TypedDict):
    """The cursor that was reached, where there was a subscription."""

    subscribed: Literal[False]
    cursor: NotRequired[str]


class EventMethods:
    """Subscribe with a cursor, and end it."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @rpc("events.subscribe", scope=Scope.READ, params=SubscribeParams, result=SubscribeResult)
    async def subscribe(self, call: Call, params: SubscribeParams) -> dict[str, Any]:
        """Receive events as `events.item` with a cursor, from the cursor `since` on, or from now.

        What is missing is told as `gap` here or by `events.gap`; `events.current` says that all that was missed has been sent.
        A second call on a connection replaces the first.
        """
        replay = self._context.service(EventReplay)
        began = await replay.subscribe(call.client.connection_id, since=params.since, events=params.events)
        answer: dict[str, Any] = {"subscribed": True, "cursor": began.cursor}
        if began.gap is not None:
            answer["gap"] = {"reason": began.gap.reason}
            if began.gap.oldest_ms is not None:
                answer["gap"]["oldestTs"] = began.gap.oldest_ms
        return answer

    @rpc("events.unsubscribe", scope=Scope.READ, params=Nothing, result=UnsubscribeResult)
    def unsubscribe(self, call: Call, _params: Nothing) -> dict[str, Any]:
        """Receive plain events again; answers with the cursor that was reached."""
        cursor = self._context.service(EventReplay).unsubscribe(call.client.connection_id)
        return {"subscribed": False} if cursor is None else {"subscribed": False, "cursor": cursor}
