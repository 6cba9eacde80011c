"""The real gateway as a process of its own, for tests.

The fixture `gateway` runs one with the echo provider. `start_gateway` starts any number with any config; a config is
merged over the one in `base_config`. Each is stopped with SIGTERM at the end of the test, and has to end with 0 and
without an error in its log, unless the test says what it expects::

    async def test_something(start_gateway):
        gateway = await start_gateway({"channels": {"telegram": {...}}})
        gateway.expect_log("the token is wrong")
        async with gateway.connect() as client: ...
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import pytest

from tests.support.ws_client import Identity, WsClient, connect

START_SECONDS = 30.0
STOP_SECONDS = 15.0
PROBE_INTERVAL_SECONDS = 0.02
LONGEST_LINE_BYTES = 1024 * 1024
TOKEN = "test-token-0123456789abcdef"

# What Python itself says of a leak, wherever it is written.
LEAK = re.compile(r"ResourceWarning|was never awaited|was never retrieved|Task was destroyed|Unclosed")
ERROR_LEVELS = {"error", "critical"}

# Nothing of the environment a test runs in may reach the gateway's config.
INHERITED = ("PATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "SYSTEMROOT")


class GatewayFailed(AssertionError):
    """The gateway did not start, ended by itself, or ended badly; the text has the end of its output."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def base_config(port: int) -> dict[str, Any]:
    """One token, the echo model, nothing else."""
    return {
        "gateway": {"port": port, "auth": {"mode": "token", "token": TOKEN}},
        "models": {"providers": {"echo": {}}},
    }


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both documents as one: objects are merged, None removes a key, anything else replaces."""
    merged = dict(base)
    for key, value in over.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


@dataclass
class Line:
    """One line that the gateway wrote."""

    stream: str
    text: str
    record: Mapping[str, Any] = field(default_factory=dict)
    """The line as JSON, empty where it is none."""

    @property
    def is_error(self) -> bool:
        """Whether the line is an error record, a traceback, or Python's word on a leak."""
        level = str(self.record.get("level", "")).lower()
        return level in ERROR_LEVELS or self.text.startswith("Traceback") or LEAK.search(self.text) is not None


