"""`mark` leaves a line outside of the gateway; `deaf` does too and then takes no notice of its cancellation."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from openclaw_kernel.api import PluginContext, Registrar, RetryClass, Tool, ToolContext, ToolResult, hookimpl


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    file: Path
    """Where each call leaves a line: when it began (seconds) and its tool."""


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid")

    step: int = 0


class StopToolsPlugin:
    settings: ClassVar[type[BaseModel] | None] = Settings

    def __init__(self, context: PluginContext) -> None:
        self._file = context.settings(Settings).file

    @hookimpl
    def openclaw_register_tools(self, registrar: Registrar) -> None:
        for name, run in (("mark", self._mark), ("deaf", self._deaf)):
            registrar.add_tool(
                Tool(
                    name=name,
                    label=name,
                    description="A call that leaves a line.",
                    params=Params,
                    run=run,
                    retry_class=RetryClass.SIDE_EFFECTING,
                    timeout_seconds=600,
                )
            )

    def _note(self, name: str) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(f"{time.time()} {name}\n")

    async def _mark(self, _context: ToolContext, params: Params) -> ToolResult:
        self._note("mark")
        await asyncio.sleep(0.02)
        return ToolResult(text=f"marked {params.step}")

    async def _deaf(self, _context: ToolContext, _params: Params) -> ToolResult:
        self._note("deaf")
        while True:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                continue
