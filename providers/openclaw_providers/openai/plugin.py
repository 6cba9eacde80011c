"""Registers one provider for each of the plugin's entries in `models.providers`."""

from __future__ import annotations

from typing import ClassVar

from openclaw_kernel.api import PluginContext, Registrar, hookimpl
from openclaw_providers.openai.runtime import OpenAIProvider
from openclaw_providers.openai.settings import OpenAISettings


class OpenAIPlugin:
    """The entry point."""

    settings: ClassVar[type[OpenAISettings]] = OpenAISettings

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @hookimpl
    def openclaw_register_providers(self, registrar: Registrar) -> None:
        """Add the configured instances."""
        for identity, settings in self._context.instances(OpenAISettings).items():
            registrar.add_provider(OpenAIProvider(identity, settings, self._context))
