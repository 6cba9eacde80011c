"""A plugin host on real discovery and a real store, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openclaw_config.models import Config
from openclaw_kernel.api import InboundMessage, OutboundMessage, PluginState, PluginStatus, Target, ToolContext, Verdict
from openclaw_kernel.api.config import ReloadOutcome, UnitResult
from openclaw_kernel.host import PluginHost
from openclaw_kernel.host.discovery import Discovery, discover
from openclaw_kernel.host.isolation import Isolation
from openclaw_kernel.host.replacing import Prepared
from openclaw_kernel.host.timing import Timing
from openclaw_kernel.store.sqlite import SqliteStore

QUICK = Timing(
    ready_wait=2.0,
    order_wait=0.3,
    backoff_first=0.01,
    backoff_ceiling=0.04,
    attempts=2,
    send=0.3,
    progress=0.3,
    command=0.3,
    loop_noticed=0.05,
    fault_shown=0.2,
)

TARGET = Target(channel="good", account_id="default", peer_kind="direct", peer_id="alice")
MESSAGE = InboundMessage(target=TARGET, message_id="1", sender_id="alice", text="hi")


def strangers() -> Discovery:
    """What is installed beside the bundled plugins."""
    found = discover()
    return Discovery(plugins=tuple(plugin for plugin in found.plugins if not plugin.bundled), problems=found.problems)


@dataclass
class Hosting:
    """A host with its store. `changes` are the states it told of, in order."""

    host: PluginHost
    store: SqliteStore
    changes: list[PluginStatus] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def load(self) -> None:
        """Load and open the store."""
        await self.host.load()
        self.host.refuse_migrations(await self.store.open(self.host.registry.migrations()))

    async def run(self) -> None:
        """Load, open the store, start."""
        await self.load()
        await self.host.start()

    async def apply(self, config: Mapping[str, Any], **wanted: ReloadOutcome) -> Sequence[UnitResult]:
        """Prepare and commit a config, with what the plan says of each plugin."""
        return await (await self.prepare(config, **wanted)).commit()

    async def prepare(self, config: Mapping[str, Any], **wanted: ReloadOutcome) -> Prepared:
        """Prepare a config; the changed keys are said to be the sections of the plugins named."""
        paths = {plugin_id: [f"plugins.entries.{plugin_id}.config"] for plugin_id in wanted}
        return await self.host.prepare(config_of(config), wanted, paths=paths)

    async def stop(self, timeout: float = 3.0) -> list[str]:
        """Stop and close the store."""
        abandoned = await self.host.stop(timeout)
        await self.store.close()
        return abandoned

    def note(self, status: PluginStatus) -> None:
        """Take a change of state."""
        self.changes.append(status)
        self._changed.set()

    def status(self, plugin_id: str) -> PluginStatus:
        """The state of one plugin."""
        return next(status for status in self.host.statuses() if status.id == plugin_id)

    def state(self, plugin_id: str) -> PluginState:
        """The bare state of one plugin."""
        return self.status(plugin_id).state

    def reason(self, plugin_id: str) -> str:
        """The reason of one plugin's state."""
        return self.status(plugin_id).reason or ""

    async def wait_until(self, condition: Callable[[], bool], seconds: float = 5.0) -> None:
        """Wait for changes of state until the condition holds."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def check_good(self) -> None:
        """The plugin `good` does all it can."""
        assert self.state("good") is PluginState.STARTED, self.reason("good")
        context = ToolContext(agent_id="main", session_key="s", run_id="r", call_id="c", workspace=Path())
        result = await self.host.tools.run("greet", context, {})
        assert (result.text, result.is_error) == ("hello", False)
        receipt = await self.host.channels.send(OutboundMessage(target=TARGET, outbox_id="1", text="x"))
        assert receipt.message_ids == ("1",)
        route = self.host.policies.route(MESSAGE)
        assert route.agent_id == "main"
        assert self.host.policies.admit(MESSAGE, route).verdict is Verdict.ALLOW


def config_of(config: Mapping[str, Any]) -> Config:
    """The config of a test: the channel `good` is configured and calls may take 0.5 s."""
    document = {"plugins": {"callTimeoutSeconds": 0.5}, "channels": {"good": {}}, **config}
    document["plugins"] = {"callTimeoutSeconds": 0.5, **document["plugins"]}
    return Config.model_validate(document)


def make_hosting(
    home: Path,
    config: Mapping[str, Any] | None = None,
    *,
    timing: Timing = QUICK,
    services: Mapping[type, object] | None = None,
    discovery: Discovery | None = None,
    isolation: Isolation | None = None,
) -> Hosting:
    """Build a host of the strangers' plugins; the channel `good` is configured and calls may take 0.5 s."""
    store = SqliteStore(home / "state.sqlite3")
    changes: list[Callable[[PluginStatus], None]] = []
    host = PluginHost(
        config=config_of(config or {}),
        home=home,
        store=store,
        discovery=discovery or strangers(),
        services=services or {},
        on_state=lambda status: [note(status) for note in changes].clear(),
        timing=timing,
        isolation=isolation,
    )
    hosting = Hosting(host, store)
    changes.append(hosting.note)
    return hosting
