"""Every leaf of the schema, changed live, leaves what a cold start with the same file has; or the plan says that it needs a restart."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from openclaw_config.load import Loaded, load
from openclaw_config.models import Config
from openclaw_kernel.api.audit import AuditOrigin
from openclaw_kernel.api.config import Change, ReloadOutcome
from openclaw_kernel.api.errors import InvalidRequest
from openclaw_kernel.api.services import PluginState
from openclaw_kernel.app import GatewayApp
from openclaw_kernel.host import PluginHost
from openclaw_kernel.host.discovery import Discovery, discover
from openclaw_kernel.logs import set_level
from openclaw_kernel.reload.diff import changed_paths, named
from openclaw_kernel.store.sqlite import SqliteStore
from tests.kernel.reload.every_leaf import BASE, HOME, ONLY, SECTIONS, Leaf, content_for, leaves_of, other_value
from tests.kernel.reload.observing import as_configured, of_kernel, of_plugins, stale_configs

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHANGE = Change(origin=AuditOrigin(actor="test", surface="cli"))

RESTART = {
    "gateway.port": "the socket",
    "gateway.bind": "the socket",
    "gateway.controlUi.basePath": "every route is mounted below it",
    "gateway.tls": "whether the port speaks TLS, and with what",
    "isolation": "others hold its services",
    "limits": "others hold its services",
    "enabled": "others hold its services",
}
"""All that may need a restart, by path or by the last keys of a plugin's entry."""

REFUSED = {"gateway.mode": "remote runs no gateway"}
"""What no gateway can be changed to."""


def may_need_restart(leaf: Leaf) -> bool:
    if leaf.path[:2] == ("plugins", "entries"):
        return leaf.path[3] in RESTART
    return any(str(leaf) == key or str(leaf).startswith(f"{key}.") for key in RESTART)


class Running:
    """One gateway for all leaves, and cold ones beside it."""

    def __init__(self, home: Path, app: GatewayApp, discovery: Discovery) -> None:
        self.store = SqliteStore(home / "unused.sqlite3")
        self.home = home
        self.app = app
        self.discovery = discovery

    def file(self, content: Mapping[str, Any]) -> Loaded:
        path = self.home / "openclaw.yaml"
        path.write_text(json.dumps(content).replace(HOME, str(self.home)))
        return load(path)

    async def cold(self, loaded: Loaded, only: str | None) -> dict[str, Any]:
        """What the plugins, or one of them, are for a gateway that is started with this file."""
        found = [plugin for plugin in self.discovery.plugins if only in {None, plugin.id}]
        host = PluginHost(
            config=loaded.config,
            home=self.home,
            store=self.store,
            discovery=replace(self.discovery, plugins=tuple(found)),
            services={kind: owned.item for kind, owned in self.app.host.registry.services.items() if owned.plugin_id == "kernel"},
            on_state=lambda _status: None,
        )
        await host.load()
        failed = [status for status in host.statuses() if status.state is PluginState.FAILED]
        assert failed == []
        seen = of_plugins(host)
        await host.stop(1.0)
        return seen


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    home = tmp_path_factory.mktemp("home")
    (home / "openclaw.yaml").write_text(json.dumps(BASE))
    (home / "model.gguf").write_bytes(b"GGUF")
    (home / "ui").mkdir()
    (home / "ui" / "index.html").write_text("<!doctype html>")
    set_level("info")
    app = GatewayApp(loaded=load(home / "openclaw.yaml"), home=home)
    await app.start()
    yield Running(home, app, app.host.current().discovery)
    await app.stop()
    set_level("info")


ALL = list(leaves_of(discover()))


async def test_every_leaf_has_another_value() -> None:
    assert len(ALL) == len({leaf.path for leaf in ALL}) > 200
    for leaf in ALL:
        other_value(leaf, None)


@pytest.mark.parametrize("leaf", ALL, ids=str)
async def test_a_leaf_that_is_changed_live_is_as_after_a_cold_start(running: Running, leaf: Leaf) -> None:
    if other_value(leaf, None) is ONLY:
        return
    app = running.app
    assert app.live is not None
    loaded = running.file(content_for(leaf))
    if str(leaf) in REFUSED:
        with pytest.raises(InvalidRequest, match=str(leaf)):
            await app.live.engine.take(loaded, CHANGE)
        return
    if leaf.path[-1] == "isolation":
        # Other tests start plugins in processes of their own; not all of them can.
        (unit,) = [unit for unit in app.live.engine.plan(loaded.config).units if unit.unit == leaf.path[2] and str(leaf) in unit.paths]
        assert unit.outcome is (ReloadOutcome.UNIT if app.host.fixed(unit.unit) is None else ReloadOutcome.PROCESS)
        return
    applied = await app.live.engine.take(loaded, CHANGE)
    changed = named(changed_paths(Config.model_validate(BASE), loaded.config))
    assert any(path == str(leaf) or path.startswith(f"{leaf}.") for path in changed), "the value is no other"
    waits = [unit for unit in applied.plan.units if unit.outcome is ReloadOutcome.PROCESS]
    if waits:
        assert may_need_restart(leaf), f"{leaf} needs a restart: {waits}"
        assert all(unit.waits for unit in waits)
        assert running.app.host.current().config == app.live.engine.running
        return
    assert app.host.current().config == app.live.engine.running == loaded.config
    assert [status for status in app.host.statuses() if status.state is PluginState.FAILED] == []
    # What has a section of its own is nobody else's; all other keys are anybody's.
    owner = leaf.path[2 if leaf.path[0] != "channels" else 1] if any(leaf.path[: len(section)] == section for section in SECTIONS) else None
    cold, live = await running.cold(loaded, owner), of_plugins(app.host)
    assert live.keys() >= cold.keys()
    assert owner is not None or live.keys() == cold.keys()
    for plugin_id in cold:
        for fact in live[plugin_id]:
            assert (plugin_id, fact, live[plugin_id][fact]) == (plugin_id, fact, cold[plugin_id][fact])
    assert stale_configs(app.host) == []
    assert of_kernel(app) == as_configured(loaded.config)
    assert logging.getLogger("openclaw").level == logging.getLevelName(loaded.config.logging.level.upper())
