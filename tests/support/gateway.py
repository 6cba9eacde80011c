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
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.support.frames import recorded
from tests.support.ws_client import Identity, WsClient, connect

START_SECONDS = 30.0
STOP_SECONDS = 15.0
CHILD_SECONDS = 5.0
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
    """A TCP port of 127.0.0.1 that was free a moment ago; for servers that cannot choose one themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def base_config(port: int = 0) -> dict[str, Any]:
    """One token, the echo model, nothing else; the system chooses the port unless one is given.

    A turn that hangs at the end of a test holds it up for a moment only.
    """
    return {
        "gateway": {"port": port, "auth": {"mode": "token", "token": TOKEN}},
        "models": {"providers": {"echo": {}}},
        "plugins": {"entries": {"conversation": {"config": {"drainSeconds": 0.5}}}},
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
        self.ready: Mapping[str, Any] = {}
        """What it said when it was ready: url, link, home, pid, problems."""
        self.lines: list[Line] = []
        self.executable = sys.executable
        self._arguments = list(arguments)
        self._env = dict(env)
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._open_streams = 0
        self._changed = asyncio.Condition()
        self._expected: list[re.Pattern[str]] = []

    @property
    def url(self) -> str:
        """Where its HTTP is, as it said itself."""
        return str(self.ready["url"])

    @property
    def ws_url(self) -> str:
        """Where its WebSocket is."""
        return self.url.replace("http", "ws", 1) + "/"

    @property
    def link(self) -> str:
        """What it printed for a person to open."""
        return str(self.ready["link"])

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
        command = [*recorded(self.executable, "-W", "default"), "run", "--home", str(self.home), "--json"]
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        self._process = await asyncio.create_subprocess_exec(
            *command,
            *self._arguments,
            env={**inherited, "HOME": str(self.home), **self._env},
            start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE_BYTES,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._open_streams = 2
        self._readers = [
            asyncio.create_task(self._read("stdout", self._process.stdout)),
            asyncio.create_task(self._read("stderr", self._process.stderr)),
        ]

    async def start(self, *, deadline: float = START_SECONDS) -> None:
        """Run the process and wait until it says it is ready.

        Raises:
            GatewayFailed: it ended, or was not ready in time.
        """
        self._keep_port()
        self.ready = {}
        await self.spawn()
        try:
            async with asyncio.timeout(deadline), self._changed:
                await self._changed.wait_for(lambda: self.ready or not self._open_streams)
        except TimeoutError:
            await self.kill()
            raise GatewayFailed(f"the gateway was not ready in {deadline} s:\n{self.tail()}") from None
        if not self.ready:
            raise GatewayFailed(f"the gateway ended with {await self.process.wait()}:\n{self.tail()}")

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
        if not await self._output_ends():
            raise GatewayFailed(f"a child of the gateway outlived it by {CHILD_SECONDS} s:\n{self.tail()}")
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
        """End it at once, as a crash would; its children are left to notice."""
        if self.is_running:
            self.process.kill()
            await self.process.wait()
        await self._output_ends()

    async def sweep(self) -> None:
        """Leave nothing of it behind: the process, and whatever is left of its process group."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self.kill()

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

    def _keep_port(self) -> None:
        # Clients of a gateway that is started again find it where it was.
        if self.ready and not self.config["gateway"]["port"]:
            port = int(self.url.rpartition(":")[2].partition("/")[0])
            self.write_config(merge(self.config, {"gateway": {"port": port}}))

    async def _output_ends(self) -> bool:
        """Whether nobody holds the output open any more; a child of the gateway would."""
        if self._readers:
            _, pending = await asyncio.wait(self._readers, timeout=CHILD_SECONDS)
            for reader in pending:
                reader.cancel()
            return not pending
        return True

    def _is_expected(self, line: Line) -> bool:
        return any(pattern.search(line.text) for pattern in self._expected)

    async def _read(self, name: str, stream: asyncio.StreamReader) -> None:
        async for raw in stream:
            line = _parse(name, raw.decode("utf-8", errors="replace").rstrip("\n"))
            async with self._changed:
                self.lines.append(line)
                if line.record.get("event") == "ready":
                    self.ready = line.record
                self._changed.notify_all()
        async with self._changed:
            self._open_streams -= 1
            self._changed.notify_all()


def _parse(stream: str, text: str) -> Line:
    try:
        record = json.loads(text)
    except ValueError:
        record = None
    return Line(stream, text, record if isinstance(record, dict) else {})


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
        text: str | None = None,
    ) -> Awaitable[RunningGateway]:
        """Start one; with `wait=False` it is only spawned. `text` stands in its config file instead of the config."""


@pytest.fixture
async def start_gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StartGateway]:
    """Start gateways; all that still run at the end of the test are stopped and checked."""
    started: list[RunningGateway] = []
    swept: list[RunningGateway] = []

    async def start(
        config: Mapping[str, Any] | None = None,
        *,
        home: Path | None = None,
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        wait: bool = True,
        text: str | None = None,
    ) -> RunningGateway:
        merged = merge(base_config(), config or {})
        folder = home or tmp_path_factory.mktemp("home") / "state"
        gateway = RunningGateway(folder, merged, arguments=arguments, env=env or {})
        gateway.write_config(merged)
        if text is not None:
            gateway.config_path.write_text(text, encoding="utf-8")
        swept.append(gateway)
        await (gateway.start() if wait else gateway.spawn())
        started.append(gateway)
        return gateway

    try:
        yield start
        for gateway in reversed(started):
            await gateway.stop()
    finally:
        for gateway in swept:
            await gateway.sweep()


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> RunningGateway:
    """A gateway with one token and the echo model."""
    return await start_gateway()
