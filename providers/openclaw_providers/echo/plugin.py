"""Registers one echo provider for each of its entries in `models.providers`."""

from __future__ import annotations

from typing import ClassVar

from openclaw_kernel.api import PluginContext, Registrar, hookimpl
from openclaw_providers.echo.runtime import EchoProvider
from openclaw_providers.echo.settings import EchoSettings


class EchoPlugin:
    """The entry point."""

    settings: ClassVar[type[EchoSettings]] = EchoSettings

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @hookimpl
    def openclaw_register_providers(self, registrar: Registrar) -> None:
        """Add the configured instances."""
        for identity, settings in self._context.instances(EchoSettings).items():
            registrar.add_provider(EchoProvider(identity, settings))
