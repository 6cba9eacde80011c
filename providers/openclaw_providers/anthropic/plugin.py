"""Registers one provider for each of the plugin's entries in `models.providers`."""

from __future__ import annotations

from typing import ClassVar

from openclaw_kernel.api import PluginContext, Registrar, hookimpl
from openclaw_providers.anthropic.runtime import AnthropicProvider
from openclaw_providers.anthropic.settings import AnthropicSettings


class AnthropicPlugin:
    """The entry point."""

    settings: ClassVar[type[AnthropicSettings]] = AnthropicSettings

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @hookimpl
    def openclaw_register_providers(self, registrar: Registrar) -> None:
        """Add the configured instances."""
        for identity, settings in self._context.instances(AnthropicSettings).items():
            registrar.add_provider(AnthropicProvider(identity, settings, self._context))