class RunningGateway:
    """One process of the gateway with a state folder of its own."""

    def __init__(self, home: Path, config: Mapping[str, Any], *, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        """Describe a gateway; `start` runs it, and may run it again after `stop` or `kill`."""
        self.home = home
        self.config = dict(config)
        self.port: int = self.config["gateway"]["port"]
        self.lines: list[Line] = []
        self._arguments = list(arguments)
        self._env = dict(env)
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._changed = asyncio.Condition()
        self._expected: list[re.Pattern[str]] = []

    @property
    def url(self) -> str:
        """Where its HTTP is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """Where its WebSocket is."""
        return f"ws://127.0.0.1:{self.port}/"

    @property
    def token(self) -> str:
        """The shared token of its config."""
        return str(self.config["gateway"]["auth"]["token"])

    @property
    def config_path(self) -> Path:
        """Its `openclaw.yaml`."""
        return self.home / "openclaw.yaml"

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The process; started before."""
        assert self._process is not None, "the gateway was not started"
        return self._process

    @property
    def is_running(self) -> bool:
        """Whether there is a process that has not ended."""
        return self._process is not None and self._process.returncode is None

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Replace the config file; JSON is YAML."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.config = dict(config)
        temporary = self.config_path.with_suffix(".new")
        temporary.write_text(json.dumps(config, indent=2), encoding="utf-8")
        temporary.chmod(0o600)
        temporary.replace(self.config_path)

    async def spawn(self) -> None:
        """Run the process, without waiting for anything."""
        command = [sys.executable, "-W", "default", "-m", "openclaw_kernel", "run", "--home", str(self.home), "--json"]
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        self._process = await asyncio.create_subprocess_exec(
            *command,
            *self._arguments,
            env={**inherited, "HOME": str(self.home), **self._env},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE_BYTES,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            asyncio.create_task(self._read("stdout", self._process.stdout)),
            asyncio.create_task(self._read("stderr", self._process.stderr)),
        ]

    async def start(self, *, deadline: float = START_SECONDS) -> None:
        """Run the process and wait until it says it is ready.

        Raises:
            GatewayFailed: it ended, or was not ready in time.
        """
        await self.spawn()
        end = time.monotonic() + deadline
        async with aiohttp.ClientSession() as http:
            while not await self._is_ready(http):
                if not self.is_running:
                    await asyncio.gather(*self._readers)
                    raise GatewayFailed(f"the gateway ended with {self.process.returncode}:\n{self.tail()}")
                if time.monotonic() > end:
                    await self.kill()
                    raise GatewayFailed(f"the gateway was not ready in {deadline} s:\n{self.tail()}")
                await asyncio.sleep(PROBE_INTERVAL_SECONDS)

    async def wait_ended(self, *, deadline: float = START_SECONDS) -> int:
        """Wait until it ends by itself; its exit status.

        Raises:
            GatewayFailed: it did not end in time.
        """
        try:
            async with asyncio.timeout(deadline):
                status = await self.process.wait()
        except TimeoutError:
            await self.kill()
            raise GatewayFailed(f"the gateway did not end in {deadline} s:\n{self.tail()}") from None
        await asyncio.gather(*self._readers)
        return status

    async def stop(self, *, deadline: float = STOP_SECONDS) -> None:
        """Ask it to end, and check that it ends well: with 0, in time, with no error in its log.

        Raises:
            GatewayFailed: one of these is not so.
        """
        if self.is_running:
            self.process.send_signal(signal.SIGTERM)
            status = await self.wait_ended(deadline=deadline)
            if status != 0:
                raise GatewayFailed(f"the gateway ended with {status} after SIGTERM:\n{self.tail()}")
        self.assert_no_errors()

    async def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.is_running:
            self.process.kill()
            await self.process.wait()
        await asyncio.gather(*self._readers)

    def connect(self, *, identity: Identity | None = None, token: str | None = None) -> AbstractAsyncContextManager[WsClient]:
        """A client that has shaken hands, with the shared token unless another is given."""
        return connect(self.ws_url, token=self.token if token is None else token, identity=identity)

    def expect_log(self, pattern: str) -> None:
        """Errors whose line matches this expression are no failure of the test."""
        self._expected.append(re.compile(pattern))

    def assert_no_errors(self) -> None:
        """Check the log so far.

        Raises:
            GatewayFailed: an error is in it that was not expected.
        """
        bad = [line.text for line in self.lines if line.is_error and not self._is_expected(line)]
        if bad:
            raise GatewayFailed("the gateway logged errors:\n" + "\n".join(bad) + f"\nits output:\n{self.tail()}")

    async def wait_line(self, pattern: str, *, deadline: float = START_SECONDS) -> Line:
        """The first line that matches, of those written or those to come.

        Raises:
            GatewayFailed: none within the deadline.
        """
        wanted = re.compile(pattern)
        try:
            async with asyncio.timeout(deadline), self._changed:
                while True:
                    found = next((line for line in self.lines if wanted.search(line.text)), None)
                    if found is not None:
                        return found
                    await self._changed.wait()
        except TimeoutError:
            raise GatewayFailed(f"no line matched {pattern!r} in {deadline} s:\n{self.tail()}") from None

    def tail(self, count: int = 60) -> str:
        """The end of what it wrote."""
        return "\n".join(f"{line.stream}: {line.text}" for line in self.lines[-count:]) or "(it wrote nothing)"

    def _is_expected(self, line: Line) -> bool:
        return any(pattern.search(line.text) for pattern in self._expected)

    async def _is_ready(self, http: aiohttp.ClientSession) -> bool:
        try:
            async with http.get(f"{self.url}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def _read(self, name: str, stream: asyncio.StreamReader) -> None:
        async for raw in stream:
            text = raw.decode("utf-8", errors="replace").rstrip("\n")
            try:
                record = json.loads(text)
            except ValueError:
                record = {}
            async with self._changed:
                self.lines.append(Line(name, text, record if isinstance(record, dict) else {}))
                self._changed.notify_all()


class StartGateway(Protocol):
    """Starts a gateway and waits until it is ready; the config is merged over `base_config`."""

    def __call__(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        home: Path | None = None,
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> Awaitable[RunningGateway]:
        """Start one; with `wait=False` it is only spawned."""


@pytest.fixture
async def start_gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StartGateway]:
    """Start gateways; all that still run at the end of the test are stopped and checked."""
    started: list[RunningGateway] = []

    async def start(
        config: Mapping[str, Any] | None = None,
        *,
        home: Path | None = None,
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> RunningGateway:
        merged = merge(base_config(free_port()), config or {})
        folder = home or tmp_path_factory.mktemp("home") / "state"
        gateway = RunningGateway(folder, merged, arguments=arguments, env=env or {})
        gateway.write_config(merged)
        started.append(gateway)
        await (gateway.start() if wait else gateway.spawn())
        return gateway

    try:
        yield start
        for gateway in reversed(started):
            await gateway.stop()
    finally:
        for gateway in started:
            await gateway.kill()


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> RunningGateway:
    """A gateway with one token and the echo model."""
    return await start_gateway()
