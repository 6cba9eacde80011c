"""Registers one provider for each of the plugin's entries in `models.providers`."""

from __future__ import annotations

from typing import ClassVar

from openclaw_kernel.api import PluginContext, Registrar, hookimpl
from openclaw_providers.claude_cli.runtime import ClaudeCliProvider
from openclaw_providers.claude_cli.settings import ClaudeCliSettings


class ClaudeCliPlugin:
    """The entry point."""

    settings: ClassVar[type[ClaudeCliSettings]] = ClaudeCliSettings

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @hookimpl
    def openclaw_register_providers(self, registrar: Registrar) -> None:
        """Add the configured instances."""
        for identity, settings in self._context.instances(ClaudeCliSettings).items():
            registrar.add_provider(ClaudeCliProvider(identity, settings, self._context))
