"""The plugin's hooks."""

from __future__ import annotations

from typing import ClassVar

from openclaw_irc.runtime import IrcChannel
from openclaw_irc.settings import IrcSettings
from openclaw_kernel.api import PluginContext, Registrar, hookimpl


class IrcPlugin:
    """Registers the channel `irc`."""

    settings: ClassVar[type[IrcSettings]] = IrcSettings

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @hookimpl
    def openclaw_register_channels(self, registrar: Registrar) -> None:
        """Register the channel."""
        registrar.add_channel(IrcChannel(self._context, self._context.settings(IrcSettings)))
