"""The plugin host. Only `PluginHost` is taken from here, and only when it is needed: listing plugins must stay quick."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openclaw_kernel.host.host import PluginHost

__all__ = ["PluginHost"]


def __getattr__(name: str) -> Any:
    # `openclaw_kernel.host.discovery` imports this package first, and must not pay for pluggy and stevedore.
    if name == "PluginHost":
        from openclaw_kernel.host.host import PluginHost

        return PluginHost
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
