"""What the tests of the providers share: a plugin's context without a gateway around it, and requests to ask."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from openclaw_kernel.api import (
    Completed,
    Message,
    ModelEvent,
    ModelRequest,
    Provider,
    ProviderError,
    Text,
    TextDelta,
    UserMessage,
)

SettingsT = TypeVar("SettingsT", bound=BaseModel)


class Storage:
    """Small values in memory."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    async def get(self, key: str) -> str | None:
        return self.values.get(key)

    async def put(self, key: str, value: str) -> None:
        self.values[key] = value

    async def remove(self, key: str) -> None:
        self.values.pop(key, None)


class Context:
    """The part of `PluginContext` that a provider plugin uses, for entries of `models.providers` as in a config."""

    def __init__(self, entries: Mapping[str, Mapping[str, Any]], state_dir: Path) -> None:
        self._entries = entries
        self.state_dir = state_dir
        self.home = state_dir.parent
        self.storage = Storage()
        self.logger = logging.getLogger("tests.providers")
        self.degraded: list[str | None] = []
        self.tasks: list[asyncio.Task[Any]] = []

    def instances(self, model: type[SettingsT]) -> Mapping[str, SettingsT]:
        return {identity: model.model_validate(entry) for identity, entry in self._entries.items()}

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self.tasks.append(task)
        return task

    def degrade(self, reason: str | None) -> None:
        self.degraded.append(reason)

    def now_ms(self) -> int:
        return int(time.time() * 1000)


class Registered:
    """The providers that a plugin's hook registered."""

    def __init__(self) -> None:
        self.providers: dict[str, Provider] = {}

    def add_provider(self, provider: Provider) -> None:
        self.providers[provider.id] = provider


def load(plugin: Any, context: Context) -> dict[str, Provider]:
    """Construct a plugin as the host does and return what it registered."""
    registered = Registered()
    plugin(context).openclaw_register_providers(registered)
    assert all(isinstance(provider, Provider) for provider in registered.providers.values())
    return registered.providers


@dataclass
class Answer:
    """One streamed answer, taken apart."""

    events: list[ModelEvent] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))

    @property
    def completed(self) -> Completed:
        assert isinstance(self.events[-1], Completed)
        return self.events[-1]


def said(text: str, *, at: int = 1) -> UserMessage:
    """A message of a person."""
    return UserMessage(content=(Text(text),), timestamp_ms=at)


def request(*messages: Message | str, model: str, **more: Any) -> ModelRequest:
    """A request with these messages, plain strings being what a person said."""
    taken = tuple(said(item, at=index) if isinstance(item, str) else item for index, item in enumerate(messages))
    fields: dict[str, Any] = {
        "system": "",
        "agent_id": "main",
        "session_key": "agent:main:main",
        "session_id": "session-1",
        "run_id": "run-1",
        "workspace": Path.cwd(),
    }
    return ModelRequest(model=model, messages=taken, **{**fields, **more})


async def ask(provider: Provider, asked: ModelRequest) -> Answer:
    """Read a whole answer."""
    answer = Answer()
    async with aclosing(provider.stream(asked)) as stream:  # type: ignore[type-var]
        async for event in stream:
            answer.events.append(event)
    return answer


async def fail(provider: Provider, asked: ModelRequest) -> tuple[ProviderError, str]:
    """Read until the call fails; return the error and the text that came before it."""
    text = ""
    stream: AsyncIterator[ModelEvent] = provider.stream(asked)
    try:
        async for event in stream:
            text += event.text if isinstance(event, TextDelta) else ""
    except ProviderError as error:
        return error, text
    raise AssertionError(f"the call did not fail but said {text!r}")
