"""The checks of every plugin that would run: their classes are constructed in this process, nothing is started."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from openclaw_config.models import Config
from openclaw_kernel.api.check import Check
from openclaw_kernel.api.services import PluginState
from openclaw_kernel.checks.scene import DATABASE
from openclaw_kernel.host.discovery import Discovery
from openclaw_kernel.host.guard import Guard, PluginFault
from openclaw_kernel.host.loader import load_class, load_driver
from openclaw_kernel.host.loading import Loader
from openclaw_kernel.host.manager import CHECK_HOOK, PluginManager
from openclaw_kernel.host.registry import Owned, Registry
from openclaw_kernel.host.sections import Share, assign
from openclaw_kernel.host.state import Standing


@dataclass(frozen=True, slots=True)
class Gathered:
    """The checks by id, and by plugin why its own are not among them."""

    checks: Sequence[Owned[Check]]
    faults: Mapping[str, str]


async def gather(guard: Guard, *, config: Config, home: Path, discovery: Discovery) -> Gathered:
    """Ask every plugin that would run for its checks; one that fails is told, and harms no other."""
    deadline: Final = config.plugins.call_timeout_seconds
    registry, manager = Registry(), PluginManager(guard, lambda _fault: None)
    faults: dict[str, str] = {}
    wanted: list[tuple[Standing, Share]] = []
    shares = assign(config, discovery).shares
    for found in discovery.plugins:
        # A program has no checks, and what is isolated is not run in the process of a command either.
        if found.state != "discovered" or shares[found.id].disabled is not None or shares[found.id].isolated:
            continue
        try:
            plugin_class = await guard.run_sync(found.id, "import", partial(load_class, found), deadline)
        except PluginFault as fault:
            faults[found.id] = fault.reason
            continue
        if hasattr(plugin_class, CHECK_HOOK):
            wanted.append((Standing(found, lambda _status: None, _now_ms), shares[found.id]))
    loader = Loader(
        registry=registry,
        manager=manager,
        guard=guard,
        config=config,
        home=home,
        # It stays closed: a plugin that asks it for something is told so.
        store=load_driver("openclaw.stores", "sqlite")(home / DATABASE),
        now_ms=_now_ms,
    )
    contexts = await loader.load(wanted)
    faults |= {standing.found.id: standing.reason or "failed" for standing, _ in wanted if standing.state is PluginState.FAILED}
    registrars = {plugin_id: registry.registrar(plugin_id) for plugin_id in contexts}
    failed = await manager.register_checks(registrars, deadline)
    for plugin_id, failure in failed.items():
        registry.remove(plugin_id)
        faults[plugin_id] = failure.reason
    return Gathered(tuple(registry.checks[name] for name in sorted(registry.checks)), faults)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
