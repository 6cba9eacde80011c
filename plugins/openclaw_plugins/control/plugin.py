"""The control plugin."""

from __future__ import annotations

from typing import ClassVar

from openclaw_kernel.api import PluginContext, Registrar, hookimpl
from openclaw_plugins.control.config_history import ConfigHistoryMethods
from openclaw_plugins.control.config_methods import ConfigMethods
from openclaw_plugins.control.config_reload import ReloadMethods
from openclaw_plugins.control.config_tool import config_tool
from openclaw_plugins.control.methods import ChannelMethods, SystemMethods
from openclaw_plugins.control.plugins import PluginMethods
from openclaw_plugins.control.restart import RestartMethods


class ControlPlugin:
    """Registers the control methods."""

    settings: ClassVar[None] = None

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @hookimpl
    def openclaw_register_methods(self, registrar: Registrar) -> None:
        """Register health, status, presence, config, channels, commands, plugins, log and restart."""
        for kind in (SystemMethods, ConfigMethods, ConfigHistoryMethods, ReloadMethods, ChannelMethods, PluginMethods, RestartMethods):
            registrar.add_methods(kind(self._context))

    @hookimpl
    def openclaw_register_tools(self, registrar: Registrar) -> None:
        """Register the tool `config`, switched off: an agent's `tools.allow` has to name it."""
        registrar.add_tool(config_tool(self._context))
