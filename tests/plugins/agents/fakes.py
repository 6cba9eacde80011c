"""In-process services for the agents plugin: a scripted provider, real tools, a sink that remembers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from openclaw_kernel.api import (
    Config,
    Gateway,
    Message,
    ModelEvent,
    ModelInfo,
    ModelRequest,
    PluginState,
    PluginStatus,
    ProviderError,
    ProviderErrorKind,
    Providers,
    Sessions,
    Step,
    StepBegun,
    Text,
    Tool,
    ToolContext,
    ToolResult,
    Tools,
    Turn,
    TurnClosed,
    UserMessage,
)
from openclaw_plugins.agents.runtime import Runtime
from openclaw_plugins.agents.settings import AgentsSettings

NOW_MS = 1_700_000_000_000
Script = Callable[[ModelRequest], AsyncIterator[ModelEvent]]


def model(ref: str = "fake/one", **facts: Any) -> ModelInfo:
    provider, _, name = ref.partition("/")
    facts = {"context_window": 32_000, **facts}
    return ModelInfo(id=name, provider=provider, name=name, **facts)


class FakeProviders:
    """Answers each call of a model with the next of its scripts; the last script is repeated."""

    def __init__(self, models: Sequence[ModelInfo] = (), problems: Mapping[str, str] | None = None) -> None:
        self._models = models
        self._problems = dict(problems or {})
        self.scripts: dict[str, list[Script | Sequence[ModelEvent | Exception]]] = {}
        self.requests: list[ModelRequest] = []
        self.closed: list[str] = []

    def ids(self) -> Sequence[str]:
        return tuple(dict.fromkeys([*(info.provider for info in self._models), *self._problems]))

    def models(self) -> Sequence[ModelInfo]:
        return self._models

    def find(self, ref: str) -> ModelInfo | None:
        return next((info for info in self._models if ref in (info.ref, info.provider)), None)

    def problem(self, provider: str) -> str | None:
        return self._problems.get(provider)

    async def stream(self, provider: str, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        self.requests.append(request)
        scripts = self.scripts[f"{provider}/{request.model}"]
        script = scripts.pop(0) if len(scripts) > 1 else scripts[0]
        try:
            if callable(script):
                async for event in script(request):
                    yield event
                return
            for item in script:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed.append(f"{provider}/{request.model}")


def failure(kind: ProviderErrorKind, message: str = "it broke", *, provider: str = "fake") -> ProviderError:
    return ProviderError(kind, message, provider=provider)


class FakeTools:
    """Runs real tools as the kernel does: arguments validated, every failure a result."""

    def __init__(self, *tools: Tool[Any]) -> None:
        self._tools = tools
        self.ran: list[str] = []

    def all(self) -> Sequence[Tool[Any]]:
        return self._tools

    def source(self, name: str) -> str:
        return "tools-of-test"

    async def run(self, name: str, context: ToolContext, arguments: Mapping[str, Any]) -> ToolResult:
        self.ran.append(name)
        tool = next(tool for tool in self._tools if tool.name == name)
        return await tool.run(context, tool.params.model_validate(dict(arguments)))


@dataclass
class FakeSink:
    """Remembers all it is told, in order."""

    deltas: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    tool_events: list[tuple[str, str, str]] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    begun: list[StepBegun] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    closed: bool = False
    spoke: asyncio.Event = field(default_factory=asyncio.Event)

    def text(self, delta: str) -> None:
        self.deltas.append(delta)
        self.spoke.set()

    def thinking(self, delta: str) -> None:
        self.thoughts.append(delta)

    def tool(
        self,
        phase: Literal["start", "result"],
        *,
        call_id: str,
        name: str,
        arguments: Mapping[str, Any],
        result: str = "",
        is_error: bool = False,
    ) -> None:
        self.tool_events.append((phase, name, result))

    async def record(self, message: Message) -> None:
        self.messages.append(message)

    async def begin_step(self, step: StepBegun) -> int:
        if self.closed:
            raise TurnClosed("the turn was stopped")
        self.begun.append(step)
        return len(self.begun)

    async def end_step(self, number: int, step: Step) -> None:
        assert self.begun[number - 1].name == step.name
        self.steps.append(step)

    async def record_step(self, step: Step) -> None:
        self.steps.append(step)


class FakeSessions:
    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = rows
        self.asked: list[tuple[int, int]] = []

    async def usage_rows(self, since_ms: int, until_ms: int) -> Sequence[Mapping[str, Any]]:
        self.asked.append((since_ms, until_ms))
        return [row for row in self.rows if since_ms <= row["startedMs"] < until_ms]


class FakeGateway:
    def __init__(self, *bundled: str) -> None:
        self._bundled = bundled

    def plugins(self) -> Sequence[PluginStatus]:
        return [
            PluginStatus(
                id=name,
                kind="plugin",
                version="1",
                distribution="d",
                state=PluginState.STARTED,
                reason=None,
                since_ms=0,
                bundled=True,
            )
            for name in self._bundled
        ]


class FakeContext:
    """The gateway as the plugin sees it."""

    def __init__(self, home: Path, config: Mapping[str, Any] | None = None, **services: Any) -> None:
        self.plugin_id = "agents"
        self.home = home
        self.config = Config.model_validate(config or {})
        self.logger = logging.getLogger("openclaw.test")
        self.degraded: list[str | None] = []
        self.section: dict[str, Any] = {}
        self.now = NOW_MS
        kinds = {"providers": Providers, "tools": Tools, "sessions": Sessions, "gateway": Gateway}
        self._services = {kinds[name]: service for name, service in services.items()}

    def settings(self, model: Any) -> Any:
        return model.model_validate(self.section)

    def service(self, kind: Any) -> Any:
        return self._services[kind]

    def degrade(self, reason: str | None) -> None:
        self.degraded.append(reason)

    def now_ms(self) -> int:
        return self.now


def user(text: str) -> UserMessage:
    return UserMessage(content=(Text(text),), timestamp_ms=NOW_MS)


def turn(text: str = "hello", **facts: Any) -> Turn:
    facts = {"agent_id": "main", "session_key": "agent:main:main", "history": (), "message": user(text), **facts}
    return Turn(run_id="run-1", session_id="s-1", **facts)


@dataclass
class Bench:
    """A runtime with everything around it."""

    runtime: Runtime
    context: FakeContext
    providers: FakeProviders
    tools: FakeTools
    sink: FakeSink


def bench(
    home: Path,
    *,
    models: Sequence[ModelInfo] | None = None,
    scripts: Mapping[str, list[Any]] | None = None,
    tools: Sequence[Tool[Any]] = (),
    config: Mapping[str, Any] | None = None,
    problems: Mapping[str, str] | None = None,
) -> Bench:
    providers = FakeProviders([model()] if models is None else models, problems)
    providers.scripts.update(scripts or {})
    fake_tools = FakeTools(*tools)
    context = FakeContext(home, config, providers=providers, tools=fake_tools)
    runtime = Runtime(context)  # type: ignore[arg-type]
    return Bench(runtime, context, providers, fake_tools, FakeSink())


__all__ = [
    "NOW_MS",
    "AgentsSettings",
    "Bench",
    "FakeContext",
    "FakeGateway",
    "FakeProviders",
    "FakeSessions",
    "FakeSink",
    "FakeTools",
    "bench",
    "failure",
    "model",
    "turn",
    "user",
]
