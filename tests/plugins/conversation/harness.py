"""The conversation plugin in one process: the real store and tasks, everything around it scripted and recorded.

Every result that a method gives and every event is checked against the contract on its way.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import sqlite3
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, overload

from pydantic import BaseModel, TypeAdapter

from openclaw_config.models import Config
from openclaw_kernel.api import (
    Admission,
    AgentInfo,
    AgentRuntime,
    AuditLog,
    Call,
    ChannelCapabilities,
    Channels,
    Command,
    Commands,
    Encoded,
    Events,
    EventSpec,
    Gateway,
    InboundMessage,
    LoopBlock,
    Method,
    Migration,
    ModelInfo,
    OutboundMessage,
    Policies,
    Progress,
    Providers,
    Receipt,
    RequestKey,
    Requests,
    Restarts,
    Route,
    Scope,
    Target,
    Turn,
    TurnResult,
    TurnSink,
    Unit,
    Verdict,
)
from openclaw_kernel.api.methods import methods_of
from openclaw_kernel.api.requests import digest_of
from openclaw_kernel.protocol.frames import dumps
from openclaw_kernel.protocol.registry import read_params
from openclaw_kernel.restart import RestartDesk
from openclaw_kernel.store.requests import RequestTable
from openclaw_kernel.store.sqlite import SqliteStore
from openclaw_kernel.tasks import TaskOwner
from openclaw_plugins.conversation.plugin import ConversationPlugin
from openclaw_plugins.conversation.settings import ConversationSettings
from tests.support import contract
from tests.support.audit import RecordedAudit

DEADLINE = 10.0
T = TypeVar("T")
Script = Callable[[Turn, TurnSink], Awaitable[TurnResult]]


@overload
async def until(condition: Callable[[], Coroutine[Any, Any, T]], what: str = ..., *, seconds: float = ...) -> T: ...
@overload
async def until(condition: Callable[[], T], what: str = ..., *, seconds: float = ...) -> T: ...
async def until(condition: Callable[[], Any], what: str = "the condition", *, seconds: float = DEADLINE) -> Any:
    """Return the condition's value once it is true; fail after the deadline."""
    loop = asyncio.get_running_loop()
    latest = loop.time() + seconds
    while True:
        found = condition()
        value = await found if isinstance(found, Coroutine) else found
        if value:
            return value
        assert loop.time() < latest, f"{what} did not come about within {seconds:g} s"
        await asyncio.sleep(0.002)


@dataclass
class Sent:
    """One broadcast."""

    event: str
    payload: dict[str, Any]
    options: dict[str, Any]


class RecordedEvents:
    """Implements Events; keeps all and checks each."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []

    def broadcast(
        self,
        event: str,
        payload: Mapping[str, Any],
        *,
        topics: Collection[str] | None = None,
        scoped_topic: str | None = None,
        connections: Collection[str] | None = None,
        exclude: Collection[str] = (),
        droppable: bool = False,
        replaces: str | None = None,
    ) -> None:
        wire = json.loads(dumps(payload))
        contract.validate_event({"type": "event", "event": event, "payload": wire})
        options = {"topics": topics, "scoped_topic": scoped_topic, "connections": connections, "exclude": exclude, "replaces": replaces}
        self.sent.append(Sent(event, wire, options))

    def of(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        return [
            sent.payload
            for sent in self.sent
            if sent.event == event and all(sent.payload.get(key) == value for key, value in fields.items())
        ]

    async def first(self, event: str, **fields: Any) -> dict[str, Any]:
        found = await until(lambda: self.of(event, **fields), f"event {event} {fields}")
        return found[0]

    async def terminal(self, run_id: str) -> dict[str, Any]:
        """Wait for the one terminal chat event of a run."""
        ends = ("final", "aborted", "error")
        found = await until(lambda: [chat for chat in self.of("chat", runId=run_id) if chat["state"] in ends], f"the end of {run_id}")
        assert len(found) == 1
        return found[0]


class ScriptedChannels:
    """Implements Channels: `telegram` and `irc`, up or down, sending as scripted."""

    def __init__(self) -> None:
        self.up = {"telegram", "irc"}
        self.known = ["webchat", "telegram", "irc"]
        self.idempotent: set[str] = set()
        self.sent: list[OutboundMessage] = []
        self.attempts: list[OutboundMessage] = []
        self.shown: list[Progress] = []
        self.script: Callable[[OutboundMessage], Awaitable[None]] | None = None
        self._ids = itertools.count(1)

    def ids(self) -> Sequence[str]:
        return self.known

    def label(self, channel: str) -> str:
        return channel

    def capabilities(self, channel: str) -> ChannelCapabilities | None:
        if channel not in self.up:
            return None
        return ChannelCapabilities(progress=True, idempotent_send=channel in self.idempotent)

    async def send(self, message: OutboundMessage) -> Receipt:
        self.attempts.append(message)
        if self.script is not None:
            await self.script(message)
        self.sent.append(message)
        return Receipt(message_ids=(f"m{next(self._ids)}",))

    def show_progress(self, progress: Progress) -> None:
        self.shown.append(progress)

    def texts(self) -> list[str]:
        return [message.text for message in self.sent]


class ScriptedRuntime:
    """Implements AgentRuntime; by default it answers `you said: ...` with one delta."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.script: Script = say
        self.known = ["main", "other"]

    async def run(self, turn: Turn, sink: TurnSink) -> TurnResult:
        self.turns.append(turn)
        return await self.script(turn, sink)

    def agents(self) -> Sequence[AgentInfo]:
        return [self._info(agent_id) for agent_id in self.known]

    def agent(self, agent_id: str) -> AgentInfo | None:
        return self._info(agent_id) if agent_id in self.known else None

    def default_agent_id(self) -> str:
        return "main"

    def problems(self) -> Sequence[str]:
        return ()

    def _info(self, agent_id: str) -> AgentInfo:
        return AgentInfo(
            id=agent_id,
            name=agent_id.title(),
            is_default=agent_id == "main",
            emoji=None,
            avatar=None,
            workspace="/nowhere",
            model="echo/echo-1",
            fallbacks=(),
            context_tokens=8000,
            thinking=None,
            timeout_seconds=600,
        )


