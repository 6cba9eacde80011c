"""P15, W5: a stop that works at once, from every surface, whatever goes on, and stays.

The real gateway, the Bot API and a model as processes. What tools do is counted outside, by the lines that they leave and by the
processes that they start.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from openclaw_kernel.api.keeper import children
from tests.emulators.model_control import API_KEY, EmulatorProcess
from tests.emulators.telegram_control import TelegramEmulator
from tests.plugins.conversation.harness import until
from tests.support.gateway import RunningGateway, StartGateway
from tests.support.ws_client import WsClient

CHAT = 42
ROOT = Path(__file__).resolve().parents[2]
SECONDS = 30.0
ENDED = "SELECT state, reason FROM conversation_inbound ORDER BY id"
#: One child of each kind that used to outlive its call: in a session of its own, cut loose twice, deaf to signals, without environment.
FAMILY = r"""
trap '' TERM INT
setsid sh -c 'echo $$ >> pids; exec sleep 600' &
(setsid sh -c 'sh -c "echo \$\$ >> pids; exec sleep 600" &' &)
sh -c 'trap "" TERM INT HUP; echo $$ >> pids; while :; do sleep 600; done' &
env -i /usr/bin/setsid /bin/sh -c 'echo $$ >> pids; exec sleep 600' &
while [ $(cat pids 2>/dev/null | wc -l) -lt 4 ]; do sleep 0.02; done
echo $$ >> pids
touch started
sleep 600
"""


class Surface(Protocol):
    """Where somebody talks to the agent."""

    async def say(self, text: str) -> None: ...
    async def stop(self) -> str:
        """Ask for the stop; return what is answered."""
        ...

    async def answered(self, text: str) -> None:
        """Wait for an answer with this text."""
        ...


@dataclass
class Chat:
    """A person on Telegram."""

    telegram: TelegramEmulator
    word: str = "/stop"

    async def say(self, text: str) -> None:
        sent = await self.telegram.user_message(text, chat_id=CHAT)
        await self.telegram.wait(confirmed=sent["update_id"], timeout=SECONDS)

    async def stop(self) -> str:
        await self.telegram.user_message(self.word, chat_id=CHAT)
        shown = await self.telegram.wait(chat_id=CHAT, contains="Stopped", timeout=SECONDS)
        return str(next(message["text"] for message in shown if "Stopped" in message["text"]))

    async def answered(self, text: str) -> None:
        await self.telegram.wait(chat_id=CHAT, contains=text, timeout=SECONDS)


@dataclass
class Socket:
    """A client on the WebSocket, which comes back after each start of the gateway."""

    gateway: RunningGateway
    stack: AsyncExitStack
    method: str = "chat.abort"
    clients: dict[int, WsClient] = field(default_factory=dict)
    said: int = 0

    async def _request(self, method: str, params: dict[str, Any]) -> Any:
        process = self.gateway.process.pid
        if process not in self.clients:
            self.clients[process] = await self.stack.enter_async_context(self.gateway.connect())
        return await self.clients[process].request(method, params, deadline=SECONDS)

    async def say(self, text: str) -> None:
        self.said += 1
        await self._request("chat.send", {"sessionKey": "main", "message": text, "idempotencyKey": f"k{self.said}"})

    async def stop(self) -> str:
        place = {"sessionKey": "main"} if self.method == "chat.abort" else {"key": "main", "clearQueued": True}
        return json.dumps(await self._request(self.method, place))

    async def answered(self, text: str) -> None:
        async def told() -> bool:
            history = (await self._request("chat.history", {"sessionKey": "main"}))["messages"]
            return any(message["role"] == "assistant" and text in json.dumps(message["content"]) for message in history)

        await until(told, f"the answer {text!r}")


@dataclass
class Scene:
    """A gateway with an agent whose model is insistent and whose tools are stubborn."""

    gateway: RunningGateway
    model: EmulatorProcess
    surface: Surface
    file: Path

    @property
    def workspace(self) -> Path:
        return self.gateway.home / "workspace" / "main"

    def marks(self) -> list[float]:
        """When each call began that left a line."""
        return [float(line.split()[0]) for line in self.file.read_text().splitlines()] if self.file.exists() else []

    def children(self) -> list[int]:
        return running_in(self.workspace)

    def ended(self) -> list[tuple[str, str | None]]:
        return ended_in(self.gateway)


def running_in(workspace: Path) -> list[int]:
    """Those of the family that still run."""
    file = workspace / "pids"
    return [int(pid) for pid in file.read_text().split() if is_alive(int(pid))] if file.exists() else []


def ended_in(gateway: RunningGateway) -> list[tuple[str, str | None]]:
    """State and reason of each message, in order."""
    with closing(sqlite3.connect(f"file:{gateway.home}/state.sqlite3?mode=ro", uri=True)) as connection:
        return connection.execute(ENDED).fetchall()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def tools(tmp_path: Path) -> str:
    """The plugin with the tools as an installed distribution; the PYTHONPATH that has it."""
    info = tmp_path / "site" / "stop_tools-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stop-tools\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[openclaw.plugins]\nstop-tools = tests.e2e.stop_tools.plugin:StopToolsPlugin\n")
    return os.pathsep.join([str(tmp_path / "site"), str(ROOT)])


@asynccontextmanager
async def scene_of(kind: str, start_gateway: StartGateway, tools: str, file: Path) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(EmulatorProcess("openai", module="tests.e2e.insistent_model"))
        provider = {"apiKey": API_KEY, "baseUrl": model.openai_url, "models": [{"id": "gpt-4o-mini", "contextWindow": 100_000}]}
        config: dict[str, Any] = {
            "models": {"providers": {"echo": None, "openai": provider}},
            "agents": {"defaults": {"maxToolRounds": 100, "timeoutSeconds": 900, "tools": {"allow": ["shell", "mark", "deaf"]}}},
            "plugins": {"entries": {"stop-tools": {"config": {"file": str(file)}}}},
        }
        if kind in {"/stop", "stop word"}:
            telegram = await stack.enter_async_context(TelegramEmulator())
            account = {"botToken": telegram.token, "apiRoot": telegram.api_root, "allowFrom": [CHAT], "pollTimeoutSeconds": 5}
            config |= {"channels": {"telegram": account}, "session": {"dmScope": "per-peer"}}
            surface: Surface = Chat(telegram, kind if kind == "/stop" else "please stop")
            gateway = await start_gateway(config, env={"PYTHONPATH": tools})
        else:
            gateway = await start_gateway(config, env={"PYTHONPATH": tools})
            surface = Socket(gateway, await stack.enter_async_context(AsyncExitStack()), kind)
        # A tool that is abandoned is an error of its plugin.
        gateway.expect_log("deaf|ignored its cancellation|Task was destroyed")
        yield Scene(gateway, model, surface, file)


def call(name: str, **arguments: Any) -> str:
    return f"call {name} {json.dumps(arguments)}"


async def busy(scene: Scene, what: str) -> int:
    """Bring the agent into the state that it is to be stopped in; return how many messages are to end as stopped."""
    say = scene.surface.say
    match what:
        case "tool loop" | "queue":
            await say("loop")
            await until(lambda: len(scene.marks()) > 2, "the loop")
        case "hung subprocess":
            await say(call("shell", argv=["sh", "-c", FAMILY]))
            await until((scene.workspace / "started").exists, "the children")
            assert len(scene.children()) == 5
        case "hung model":
            await say("hang")
            await scene.model.requests(count=1)
        case "deaf tool":
            await say(call("deaf"))
            await until(scene.marks, "the tool")
    if what != "queue":
        return 1
    for number in range(3):
        await say(f"loop {number}")
    return 4


def says_what(answer: str, what: str, count: int) -> Any:
    """Whether an answer tells what was stopped."""
    if answer.startswith("{"):
        told = json.loads(answer)
        return (told.get("aborted") or told.get("status") == "aborted") and len(told["runIds"]) == count
    dropped = "dropped 3 waiting messages" in answer or what != "queue"
    at_work = {"hung subprocess": "shell was at work", "deaf tool": "deaf was at work"}.get(what, "")
    return dropped and at_work in answer


STATES = ["tool loop", "hung subprocess", "hung model", "queue", "deaf tool"]
linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process that leaves its group is out of reach")


@linux
@pytest.mark.parametrize("what", STATES)
@pytest.mark.parametrize("kind", ["/stop", "chat.abort"])
async def test_a_stop_works_at_once_and_the_session_goes_on(
    what: str, kind: str, start_gateway: StartGateway, tools: str, tmp_path: Path
) -> None:
    async with scene_of(kind, start_gateway, tools, tmp_path / "marks") as scene:
        count = await busy(scene, what)
        answer = await scene.surface.stop()
        stopped_at = time.time()
        assert says_what(answer, what, count), answer
        await until(lambda: not scene.children(), "the end of the children")
        await scene.surface.say("hello again")
        await scene.surface.answered("answer to hello again")
        await until(lambda: time.time() > stopped_at + 2, "two seconds")
        assert [mark for mark in scene.marks() if mark > stopped_at + 1] == []
        states = scene.ended()
        assert states.count(("suppressed", "stopped")) == count, states
        assert {state for state, _ in states} == {"suppressed", "answered"}
        if what == "hung model":
            assert await scene.model.requests(count=1, outcome="disconnected")


@linux
@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("tool loop", "/stop"),
        ("tool loop", "sessions.abort"),
        ("hung subprocess", "stop word"),
        ("hung subprocess", "chat.abort"),
        ("hung model", "sessions.abort"),
        ("queue", "/stop"),
        ("queue", "sessions.abort"),
        ("deaf tool", "stop word"),
    ],
)
async def test_killed_right_after_a_stop_was_acknowledged_nothing_goes_on(
    what: str, kind: str, start_gateway: StartGateway, tools: str, tmp_path: Path
) -> None:
    async with scene_of(kind, start_gateway, tools, tmp_path / "marks") as scene:
        count = await busy(scene, what)
        answer = await scene.surface.stop()
        await scene.gateway.kill()
        assert says_what(answer, what, count), answer
        marks = scene.marks()
        await until(lambda: not scene.children(), "the end of the children, with no gateway there")
        await scene.gateway.start()
        await until(lambda: scene.ended().count(("suppressed", "stopped")) == count, "the end of every stopped message")
        await scene.surface.say("hello again")
        await scene.surface.answered("answer to hello again")
        assert scene.marks() == marks
        assert {state for state, _ in scene.ended()} <= {"suppressed", "answered"}


@linux
async def test_a_gateway_that_is_killed_takes_what_its_tools_started_along(start_gateway: StartGateway, tools: str, tmp_path: Path) -> None:
    """S22, S27: no stop, no second start: the children end by themselves."""
    async with scene_of("chat.abort", start_gateway, tools, tmp_path / "marks") as scene:
        await busy(scene, "hung subprocess")
        await scene.gateway.kill()
        await until(lambda: not scene.children(), "the end of the children")


@linux
async def test_what_lost_its_keeper_is_ended_by_the_next_start_of_the_same_folder(
    start_gateway: StartGateway, tools: str, tmp_path: Path
) -> None:
    """The keeper is killed with the gateway, and a stranger's process with a mark of another folder stays."""
    stranger = await asyncio.create_subprocess_exec("sleep", "600", env={"OPENCLAW_CHILD": "0123456789abcdef.x.y", "PATH": os.defpath})
    try:
        async with scene_of("chat.abort", start_gateway, tools, tmp_path / "marks") as scene:
            child = "setsid sh -c 'echo $$ >> pids; exec sleep 600' &"
            script = f"{child} echo $PPID > keeper; while [ ! -s pids ]; do sleep 0.02; done; touch started; sleep 600"
            await scene.surface.say(call("shell", argv=["sh", "-c", script]))
            await until((scene.workspace / "started").exists, "the children")
            keeper = int((scene.workspace / "keeper").read_text())
            # Stopped first, for it must not see the gateway's end.
            os.kill(keeper, signal.SIGSTOP)
            await scene.gateway.kill()
            os.kill(keeper, signal.SIGKILL)
            assert len(scene.children()) == 1
            await scene.gateway.start()
            await until(lambda: not scene.children(), "the end of the children")
            await scene.gateway.wait_line("an earlier gateway of .* had left behind")
            assert is_alive(stranger.pid)
    finally:
        stranger.kill()
        await stranger.wait()


