"""Makes the plugins whose code runs in a process of its own, and ends what is left of them with the gateway."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from openclaw_config.models import ChildLimits
from openclaw_kernel.api.plugin import PluginContext
from openclaw_kernel.children.bridge import Bridge
from openclaw_kernel.children.exchange import Exchange, remove_leftovers
from openclaw_kernel.children.handed import handed_over
from openclaw_kernel.children.peer import Bounds
from openclaw_kernel.children.plugin import ChildPlugin
from openclaw_kernel.children.process import Launch
from openclaw_kernel.children.stderr import ChildLog
from openclaw_kernel.children.supervisor import ChildTiming, Supervisor
from openclaw_kernel.children.wire import PROTOCOL
from openclaw_kernel.host.discovery import Found
from openclaw_kernel.host.isolation import ChildFailed, Hold
from openclaw_kernel.host.sections import Share

RUNNER: Final = "openclaw_kernel.children.runner"


class Children:
    """Implements `host.isolation.Isolation`. Whoever makes one calls `close` after the host has stopped."""

    def __init__(self, *, version: str, timing: ChildTiming | None = None) -> None:
        self._version = version
        self._timing = timing or ChildTiming()
        self._open: dict[str, dict[Supervisor, asyncio.Task[None]]] = {}
        """What runs by plugin, the newest last, with the task by whose end it ends."""
        self._folders: set[Path] = set()

    async def build(self, found: Found, context: PluginContext, share: Share, hold: Hold) -> ChildPlugin:
        """Start the child and return what stands for it; raise `ChildFailed`, `ConfigRejected`."""
        if found.kind == "provider":
            raise ChildFailed(f"a model provider cannot run in a process of its own; remove plugins.entries.{found.id}.isolation")
        config = context.config
        entry = config.plugins.entries.get(found.id)
        limits = entry.limits if entry is not None else ChildLimits()
        timing = replace(self._timing, call=config.plugins.call_timeout_seconds, answer=limits.answer_seconds)
        log = ChildLog(context.logger, asyncio.get_running_loop().time)
        folder = context.state_dir / "exchange"
        await asyncio.to_thread(remove_leftovers, folder, frozenset(self._folders))
        # Its own: the process that it may replace, or that of a gateway beside which this one is tried, has files under way in another.
        exchange = Exchange(folder / f"{os.getpid()}-{uuid.uuid4().hex[:8]}")
        bridge = Bridge(context, exchange, log)
        hello = self._hello(found, context, share, exchange)
        launch = Launch(
            plugin_id=found.id,
            command=found.program or [sys.executable, "-I", "-m", RUNNER],
            home=context.home,
            state_folder=context.state_dir,
            memory_mb=limits.memory_mb,
            files=limits.files,
            processes=limits.processes,
        )
        supervisor = Supervisor(
            launch,
            hello=lambda: hello,
            prepare=lambda: asyncio.to_thread(exchange.clear),
            handlers=bridge.handlers,
            notices=bridge.notices,
            log=log,
            hold=hold,
            timing=timing,
        )
        self._folders.add(exchange.folder)
        try:
            registered = await supervisor.open()
            # An instance that is given up before it was started is told by the end of its tasks alone.
            keeping = context.spawn("process", self._keep(found.id, supervisor, exchange))
        except BaseException:
            await self._clear_up(supervisor, exchange)
            raise
        self._open.setdefault(found.id, {})[supervisor] = keeping
        bridge.channels = tuple(channel.id for channel in registered.channels)
        return ChildPlugin(registered, supervisor, bridge, exchange=exchange, call_seconds=timing.call)

    async def _keep(self, plugin_id: str, supervisor: Supervisor, exchange: Exchange) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self._open.get(plugin_id, {}).pop(supervisor, None)
            await self._clear_up(supervisor, exchange)

    async def _clear_up(self, supervisor: Supervisor, exchange: Exchange) -> None:
        try:
            await supervisor.close()
        finally:
            self._folders.discard(exchange.folder)
            await asyncio.to_thread(shutil.rmtree, exchange.folder, ignore_errors=True)

    def discard(self, plugin_id: str) -> None:
        """End the newest process of a plugin that failed while it was loaded."""
        kept = list(self._open.get(plugin_id, {}).values())
        if kept:
            kept[-1].cancel()

    async def close(self, timeout: float) -> None:
        """End every process that is left."""
        kept = [keeping for supervisors in self._open.values() for keeping in supervisors.values()]
        for keeping in kept:
            keeping.cancel()
        if kept:
            await asyncio.wait(kept, timeout=timeout)

    def pids(self, plugin_id: str) -> list[int]:
        """Return the processes of a plugin that run now."""
        return [supervisor.pid for supervisor in self._open.get(plugin_id, {}) if supervisor.pid is not None]

    def _hello(self, found: Found, context: PluginContext, share: Share, exchange: Exchange) -> Mapping[str, Any]:
        bounds = Bounds()
        settings = {key: value for key, value in share.section.items() if found.program is None or key != "enabled"}
        hello = {
            "protocol": PROTOCOL,
            "gateway": {"version": self._version},
            "plugin": found.id,
            "settings": handed_over(settings, found.section),
            "stateFolder": str(context.state_dir),
            "exchangeFolder": str(exchange.folder),
            "bounds": {"lineBytes": bounds.line_bytes, "handled": bounds.handled, "asked": bounds.asked},
        }
        if found.program is None:
            hello["python"] = _python_of(found, context)
        return hello


def _python_of(found: Found, context: PluginContext) -> dict[str, Any]:
    """Return what the runner needs to find and load the class; for our own module only, and no part of the contract."""
    return {
        "path": [entry for entry in sys.path if entry],
        "entryPoint": [found.entry_point.name, found.entry_point.value, found.entry_point.group],
        "kind": found.kind,
        "distribution": found.distribution,
        "version": found.version,
        "manifest": found.manifest.model_dump() if found.manifest is not None else None,
        "callTimeoutSeconds": context.config.plugins.call_timeout_seconds,
        "logLevel": context.config.logging.level,
    }
