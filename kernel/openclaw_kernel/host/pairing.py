"""The pairing of devices as the handshake gets it: the plugin's service, guarded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from openclaw_kernel.api.errors import GatewayError, Unavailable
from openclaw_kernel.api.pairing import ApprovalNeeded, DeviceClaim, DeviceGrant, DevicePairing, SetupSpent, TokenVerdict
from openclaw_kernel.host.guard import Guard, PluginFault
from openclaw_kernel.host.registry import Owned, Registry

logger: Final = logging.getLogger(__name__)

SETTLE_SECONDS: Final = 10.0


class HostedPairing:
    """Implements `openclaw_kernel.api.DevicePairing`; every failure is a `GatewayError`, and lets nobody in."""

    def __init__(self, guard: Guard, owned: Owned[DevicePairing]) -> None:
        self._guard = guard
        self._owner = owned.plugin_id
        self._pairing = owned.item

    @classmethod
    def of(cls, registry: Registry, guard: Guard) -> HostedPairing | None:
        """The pairing that a plugin provides, None where none does."""
        owned = registry.services.get(DevicePairing)
        return None if owned is None else cls(guard, owned)  # type: ignore[arg-type]  # registered under its own Protocol

    def check_token(self, device_id: str, role: str, token: str, scopes: Sequence[str]) -> TokenVerdict:
        """Tell what a device token is worth."""
        try:
            return self._guard.call(
                self._owner, "check of a device token", lambda: self._pairing.check_token(device_id, role, token, scopes)
            )
        except PluginFault as fault:
            raise self._unavailable(fault) from fault

    def check_setup(self, token: str, role: str) -> bool:
        """Tell whether a bootstrap token is good for this role."""
        try:
            return self._guard.call(self._owner, "check of a bootstrap token", lambda: self._pairing.check_setup(token, role))
        except PluginFault as fault:
            raise self._unavailable(fault) from fault

    def recall(self, claim: DeviceClaim) -> DeviceGrant | None:
        """Return what the device may do, where that is known."""
        try:
            return self._guard.call(self._owner, "recall of a device", lambda: self._pairing.recall(claim))
        except PluginFault as fault:
            raise self._unavailable(fault) from fault

    async def settle(self, claim: DeviceClaim) -> ApprovalNeeded | SetupSpent | None:
        """Approve, or keep a request."""
        try:
            return await self._guard.run(self._owner, "pairing of a device", lambda: self._pairing.settle(claim), SETTLE_SECONDS)
        except PluginFault as fault:
            raise self._unavailable(fault) from fault

    def _unavailable(self, fault: PluginFault) -> GatewayError:
        if isinstance(fault.error, GatewayError):
            return fault.error
        logger.error("%s", fault, exc_info=fault.error)
        return Unavailable(f"devices cannot be paired now: the plugin {self._owner} failed; the log has the details", retryable=True)
