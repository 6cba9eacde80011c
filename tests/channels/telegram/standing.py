"""What stands around the channel in these tests: the gateway's services with a door that can be held shut."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from openclaw_channels.telegram.pacing import Pacing
from openclaw_channels.telegram.runtime import Runtime
from openclaw_channels.telegram.settings import TelegramSettings
from openclaw_kernel.api import (
    Admission,
    Command,
    CommandCall,
    Commands,
    Config,
    InboundMessage,
    Ingress,
    Policies,
    Route,
    Store,
    Verdict,
)

ServiceT = TypeVar("ServiceT")
QUICK = Pacing(
    poll_margin=0.5,
    call=5.0,
    retry_first=0.05,
    retry_longest=0.2,
    conflict_first=0.3,
    conflict_longest=0.6,
    album=0.1,
    webhook_check=0.2,
    draft_first=0.05,
    draft_direct=0.1,
    draft_group=0.2,
)


class Door:
    """The ingress: remembers what it accepted, knows repeats, and refuses while `refusal` is set."""

    def __init__(self) -> None:
        self.accepted: list[InboundMessage] = []
        self.repeats = 0
        self.refusal: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.knocks = 0
        self._keys: set[tuple[str, str]] = set()
        self._changed = asyncio.Condition()

    async def accept(self, message: InboundMessage) -> bool:
        self.knocks += 1
        async with self._changed:
            self._changed.notify_all()
        await self.open.wait()
        if self.refusal is not None:
            raise self.refusal
        key = (message.target.account_id, message.message_id)
        is_new = key not in self._keys
        self._keys.add(key)
        async with self._changed:
            if is_new:
                self.accepted.append(message)
            else:
                self.repeats += 1
            self._changed.notify_all()
        return is_new

    async def wait(self, *, count: int = 0, knocks: int = 0, repeats: int = 0, timeout: float = 10.0) -> None:
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(lambda: len(self.accepted) >= count and self.knocks >= knocks and self.repeats >= repeats)

    @property
    def texts(self) -> list[str]:
        return [message.text for message in self.accepted]


class KnownCommands:
    def __init__(self) -> None:
        self._commands = [
            Command(name=name, description=f"does {name}", run=self._run) for name in ("new", "stop", "status", "model", "help")
        ]

    async def _run(self, call: CommandCall) -> str:
        return call.arguments

    def all(self) -> Sequence[Command]:
        return self._commands

    def find(self, text: str) -> tuple[Command, str] | None:
        for command in self._commands:
            if text.split(maxsplit=1)[0].partition("@")[0] == f"/{command.name}":
                return command, ""
        return None


class NumberedGuests:
    """Lets in the senders in `guests`, everybody while it is empty."""

    def __init__(self) -> None:
        self.guests: set[str] = set()

    def route(self, message: InboundMessage) -> Route:
        return Route(agent_id="main", session_key="agent:main:main", reason="only one")

    def admit(self, message: InboundMessage, route: Route) -> Admission:
        known = not self.guests or message.sender_id in self.guests
        return Admission(verdict=Verdict.ALLOW if known else Verdict.HINT, reason="guests")


class Memory:
    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    async def get(self, key: str) -> str | None:
        return self.values.get(key)

    async def put(self, key: str, value: str) -> None:
        self.values[key] = value

    async def remove(self, key: str) -> None:
        self.values.pop(key, None)


@dataclass
class StandingContext:
    """A `PluginContext` over the above."""

    section: Mapping[str, Any]
    door: Door = field(default_factory=Door)
    commands: KnownCommands = field(default_factory=KnownCommands)
    policies: NumberedGuests = field(default_factory=NumberedGuests)
    storage: Memory = field(default_factory=Memory)
    reasons: list[str | None] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    """What ended tasks of the plugin."""
    clock_ms: int = 0
    plugin_id: str = "telegram"
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("tests.telegram"))

    def __post_init__(self) -> None:
        self.changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._notices: set[asyncio.Task[None]] = set()

    @property
    def config(self) -> Config:
        return Config.model_validate({"channels": {"telegram": dict(self.section)}})

    @property
    def home(self) -> Path:
        raise AssertionError("the channel has no business in the gateway's folder")

    @property
    def state_dir(self) -> Path:
        raise AssertionError("the channel keeps no files")

    @property
    def store(self) -> Store:
        raise AssertionError("the channel has no tables")

    def settings(self, model: type[ServiceT]) -> ServiceT:
        return cast(ServiceT, TelegramSettings.model_validate(dict(self.section)))

    def instances(self, model: type[ServiceT]) -> Mapping[str, ServiceT]:
        return {}

    def service(self, kind: type[ServiceT]) -> ServiceT:
        services: dict[type[Any], object] = {Ingress: self.door, Commands: self.commands, Policies: self.policies}
        return cast(ServiceT, services[kind])

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.failures.append(error)

    def degrade(self, reason: str | None) -> None:
        self.reasons.append(reason)
        notice = asyncio.get_running_loop().create_task(self._notify())
        self._notices.add(notice)
        notice.add_done_callback(self._notices.discard)

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def wait_for_reason(self, text: str | None, *, timeout: float = 10.0) -> None:
        """Wait until the last report holds `text`, or is None."""

        def is_so() -> bool:
            last = self.reasons[-1] if self.reasons else None
            return last is None if text is None else last is not None and text in last

        async with asyncio.timeout(timeout), self.changed:
            await self.changed.wait_for(is_so)

    def now_ms(self) -> int:
        self.clock_ms += 1
        return self.clock_ms

    @property
    def tasks(self) -> set[str]:
        return {task.get_name() for task in self._tasks}


DISK_FULL = sqlite3.OperationalError("database or disk is full")


@asynccontextmanager
async def running(context: StandingContext, pacing: Pacing = QUICK) -> AsyncIterator[Runtime]:
    """Run the channel's runtime, and check that it leaves no task behind."""
    runtime = Runtime(context, TelegramSettings.model_validate(dict(context.section)), pacing)
    try:
        await runtime.start()
        yield runtime
    finally:
        await runtime.stop()
        await asyncio.sleep(0)
        assert context.tasks == set()
