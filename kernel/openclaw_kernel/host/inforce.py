"""What runs: the one value that a reload replaces as a whole, and puts back as a whole."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

from openclaw_config.models import Config
from openclaw_kernel.host.discovery import Discovery
from openclaw_kernel.host.lifecycle import Hosted
from openclaw_kernel.host.manager import PluginManager
from openclaw_kernel.host.registry import KERNEL, Registry
from openclaw_kernel.host.sections import Assignment
from openclaw_kernel.host.state import Standing

Swap = Callable[[], None]
"""Makes the outside follow the registry, in one step that cannot fail."""
Surface = Callable[[Registry], Swap]
"""Builds what was made of a registry (methods, events, routes); raise `ValueError` where it cannot be, in words for people."""


def no_surface(_registry: Registry) -> Swap:
    """Follow nothing: nobody made anything of the registry."""
    return lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """The plugins as they are for one config. `registry` and `manager` belong to it alone once something else is in force."""

    config: Config
    discovery: Discovery
    assignment: Assignment
    standings: Mapping[str, Standing]
    hosted: Mapping[str, Hosted] = field(default_factory=dict)
    """The loaded plugins in the order in which they start."""
    models: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    registry: Registry
    manager: PluginManager

    def fixed(self, plugin_id: str) -> str | None:
        """Say why a plugin cannot be stopped or replaced while the gateway runs, None where it can."""
        offered = sorted(kind.__name__ for kind, owned in self.registry.services.items() if owned.plugin_id == plugin_id)
        if not offered or plugin_id == KERNEL:
            return None
        return f"it provides {', '.join(offered)}, which others hold"


def order_of(discovery: Discovery, present: Collection[str]) -> list[str]:
    """Return in which order plugins register: as they were discovered."""
    return [found.id for found in discovery.plugins if found.id in present]