def said(turn: Turn) -> str:
    """The text of a turn's new message."""
    return "".join(part["text"] for part in turn.message.to_json()["content"] if part["type"] == "text")


async def say(turn: Turn, sink: TurnSink) -> TurnResult:
    text = f"you said: {said(turn)}"
    sink.text(text)
    return TurnResult(status="ok", text=text, stop_reason="stop", model="echo/echo-1")


class Gate:
    """A runtime that answers when it is told to, message by message."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.open: dict[str, asyncio.Event] = {}
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.stubborn = stubborn
        self.released = asyncio.Event()

    async def __call__(self, turn: Turn, sink: TurnSink) -> TurnResult:
        text = said(turn)
        self.started.append(text)
        sink.text(f"thinking about {text}")
        try:
            await self.open.setdefault(text, asyncio.Event()).wait()
        except asyncio.CancelledError:
            self.cancelled.append(text)
            if not self.stubborn:
                raise
            await self.released.wait()
        return TurnResult(status="ok", text=f"done: {text}", stop_reason="stop")

    def let(self, text: str) -> None:
        self.open.setdefault(text, asyncio.Event()).set()

    async def running(self, text: str) -> None:
        await until(lambda: text in self.started, f"the turn {text!r}")


class ScriptedPolicies:
    """Implements Policies: a session per peer, everybody admitted, unless told otherwise."""

    def __init__(self) -> None:
        self.admission: Callable[[InboundMessage], Admission] = lambda _: Admission(verdict=Verdict.ALLOW, reason="everybody")
        self.problem: Exception | None = None

    def route(self, message: InboundMessage) -> Route:
        if self.problem is not None:
            raise self.problem
        target = message.target
        kind = "" if target.peer_kind == "direct" else f"{target.peer_kind}:"
        return Route(agent_id="main", session_key=f"agent:main:{target.channel}:{kind or 'direct:'}{target.peer_id}", reason="test")

    def admit(self, message: InboundMessage, route: Route) -> Admission:
        return self.admission(message)


class RegisteredCommands:
    """Implements Commands over what the plugin registered."""

    def __init__(self, commands: list[Command]) -> None:
        self._commands = {command.name: command for command in commands}

    def all(self) -> Sequence[Command]:
        return list(self._commands.values())

    def add(self, command: Command) -> None:
        self._commands[command.name] = command

    def find(self, text: str) -> tuple[Command, str] | None:
        words = text.strip().split(maxsplit=1)
        if not words or not words[0].startswith("/"):
            return None
        command = self._commands.get(words[0][1:].partition("@")[0].lower())
        return None if command is None else (command, words[1] if len(words) > 1 else "")


class FixedProviders:
    """The part of Providers that the conversation asks."""

    def ids(self) -> Sequence[str]:
        return ["echo"]

    def models(self) -> Sequence[ModelInfo]:
        return [ModelInfo(id=name, provider="echo", name=name) for name in ("echo-1", "echo-2")]

    def find(self, ref: str) -> ModelInfo | None:
        return next((info for info in self.models() if info.ref == ref), None)

    def problem(self, provider: str) -> str | None:
        return None


@dataclass
class FixedGateway:
    """The part of Gateway that the conversation asks."""

    ready: bool = True
    blocks: list[LoopBlock] = field(default_factory=list)
    asked: tuple[int, int] = (0, 0)

    def loop_blocks(self, since_ms: int, until_ms: int) -> list[LoopBlock]:
        self.asked = (since_ms, until_ms)
        return self.blocks


@dataclass
class TestClient:
    """Implements Client."""

    __test__ = False

    connection_id: str = "c1"
    client_id: str = "test"
    mode: str = "test"
    role: str = "operator"
    scopes: frozenset[str] = frozenset({"operator.admin", "operator.read", "operator.write"})
    caps: frozenset[str] = frozenset()
    principal: str = "token"
    address: str | None = "127.0.0.1"
    display_name: str | None = None
    instance_id: str | None = None
    topics: set[str] = field(default_factory=set)

    def has(self, scope: Scope) -> bool:
        return scope.value in self.scopes

    def subscribe(self, topic: str) -> None:
        self.topics.add(topic)

    def unsubscribe(self, topic: str) -> None:
        self.topics.discard(topic)


class Registered:
    """Implements Registrar for what this plugin registers."""

    def __init__(self) -> None:
        self.services: dict[type[Any], Any] = {}
        self.units: list[Unit] = []
        self.migrations: list[Migration] = []
        self.commands: list[Command] = []
        self.methods: dict[str, Method] = {}
        self.events: list[EventSpec] = []

    def provide(self, kind: type[Any], service: Any) -> None:
        self.services[kind] = service

    def add_unit(self, unit: Unit) -> None:
        self.units.append(unit)

    def add_migrations(self, migrations: Sequence[Migration]) -> None:
        self.migrations.extend(migrations)

    def add_command(self, command: Command) -> None:
        self.commands.append(command)

    def add_events(self, events: Iterable[EventSpec]) -> None:
        self.events.extend(events)

    def add_methods(self, owner: object) -> None:
        self.methods |= {method.name: method for method in methods_of(owner)}


class Context:
    """Implements PluginContext."""

    plugin_id = "conversation"

    def __init__(self, harness: Harness, tasks: TaskOwner, store: SqliteStore) -> None:
        self._harness = harness
        self._tasks = tasks
        self.store = store
        self.home = harness.home
        self.logger = logging.getLogger("test.conversation")

    @property
    def config(self) -> Config:
        return self._harness.config

    def settings(self, model: type[BaseModel]) -> Any:
        return self._harness.settings

    def service(self, kind: type[Any]) -> Any:
        try:
            return self._harness.services[kind]
        except KeyError:
            raise LookupError(kind.__name__) from None

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return self._tasks.spawn(name, coroutine)

    def degrade(self, reason: str | None) -> None:
        raise AssertionError(reason)

    def now_ms(self) -> int:
        return self._harness.now_ms()


class ResultCheck:
    """Validates results against the declared types; too slow for serving."""

    def __init__(self) -> None:
        self._adapters: dict[str, TypeAdapter[Any]] = {}

    def check(self, method: Method, result: Any) -> None:
        """Raise `ValidationError` where a handler returns something else than it declared."""
        adapter = self._adapters.get(method.name)
        if adapter is None:
            adapter = self._adapters[method.name] = TypeAdapter(method.result)
        adapter.validate_python(result)


class Harness:
    """One plugin with its surroundings; `restart` and `crash` give the next process on the same database."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = Config()
        self.settings = ConversationSettings()
        self.events = RecordedEvents()
        self.channels = ScriptedChannels()
        self.runtime = ScriptedRuntime()
        self.policies = ScriptedPolicies()
        self.gateway = FixedGateway()
        self.services: dict[type[Any], Any] = {}
        self.registered = Registered()
        self.failures: list[BaseException] = []
        self.offset_ms = 0
        self._tasks: TaskOwner
        self.store: SqliteStore
        self._check = ResultCheck()

    def now_ms(self) -> int:
        import time

        return time.time_ns() // 1_000_000 + self.offset_ms

    async def _may_restart(self) -> None:
        return

    async def start(self) -> None:
        self._tasks = TaskOwner("conversation", lambda _, error: self.failures.append(error))
        self.store = SqliteStore(self.home / "state.sqlite")
        self.registered = Registered()
        self.audit = RecordedAudit()
        self.services = {
            AuditLog: self.audit,
            Events: self.events,
            Channels: self.channels,
            AgentRuntime: self.runtime,
            Policies: self.policies,
            Providers: FixedProviders(),
            Gateway: self.gateway,
            Restarts: RestartDesk(boot_id=uuid.uuid4().hex, check=self._may_restart, spawn=self._tasks.spawn),
            Requests: RequestTable(self.store, now_ms=self.now_ms, keep_seconds=7 * 86_400, limit=1000),
        }
        plugin = ConversationPlugin(Context(self, self._tasks, self.store))  # type: ignore[arg-type]
        plugin.openclaw_register_services(self.registered)  # type: ignore[arg-type]
        plugin.openclaw_register_commands(self.registered)  # type: ignore[arg-type]
        plugin.openclaw_register_methods(self.registered)  # type: ignore[arg-type]
        self.services |= self.registered.services
        self.services[Commands] = RegisteredCommands(self.registered.commands)
        assert not await self.store.open({"conversation": self.registered.migrations})
        for unit in self.registered.units:
            await unit.start()

    async def stop(self) -> None:
        for unit in self.registered.units:
            await unit.stop()
        await self.crash()

    async def crash(self) -> None:
        """End without a word, as kill -9 does; what was written stays."""
        self.left = await self._tasks.close(3.0)
        await self.store.close()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    # --- calls --------------------------------------------------------------------------------------------------------

    async def call(self, method: str, client: TestClient | None = None, /, **params: Any) -> Any:
        """Call a method as the wire does and check the result against contract and declaration."""
        answers = await self.answers(method, client or TestClient(), params)
        return answers[-1]

    async def answers(self, name: str, client: TestClient, params: Mapping[str, Any]) -> list[Any]:
        """Return everything that is answered on one request's id."""
        method = self.registered.methods[name]
        early: list[Any] = []
        read = read_params(method, dict(params) or None)
        key = getattr(read, "idempotency_key", None)
        request = None if not key else RequestKey(principal=client.principal, method=name, key=key, digest=digest_of(read))
        call = Call(client=client, method=name, request_id="r1", respond_early=early.append, request=request)
        value = method.handler(call) if method.params is None else method.handler(call, read)
        if isinstance(value, Awaitable):
            value = await value
        answers = []
        for answer in (*early, value):
            wire = json.loads(answer.json if isinstance(answer, Encoded) else dumps(answer))
            if name != "sessions.describe":
                contract.validate_result(name, wire)
            self._check.check(method, wire)
            answers.append(wire)
        return answers

    async def send(self, text: str, key: str, session: str = "main", **params: Any) -> Any:
        return await self.call("chat.send", None, sessionKey=session, message=text, idempotencyKey=key, **params)

    async def ask(self, text: str, key: str, session: str = "main", **params: Any) -> dict[str, Any]:
        """Send and wait for the end."""
        await self.send(text, key, session, **params)
        return await self.events.terminal(key)

    async def receive(self, text: str, message_id: str, **options: Any) -> bool:
        """Let a message arrive from a channel."""
        from openclaw_kernel.api import Ingress

        accepted: bool = await self.services[Ingress].accept(inbound(text, message_id, **options))
        return accepted

    # --- the database ---------------------------------------------------------------------------------------------------

    async def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        def read(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
            return connection.execute(statement, values).fetchall()

        return await self.store.read(read)

    async def states(self) -> list[tuple[str, str, str | None]]:
        """Message id, state and reason of all incoming messages."""
        found = await self.rows("SELECT message_id, state, reason FROM conversation_inbound ORDER BY id")
        return [(row[0], row[1], row[2]) for row in found]

    async def settled(self) -> list[tuple[str, str, str | None]]:
        """Wait until every message has its terminal state."""
        open_states = {"accepted", "routed", "queued", "running"}

        async def done() -> list[tuple[str, str, str | None]]:
            states = await self.states()
            return [] if any(state in open_states for _, state, _ in states) else states

        return await until(done, "the end of every message")

    async def texts(self, session: str = "main") -> list[tuple[str, str]]:
        """Role and text of a session's messages."""
        history = await self.call("chat.history", None, sessionKey=session)
        return [(message["role"], "".join(part.get("text", "") for part in message["content"])) for message in history["messages"]]


def inbound(
    text: str,
    message_id: str,
    *,
    peer: str = "7",
    kind: Any = "direct",
    sender: str = "7",
    channel: str = "telegram",
    name: str = "Ann",
    **fields: Any,
) -> InboundMessage:
    target = Target(channel=channel, account_id="default", peer_kind=kind, peer_id=peer)
    return InboundMessage(target=target, message_id=message_id, sender_id=sender, sender_name=name, text=text, mentioned=True, **fields)


@asynccontextmanager
async def running(home: Path, **options: Any) -> AsyncIterator[Harness]:
    """A started harness; a task of the plugin that raised fails the test."""
    harness = Harness(home)
    for name, value in options.items():
        setattr(harness, name, value)
    await harness.start()
    try:
        yield harness
    finally:
        await harness.stop()
    assert harness.failures == []
