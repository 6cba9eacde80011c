"""The security plugin."""

from __future__ import annotations

from typing import ClassVar

from openclaw_kernel.api import PluginContext, Registrar, hookimpl
from openclaw_plugins.security.methods import SecurityMethods


class SecurityPlugin:
    """Brings the checks, which run in the process of the command, and the method by which that has its fixes written down."""

    settings: ClassVar[None] = None

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @hookimpl
    def openclaw_register_methods(self, registrar: Registrar) -> None:
        registrar.add_methods(SecurityMethods(self._context))

    @hookimpl
    def openclaw_register_checks(self, registrar: Registrar) -> None:
        # Imported here: a gateway never runs them.
        from openclaw_plugins.security.catalogue import CHECKS

        for check in CHECKS:
            registrar.add_check(check)
