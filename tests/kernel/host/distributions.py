"""Plugins as installed distributions, so that the real discovery finds them: a package, a manifest and a dist-info."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

_NUMBERS = itertools.count(1)

GROUPS = {"channel": "openclaw.channels", "provider": "openclaw.providers", "plugin": "openclaw.plugins"}

PRELUDE = """
from __future__ import annotations

import asyncio
import sys
import threading
import time

from pydantic import BaseModel

from openclaw_kernel.api import *
"""


@dataclass
class Distributions:
    """Installs distributions into a folder that is on `sys.path`."""

    folder: Path
    packages: list[str] = field(default_factory=list)

    def add(
        self,
        plugin_id: str,
        source: str,
        *,
        kind: str = "plugin",
        distribution: str | None = None,
        version: str = "1.0",
        manifest: str | None = "",
    ) -> str:
        """Install a plugin whose class `ThePlugin` is in `source`; `manifest` is added to it, None leaves it out.

        Return the package's name.
        """
        name = distribution or f"acme-{plugin_id}"
        # An import that hangs in one test keeps its module's lock for all others.
        package = f"{name}_{plugin_id}_{next(_NUMBERS)}".replace("-", "_")
        self.packages.append(package)
        folder = self.folder / package
        folder.mkdir()
        (folder / "__init__.py").touch()
        (folder / "plugin.py").write_text(PRELUDE + dedent(source), encoding="utf-8")
        if manifest is not None:
            text = f'api = 1\nid = "{plugin_id}"\nsummary = "a plugin of a test"\n' + dedent(manifest)
            (folder / "plugin.toml").write_text(text, encoding="utf-8")
        self.add_entry_point(name, GROUPS[kind], plugin_id, f"{package}.plugin:ThePlugin", version=version)
        return package

    def add_entry_point(self, distribution: str, group: str, name: str, value: str, *, version: str = "1.0") -> None:
        """Install a dist-info with one entry point, or add one to it."""
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n", encoding="utf-8")
        with (info / "entry_points.txt").open("a", encoding="utf-8") as file:
            file.write(f"[{group}]\n{name} = {value}\n")

    def forget(self) -> None:
        """Drop what was imported of them."""
        for name in list(sys.modules):
            if name.partition(".")[0] in self.packages:
                del sys.modules[name]


GOOD = """
class Nothing(BaseModel):
    pass

async def greet(context, params):
    return ToolResult(text="hello")

class GoodChannel:
    id = "good"
    label = "Good"
    capabilities = ChannelCapabilities(progress=True)

    def __init__(self):
        self.shown = []
        self.running = False

    async def start(self):
        self.running = True

    async def stop(self):
        self.running = False

    async def send(self, message):
        return Receipt(message_ids=("1",))

    async def show_progress(self, progress):
        self.shown.append(progress)

    def status(self):
        return [AccountStatus(account_id="default", running=self.running, connected=self.running)]

class ThePlugin:
    settings = None

    def __init__(self, context):
        self.context = context

    @hookimpl
    def openclaw_register_channels(self, registrar):
        registrar.add_channel(GoodChannel())

    @hookimpl
    def openclaw_register_tools(self, registrar):
        registrar.add_tool(Tool(name="greet", label="Greet", description="Greets.", params=Nothing, run=greet,
                                retry_class=RetryClass.PURE, timeout_seconds=5.0))

    @hookimpl(trylast=True)
    def openclaw_decide_route(self, message):
        return Route(agent_id="main", session_key="agent:main:main", reason="good")

    @hookimpl(trylast=True)
    def openclaw_decide_admission(self, message, route):
        return Admission(verdict=Verdict.ALLOW, reason="good")
"""
"""A plugin that works, whatever its neighbours do: a channel, a tool, and decisions that come last."""
