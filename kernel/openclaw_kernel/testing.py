"""Fixtures for the tests of plugin authors; pytest finds them by itself where openclaw-kernel is installed.

    async def test_it_answers(openclaw_gateway):
        async with openclaw_gateway({"models": {"providers": {"echo": {}}}}) as gateway:
            assert await gateway.ask("hello") == "hello"

The gateway runs in the process of the test, with every plugin that is installed and the config wants, on a port of its own and
in an empty state folder.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest

from openclaw_kernel.tasks import TaskOwner

if TYPE_CHECKING:
    from aiohttp import ClientWebSocketResponse

    from openclaw_kernel.api import PluginStatus
    from openclaw_kernel.app import GatewayApp

ServiceT = TypeVar("ServiceT")

logger: Final = logging.getLogger(__name__)

CALL_SECONDS: Final = 10.0

_SCOPES: Final = ["operator.admin", "operator.read", "operator.write"]


class FakeClock:
    """Unix milliseconds that move only when they are told to."""

    def __init__(self, start_ms: int = 1_750_000_000_000) -> None:
        self.milliseconds = start_ms

    def now_ms(self) -> int:
        """Return the time, as `PluginContext.now_ms` does."""
        return self.milliseconds

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.milliseconds += round(seconds * 1000)


class CallFailed(Exception):
    """A method answered with an error; `error` is the protocol's object with `code` and `message`."""

    def __init__(self, method: str, error: Mapping[str, Any]) -> None:
        super().__init__(f"{method}: {error.get('code')}: {error.get('message')}")
        self.error = error


class RunningGateway:
    """A gateway in this process, and one connection to it. `transcript` keeps every frame received, in order."""

    def __init__(self, app: GatewayApp, token: str) -> None:
        self.app = app
        self.token = token
        self.transcript: list[Mapping[str, Any]] = []
        self._ids = itertools.count(1)
        self._socket: ClientWebSocketResponse | None = None
        self._arrived = asyncio.Condition()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port`."""
        return self.app.facts.url

    @property
    def home(self) -> Path:
        """The state folder."""
        return self.app.home

    def service(self, kind: type[ServiceT]) -> ServiceT:
        """Return what a plugin would get from `context.service`."""
        return self.app.host.registry.service(kind)

    def plugin(self, plugin_id: str) -> PluginStatus:
        """Return the state of a plugin; raise `LookupError` where it is not installed."""
        for status in self.app.host.statuses():
            if status.id == plugin_id:
                return status
        raise LookupError(f"no plugin {plugin_id!r} is installed; pip install its distribution into this environment")

    async def call(self, method: str, params: Mapping[str, Any] | None = None) -> Any:
        """Call a method over the WebSocket and return its payload; raise `CallFailed`, `TimeoutError` after 10 s."""
        if self._socket is None:
            raise RuntimeError("the gateway is not connected; use it inside `async with`")
        request_id = str(next(self._ids))
        await self._socket.send_json({"type": "req", "id": request_id, "method": method, "params": dict(params or {})})
        answer = await self._wait_for(lambda frame: frame["type"] == "res" and frame["id"] == request_id)
        if not answer["ok"]:
            raise CallFailed(method, answer["error"])
        return answer.get("payload")

    async def event(self, name: str, matches: Callable[[Mapping[str, Any]], bool] = lambda _: True) -> Mapping[str, Any]:
        """Return the payload of the first event of this name that matches, also one that has come already."""
        frame = await self._wait_for(lambda one: one["type"] == "event" and one["event"] == name and matches(one["payload"]))
        payload: Mapping[str, Any] = frame["payload"]
        return payload

    async def ask(self, text: str, *, session_key: str = "main") -> str:
        """Send a chat message and return the whole answer; raise `CallFailed` where the turn failed."""
        run_id = secrets.token_hex(8)
        await self.call("chat.send", {"sessionKey": session_key, "message": text, "idempotencyKey": run_id})
        final = await self.event("chat", lambda payload: payload["runId"] == run_id and payload["state"] != "delta")
        if final["state"] != "final":
            raise CallFailed("chat.send", {"code": final["state"], "message": final.get("errorMessage")})
        parts = (final.get("message") or {}).get("content", [])
        return "".join(part["text"] for part in parts if part["type"] == "text")

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[RunningGateway]:
        """Hold the connection that `call` and `event` use."""
        from aiohttp import ClientSession, ClientWSTimeout

        tasks = TaskOwner("gateway test", self._lost)
        closing = ClientWSTimeout(ws_close=1.0)
        async with ClientSession() as session, session.ws_connect(self.url + "/", timeout=closing) as socket:
            self._socket = socket
            tasks.spawn("transcript", self._read(socket))
            try:
                await self.event("connect.challenge")
                await self.call("connect", self._introduction())
                yield self
            finally:
                await tasks.close(1.0)

    def _introduction(self) -> dict[str, Any]:
        return {
            "minProtocol": 4,
            "maxProtocol": 4,
            "client": {"id": "gateway-client", "mode": "backend", "version": "0", "platform": "test"},
            "role": "operator",
            "scopes": _SCOPES,
            "auth": {"token": self.token},
        }

    def _lost(self, name: str, error: BaseException) -> None:
        logger.error("%s ended", name, exc_info=error)

    async def _read(self, socket: ClientWebSocketResponse) -> None:
        async for message in socket:
            async with self._arrived:
                self.transcript.append(json.loads(message.data))
                self._arrived.notify_all()

    async def _wait_for(self, matches: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
        async with asyncio.timeout(CALL_SECONDS), self._arrived:
            seen = 0
            while True:
                for frame in self.transcript[seen:]:
                    if matches(frame):
                        return frame
                seen = len(self.transcript)
                await self._arrived.wait()


StartGateway = Callable[..., AbstractAsyncContextManager[RunningGateway]]


@asynccontextmanager
async def run_gateway(home: Path, config: Mapping[str, Any] | None = None) -> AsyncIterator[RunningGateway]:
    """Run a gateway with this config (keys of `openclaw.yaml`; port and token are added) until the block ends."""
    # Imported here: pytest loads this module in every run, also where no gateway is wanted.
    from openclaw_config.load import load
    from openclaw_kernel.app import GatewayApp

    document = {**(config or {})}
    section = {**document.get("gateway", {})}
    auth = {"mode": "token", "token": secrets.token_hex(16), **section.get("auth", {})}
    document["gateway"] = {"port": 0, **section, "auth": auth}
    path = home / "openclaw.yaml"
    path.write_text(json.dumps(document), encoding="utf-8")
    path.chmod(0o600)
    app = GatewayApp(loaded=load(path), home=home)
    await app.start()
    try:
        async with RunningGateway(app, auth["token"]).connected() as gateway:
            yield gateway
    finally:
        await app.stop()


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock for what takes `now_ms`."""
    return FakeClock()


@pytest.fixture
def openclaw_gateway(tmp_path: Path) -> StartGateway:
    """Start gateways, each with a config of its own; see this module for an example."""
    numbers = itertools.count()

    def start(config: Mapping[str, Any] | None = None) -> AbstractAsyncContextManager[RunningGateway]:
        home = tmp_path / f"openclaw-home-{next(numbers)}"
        home.mkdir(mode=0o700)
        return run_gateway(home, config)

    return start
