"""The audit plugin."""

from __future__ import annotations

from typing import ClassVar

from openclaw_kernel.api import PluginContext, Registrar, hookimpl
from openclaw_plugins.audit.methods import AuditMethods


class AuditPlugin:
    """Registers the methods that read the audit log; it is written by the kernel, whether this plugin runs or not."""

    settings: ClassVar[None] = None

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @hookimpl
    def openclaw_register_methods(self, registrar: Registrar) -> None:
        """Register audit.log.list and audit.log.verify."""
        registrar.add_methods(AuditMethods(self._context))
