"""What clients see of the plugins (methods, events, routes) follows when plugins come and go."""

from __future__ import annotations

from collections.abc import Callable

from openclaw_kernel.host.inforce import Swap
from openclaw_kernel.host.registry import Registry
from openclaw_kernel.http import PluginRoutes
from openclaw_kernel.protocol.events import EventRegistry
from openclaw_kernel.protocol.registry import MethodRegistry


class LiveSurface:
    """The three tables that were made when the gateway started. `changed` is called on the loop after each swap."""

    def __init__(self, methods: MethodRegistry, events: EventRegistry, routes: PluginRoutes, *, changed: Callable[[], None]) -> None:
        self._methods = methods
        self._events = events
        self._routes = routes
        self._changed = changed

    def build(self, registry: Registry) -> Swap:
        """Make the tables anew; return what puts them in force. Raise `ValueError` where one cannot be made."""
        methods, events = MethodRegistry(registry.methods), EventRegistry(registry.events)
        routes = self._routes.build(registry.routes)

        def swap() -> None:
            self._methods.become(methods)
            self._events.become(events)
            self._routes.use(routes)
            self._changed()

        return swap
