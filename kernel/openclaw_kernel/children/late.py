"""The isolation of a gateway, of which nothing is imported until there is a plugin to isolate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openclaw_kernel.api.plugin import PluginContext
from openclaw_kernel.host.discovery import Found
from openclaw_kernel.host.isolation import Hold
from openclaw_kernel.host.sections import Share

if TYPE_CHECKING:
    from openclaw_kernel.children.isolation import Children


class LateIsolation:
    """Implements `host.isolation.Isolation` by `Children`."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._children: Children | None = None

    async def build(self, found: Found, context: PluginContext, share: Share, hold: Hold) -> object:
        """Start the process of a plugin; see `Children.build`."""
        if self._children is None:
            from openclaw_kernel.children.isolation import Children

            self._children = Children(version=self._version)
        return await self._children.build(found, context, share, hold)

    def discard(self, plugin_id: str) -> None:
        """End the newest process of a plugin."""
        if self._children is not None:
            self._children.discard(plugin_id)

    async def close(self, timeout: float) -> None:
        """End every process that is left."""
        if self._children is not None:
            await self._children.close(timeout)
