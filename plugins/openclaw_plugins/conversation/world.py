"""What the parts of this plugin share: state on disk and in memory, and the services of others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from openclaw_kernel.api import (
    AgentInfo,
    AgentRuntime,
    Channels,
    Commands,
    Events,
    InvalidRequest,
    PluginContext,
    Policies,
    Providers,
    RequestKey,
    Requests,
    Store,
    Unavailable,
)
from openclaw_plugins.conversation.chat_events import SessionEvents
from openclaw_plugins.conversation.command_desk import CommandDesk
from openclaw_plugins.conversation.keys import KeyRules, checked_agent_id
from openclaw_plugins.conversation.outbox import DeliveryRules, Outbox
from openclaw_plugins.conversation.runs import RunBoard
from openclaw_plugins.conversation.session_rows import wire_row
from openclaw_plugins.conversation.sessions import SessionBook, SessionRow
from openclaw_plugins.conversation.transcript import Transcript

DEFAULT_AGENT: Final = "main"
KEEPING_SECONDS: Final = 2.0

ValueT = TypeVar("ValueT")


class World:
    """Made at the plugin's start, when every service can be asked for."""

    def __init__(self, context: PluginContext, rules: Callable[[], DeliveryRules]) -> None:
        self.context = context
        self.store: Store = context.store
        self.sessions = SessionBook(context.store, str(context.home))
        self.transcript = Transcript(context.store)
        self.board = RunBoard()
        self.desk = CommandDesk()
        self.session_events = SessionEvents(context.service(Events), self.wire_row, context.now_ms)
        self.outbox = Outbox(
            store=context.store,
            channels=lambda: context.service(Channels),
            spawn=context.spawn,
            now_ms=context.now_ms,
            rules=rules,
        )

    @property
    def events(self) -> Events:
        return self.context.service(Events)

    @property
    def channels(self) -> Channels:
        return self.context.service(Channels)

    @property
    def runtime(self) -> AgentRuntime:
        return self.context.service(AgentRuntime)

    @property
    def providers(self) -> Providers:
        return self.context.service(Providers)

    @property
    def commands(self) -> Commands:
        return self.context.service(Commands)

    @property
    def requests(self) -> Requests:
        return self.context.service(Requests)

    @property
    def policies(self) -> Policies:
        return self.context.service(Policies)

    @property
    def keys(self) -> KeyRules:
        """Return what bare session keys stand for now."""
        try:
            default = self.runtime.default_agent_id()
        except LookupError:
            default = DEFAULT_AGENT
        return KeyRules(default, self.context.config.session.main_key)

    def now_ms(self) -> int:
        """Return Unix milliseconds."""
        return self.context.now_ms()

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a task of this plugin."""
        return self.context.spawn(name, coroutine)

    def find_agent(self, agent_id: str) -> AgentInfo | None:
        """Return a configured agent, None also where no plugin runs agents."""
        try:
            return self.runtime.agent(agent_id)
        except LookupError:
            return None

    def require_agent(self, agent_id: str) -> AgentInfo:
        """Return a configured agent; raise `InvalidRequest` for another."""
        try:
            runtime = self.runtime
        except LookupError:
            raise Unavailable("no plugin runs agents; enable the plugin agents") from None
        agent = runtime.agent(agent_id)
        if agent is None:
            known = ", ".join(info.id for info in runtime.agents())
            raise InvalidRequest(
                f"unknown agent id {agent_id!r}; use one of {known}",
                details={"code": "UNKNOWN_AGENT_ID", "agentId": agent_id},
            )
        return agent

    def agent_of(self, session_key: str, named: str | None) -> AgentInfo:
        """Return the agent that answers in a session; raise `InvalidRequest` where the caller named another one."""
        agent = self.require_agent(self.keys.agent(session_key))
        if named is not None and checked_agent_id(named) != agent.id:
            raise InvalidRequest(f"agentId: {agent.id} answers in the session {session_key}; leave agentId out or name {agent.id}")
        return agent

    def wire_row(self, row: SessionRow) -> dict[str, Any]:
        """Return a session as clients see it, with what is going on in it now."""
        return wire_row(row, agent=self.find_agent(row.agent_id), live=self.live_status(row.key), main=self.keys)

    def live_status(self, session_key: str) -> str | None:
        """Return `running` or `queued` while a session has work, else None."""
        found = None
        for run in self.board.of_session(session_key):
            if run.begun:
                return "running"
            # A command is answered beside the session's work and is none of it.
            found = "queued" if run.lined_up else found
        return found

    def changed(self, row: SessionRow, reason: str) -> None:
        """Tell the subscribers of the list that a session changed."""
        self.session_events.changed(row, reason)

    async def keep_answer(self, request: RequestKey, answer: object) -> None:
        """Keep what a request is answered; where the store fails, the caller does not wait until it is done."""
        keeping = self.spawn(f"keep the answer of {request.method}", self.requests.settle(request, answer))
        await asyncio.wait({keeping}, timeout=KEEPING_SECONDS)

    async def complete(self, name: str, coroutine: Coroutine[Any, Any, ValueT]) -> ValueT:
        """Run to its end, whatever becomes of the caller: what is on disk and what is in memory must not part.

        A connection that closes cancels its calls, and a write cannot be taken back.
        """
        try:
            task: asyncio.Task[ValueT | BaseException] = self.spawn(name, _kept(coroutine))
        except RuntimeError:
            coroutine.close()
            raise Unavailable("the gateway is stopping; try again", retry_after_ms=1000) from None
        answer = await asyncio.shield(task)
        if isinstance(answer, BaseException):
            raise answer
        return answer


async def _kept(coroutine: Coroutine[Any, Any, ValueT]) -> ValueT | BaseException:
    # What a task raises counts as a fault of the plugin; this is an answer for the caller.
    answers = await asyncio.gather(coroutine, return_exceptions=True)
    return answers[0]
