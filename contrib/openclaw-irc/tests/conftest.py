"""A server that says what a test tells it to, and the gateway's services around the channel."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest_asyncio

from openclaw_irc.runtime import IrcChannel
from openclaw_irc.settings import IrcSettings
from openclaw_irc.timing import Timing
from openclaw_kernel.api import InboundMessage

QUICK = Timing(connect=1.0, ping=0.2, stable=5.0, retry_first=0.05, retry_longest=0.4, send_budget=0.5, pace_wait=0.3)
DEADLINE = 10.0


class Server:
    """An IRC server of one script: `reply` maps a client's command to lines, `{nick}` being the nick it last asked for."""

    def __init__(self) -> None:
        self.reply: dict[str, list[str] | Callable[[str], list[str]]] = {"USER": [":irc.test 001 {nick} :welcome"]}
        self.heard: list[str] = []
        self.connections = 0
        self.nick = "?"
        self.mute = False
        self._changed = asyncio.Condition()
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.drop()

    def say(self, line: str) -> None:
        """Send a line to the newest connection."""
        self._writers[-1].write(line.replace("{nick}", self.nick).encode("utf-8", "surrogateescape") + b"\r\n")

    def drop(self) -> None:
        """Close every connection."""
        for writer in self._writers:
            writer.close()

    async def wait(self, *parts: str, times: int = 1) -> str:
        """The line that has all the parts, once it came so many times."""

        def found() -> list[str]:
            return [line for line in self.heard if all(part in line for part in parts)]

        async with asyncio.timeout(DEADLINE), self._changed:
            await self._changed.wait_for(lambda: len(found()) >= times)
        return found()[times - 1]

    async def wait_connections(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE), self._changed:
            await self._changed.wait_for(lambda: self.connections >= count)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self.connections += 1
        await self._tell()
        while line := (await reader.readline()).decode().strip():
            command, _, rest = line.partition(" ")
            if command == "NICK":
                self.nick = rest.lstrip(":")
            self.heard.append(line)
            await self._tell()
            if self.mute:
                continue
            if command == "PING":
                self.say(f":irc.test PONG irc.test {rest}")
            answer = self.reply.get(command, [])
            for said in answer(rest) if callable(answer) else answer:
                self.say(said)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class Door:
    """The ingress: keeps what it accepted; refuses with `refusal` while that is set."""

    def __init__(self) -> None:
        self.accepted: list[InboundMessage] = []
        self.refusal: Exception | None = None
        self.knocks = 0
        self._changed = asyncio.Condition()

    async def accept(self, message: InboundMessage) -> bool:
        self.knocks += 1
        if self.refusal is None:
            self.accepted.append(message)
        async with self._changed:
            self._changed.notify_all()
        if self.refusal is not None:
            raise self.refusal
        return True

    async def wait(self, *, count: int = 0, knocks: int = 0) -> None:
        async with asyncio.timeout(DEADLINE), self._changed:
            await self._changed.wait_for(lambda: len(self.accepted) >= count and self.knocks >= knocks)


class Memory:
    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    async def get(self, key: str) -> str | None:
        return self.values.get(key)

    async def put(self, key: str, value: str) -> None:
        self.values[key] = value

    async def remove(self, key: str) -> None:
        self.values.pop(key, None)


class Context:
    """The part of `PluginContext` that the channel uses."""

    def __init__(self) -> None:
        self.door = Door()
        self.storage = Memory()
        self.logger = logging.getLogger("tests.irc")
        self.reasons: list[str | None] = []
        self.failures: list[BaseException] = []
        self.tasks: set[asyncio.Task[Any]] = set()
        self._changed = asyncio.Event()

    def service(self, kind: type[Any]) -> Any:
        return self.door

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.failures.append(error)

    def degrade(self, reason: str | None) -> None:
        self.reasons.append(reason)
        self._changed.set()

    async def reason(self, *parts: str) -> str:
        """Wait for a reported reason that has all the parts."""
        async with asyncio.timeout(DEADLINE):
            while True:
                for reason in self.reasons:
                    if reason is not None and all(part in reason for part in parts):
                        return reason
                self._changed.clear()
                await self._changed.wait()

    async def well(self) -> None:
        """Wait until nothing is wrong."""
        async with asyncio.timeout(DEADLINE):
            while not self.reasons or self.reasons[-1] is not None:
                self._changed.clear()
                await self._changed.wait()

    def now_ms(self) -> int:
        return 1


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    await made.open()
    yield made
    await made.close()


@pytest_asyncio.fixture
async def context() -> Context:
    return Context()


@pytest_asyncio.fixture
async def running(server: Server, context: Context) -> Callable[..., Any]:
    """Run a channel against the server; no task may be left or have failed at the end."""

    @asynccontextmanager
    async def run(timing: Mapping[str, float] | None = None, **settings: Any) -> AsyncIterator[IrcChannel]:
        section = {"server": "127.0.0.1", "port": server.port, "tls": False, "nick": "claw", "messagesPerSecond": 20, **settings}
        channel = IrcChannel(context, IrcSettings.model_validate(section), replace(QUICK, **(timing or {})))
        try:
            await channel.start()
            yield channel
        finally:
            await channel.stop()
            await asyncio.sleep(0)
            assert context.tasks == set()
            assert context.failures == []

    return run
