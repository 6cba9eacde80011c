"""A model provider without a model: it says everything twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from openclaw_kernel.api import (
    Completed,
    ModelEvent,
    ModelInfo,
    ModelRequest,
    PluginContext,
    ProviderError,
    ProviderErrorKind,
    Registrar,
    Text,
    TextDelta,
    UserMessage,
    hookimpl,
)


class ParrotSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    word: str = "and"
    """What stands between the two."""
    mood: str | None = None
    """Any mood makes the parrot silent."""


class ParrotProvider:
    label = "Parrot"

    def __init__(self, identity: str, settings: ParrotSettings) -> None:
        self.id = identity
        self._settings = settings

    async def start(self) -> None:
        """Nothing to prepare."""

    async def stop(self) -> None:
        """Nothing to close."""

    def models(self) -> Sequence[ModelInfo]:
        return [ModelInfo(id="grey", provider=self.id, name="Grey parrot", context_window=8192, tools=False)]

    def problem(self) -> str | None:
        mood = self._settings.mood
        return f"models.providers.{self.id}.mood: it is {mood}; remove it" if mood else None

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        message = request.messages[-1]
        if not isinstance(message, UserMessage):
            told = "a parrot answers people only"
            raise ProviderError(ProviderErrorKind.BAD_REQUEST, told, provider=self.id, model=request.model)
        said = " ".join(part.text for part in message.content if isinstance(part, Text))
        for piece in (said, f" {self._settings.word} ", said):
            yield TextDelta(piece)
        yield Completed(stop_reason="stop")


class ParrotPlugin:
    settings: ClassVar[type[BaseModel] | None] = ParrotSettings

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @hookimpl
    def openclaw_register_providers(self, registrar: Registrar) -> None:
        for identity, settings in self._context.instances(ParrotSettings).items():
            registrar.add_provider(ParrotProvider(identity, settings))
