"""Provider `local`: hook implementations."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel

from openclaw_kernel.api import PluginContext, Registrar, hookimpl
from openclaw_providers.local.settings import LocalSettings


class LocalPlugin:
    """Registers one provider for each of its entries in `models.providers`."""

    settings: ClassVar[type[BaseModel] | None] = LocalSettings

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @hookimpl
    def openclaw_register_providers(self, registrar: Registrar) -> None:
        """Register the providers; their worker processes begin with `start`."""
        from openclaw_providers.local.runtime import LocalProvider

        for provider_id, settings in self._context.instances(LocalSettings).items():
            registrar.add_provider(LocalProvider(provider_id, settings, self._context))
