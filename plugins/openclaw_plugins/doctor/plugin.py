"""The doctor plugin."""

from __future__ import annotations

from typing import ClassVar

from openclaw_kernel.api import PluginContext, Registrar, hookimpl


class DoctorPlugin:
    """Brings the checks, which run in the process of the command."""

    settings: ClassVar[None] = None

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @hookimpl
    def openclaw_register_checks(self, registrar: Registrar) -> None:
        # Imported here: a gateway never runs them.
        from openclaw_plugins.doctor.catalogue import CHECKS

        for check in CHECKS:
            registrar.add_check(check)
