"""Three tools, one of each retry class, whose effects outlive the process: lines in a file."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from openclaw_kernel.api import PluginContext, Registrar, RetryClass, Tool, ToolContext, ToolResult, hookimpl

CLASSES = {"look": RetryClass.PURE, "put": RetryClass.IDEMPOTENT, "append": RetryClass.SIDE_EFFECTING}


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    file: Path
    """Where each call leaves a line of JSON: tool, token, step, at (seconds), pid."""


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid")

    token: str
    step: int
    seconds: float = 0.0


class EffectsPlugin:
    """Registers `look`, `put` and `append`."""

    settings: ClassVar[type[BaseModel] | None] = Settings

    def __init__(self, context: PluginContext) -> None:
        self._file = context.settings(Settings).file

    @hookimpl
    def openclaw_register_tools(self, registrar: Registrar) -> None:
        for name, retry_class in CLASSES.items():
            registrar.add_tool(
                Tool(
                    name=name,
                    label=name,
                    description=f"A call that is {retry_class}.",
                    params=Params,
                    run=self._tool(name),
                    retry_class=retry_class,
                    timeout_seconds=20,
                )
            )

    def _tool(self, name: str) -> Callable[[ToolContext, Params], Awaitable[ToolResult]]:
        async def run(context: ToolContext, params: Params) -> ToolResult:
            await asyncio.sleep(0)
            line = {"tool": name, "token": params.token, "step": params.step, "at": time.time(), "pid": os.getpid()}
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            await asyncio.sleep(params.seconds)
            return ToolResult(text=f"{name} of {params.token} is done")

        return run
