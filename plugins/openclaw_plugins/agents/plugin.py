"""The bundled agents plugin."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel

from openclaw_kernel.api import AgentRuntime, PluginContext, Registrar, hookimpl
from openclaw_plugins.agents.methods import AgentMethods
from openclaw_plugins.agents.runtime import Runtime
from openclaw_plugins.agents.settings import AgentsSettings


class AgentsPlugin:
    """Offers AgentRuntime, and the methods that show agents, models, tools and usage."""

    settings: ClassVar[type[BaseModel] | None] = AgentsSettings

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._runtime = Runtime(context)

    @hookimpl
    def openclaw_register_services(self, registrar: Registrar) -> None:
        registrar.provide(AgentRuntime, self._runtime)
        registrar.add_unit(self._runtime)

    @hookimpl
    def openclaw_register_methods(self, registrar: Registrar) -> None:
        registrar.add_methods(AgentMethods(self._context, self._runtime))
