"""The bundled routing plugin: the last word on agent and session."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel

from openclaw_kernel.api import Config, InboundMessage, PluginContext, Registrar, Route, hookimpl
from openclaw_plugins.routing.rules import problems, route


class RoutingPlugin:
    """Decides every message that no other plugin decided; reads the config in force at each call."""

    settings: ClassVar[type[BaseModel] | None] = None

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._checked: Config | None = None

    @hookimpl
    def openclaw_register_services(self, registrar: Registrar) -> None:
        registrar.add_unit(self)

    @hookimpl(trylast=True)
    def openclaw_decide_route(self, message: InboundMessage) -> Route | None:
        self._check()
        return route(message, self._context.config)

    async def start(self) -> None:
        """Report bindings that cannot work before the first message meets them."""
        self._check()

    async def stop(self) -> None:
        """Nothing is held."""

    def _check(self) -> None:
        config = self._context.config
        if config is not self._checked:
            self._checked = config
            self._context.degrade("; ".join(problems(config)) or None)
