"""A plugin that does nothing: its code can be replaced at any time, and a change of its section takes a restart."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from openclaw_kernel.api import PluginContext


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: int = 0


class SparePlugin:
    """Registers nothing."""

    settings: ClassVar[type[BaseModel] | None] = Settings

    def __init__(self, context: PluginContext) -> None:
        self.number = context.settings(Settings).number