def of_a_program(tmp_path: Path) -> dict[str, Any]:
    """A config whose model is a program that starts a family and hangs, in the place of the real one."""
    delta = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hello from the program"}}
    result = {"type": "result", "subtype": "success", "result": "hello from the program", "usage": {}}
    answer = "\n".join(map(json.dumps, ({"type": "stream_event", "event": delta}, result)))
    program = tmp_path / "claude"
    program.write_text(f"#!/bin/sh\nread -r line\nif [ -e started ]; then echo '{answer}'; exit 0; fi\n{FAMILY}")
    program.chmod(0o755)
    return {"models": {"providers": {"echo": None, "claude-cli": {"command": str(program)}}}}


@linux
async def test_a_stop_ends_all_that_a_program_in_the_place_of_a_model_started(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway(of_a_program(tmp_path))
    workspace = gateway.home / "workspace" / "main"
    async with AsyncExitStack() as stack:
        surface = Socket(gateway, stack)
        await surface.say("hang")
        await until((workspace / "started").exists, "the children")
        assert len(running_in(workspace)) == 5
        assert json.loads(await surface.stop())["aborted"]
        await until(lambda: not running_in(workspace), "the end of the children")
        await surface.say("hello")
        await surface.answered("hello from the program")
        assert ended_in(gateway) == [("suppressed", "stopped"), ("answered", None)]


@linux
async def test_a_gateway_that_is_killed_takes_its_model_programs_along(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway(of_a_program(tmp_path))
    workspace = gateway.home / "workspace" / "main"
    async with gateway.connect() as client:
        await client.request("chat.send", {"sessionKey": "main", "message": "hang", "idempotencyKey": "k1"})
        await until((workspace / "started").exists, "the children")
        await gateway.kill()
    await until(lambda: not running_in(workspace), "the end of the children")


@linux
@pytest.mark.requires("xllamacpp")
async def test_a_gateway_that_is_killed_takes_its_local_model_along(start_gateway: StartGateway) -> None:
    """Also a worker that cannot notice the end of its input."""
    gateway = await start_gateway({"models": {"providers": {"echo": None, "local": {"preload": True}}}})

    def workers() -> list[int]:
        below = children(gateway.process.pid)
        return [pid for pid in below if b"openclaw_providers.local.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    (worker,) = await until(workers, "the worker")
    async with gateway.connect() as client:
        await client.request("chat.send", {"sessionKey": "main", "message": "hello", "idempotencyKey": "k1"})
        assert (await client.request("agent.wait", {"runId": "k1", "timeoutMs": 60_000}, deadline=70))["status"] == "ok"
        os.kill(worker, signal.SIGSTOP)
        await gateway.kill()
    await until(lambda: not is_alive(worker), "the end of the worker")
