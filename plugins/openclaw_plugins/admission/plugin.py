"""The bundled admission plugin: the last word on who may start a turn."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel

from openclaw_kernel.api import Admission, Config, InboundMessage, PluginContext, Registrar, Route, hookimpl
from openclaw_plugins.admission.rules import Policy, admit, read_policy


class AdmissionPlugin:
    """Decides every message that no other plugin decided; reads the config in force at each call."""

    settings: ClassVar[type[BaseModel] | None] = None

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._read: Config | None = None
        self._policies: dict[str, Policy] = {}

    @hookimpl
    def openclaw_register_services(self, registrar: Registrar) -> None:
        registrar.add_unit(self)

    @hookimpl(trylast=True)
    def openclaw_decide_admission(self, message: InboundMessage, route: Route) -> Admission | None:
        self._refresh()
        channel = message.target.channel
        return admit(message, self._policies.get(channel) or read_policy(channel, {}))

    async def start(self) -> None:
        """Report rules that cannot work before the first message meets them."""
        self._refresh()

    async def stop(self) -> None:
        """Nothing is held."""

    def _refresh(self) -> None:
        config = self._context.config
        if config is self._read:
            return
        self._policies = {channel: read_policy(channel, section) for channel, section in config.channels.items()}
        self._read = config
        faults = [fault for policy in self._policies.values() for fault in policy.faults()]
        self._context.degrade("; ".join(faults) or None)
