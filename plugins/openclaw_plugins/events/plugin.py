"""The events plugin."""

from __future__ import annotations

from typing import ClassVar

from openclaw_kernel.api import PluginContext, Registrar, hookimpl
from openclaw_plugins.events.methods import EventMethods


class EventsPlugin:
    """Registers the methods that follow events by cursor."""

    settings: ClassVar[None] = None

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @hookimpl
    def openclaw_register_methods(self, registrar: Registrar) -> None:
        """Register events.subscribe and events.unsubscribe."""
        registrar.add_methods(EventMethods(self._context))
