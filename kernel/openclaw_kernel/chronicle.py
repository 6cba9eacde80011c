"""What the gateway writes into the audit log about itself: its life, its plugins, and who was let in by the word of somebody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openclaw_kernel.api.audit import BY_GATEWAY, AuditAction, AuditEntry, AuditOrigin
from openclaw_kernel.api.services import PluginState, PluginStatus
from openclaw_kernel.protocol.arrivals import shown_names
from openclaw_kernel.protocol.auth import CERTIFICATE, IDENTITY, TRUSTED_PROXY

if TYPE_CHECKING:
    from openclaw_kernel.audit.trail import AuditTrail
    from openclaw_kernel.protocol.connection import Connection
    from openclaw_kernel.protocol.proxy import Arrival

_TOLD: Final = frozenset({PluginState.FAILED, PluginState.DEGRADED})
_VOUCHED: Final = frozenset({CERTIFICATE, TRUSTED_PROXY, IDENTITY})


class Chronicle:
    """Notes rows that stand in no write of their own."""

    def __init__(self, audit: AuditTrail, *, version: str, boot_id: str) -> None:
        self._audit = audit
        self._details = {"version": version, "bootId": boot_id}

    def life(self, action: AuditAction, reason: str | None) -> None:
        """The gateway started, or stops."""
        self._audit.note(AuditEntry(action=action, origin=BY_GATEWAY, subject="gateway", reason=reason, details=dict(self._details)))

    def plugin(self, status: PluginStatus, *, serving: bool) -> None:
        """A plugin changed its state; that all start and all stop is what the gateway's own rows say."""
        if serving or status.state in _TOLD:
            details = {"version": status.version, "why": status.reason}
            subject, state = f"plugin:{status.id}", status.state.value
            self._audit.note(AuditEntry(action=AuditAction.PLUGIN_STATE, origin=BY_GATEWAY, subject=subject, reason=state, details=details))

    def admitted(self, connection: Connection) -> None:
        """Somebody was let in; a row where a certificate, a proxy or an authenticator said who it is."""
        if connection.method not in _VOUCHED:
            return
        origin = AuditOrigin(actor=connection.principal, surface="ws", address=connection.address)
        details = {"method": connection.method, "scopes": sorted(connection.scopes)}
        self._audit.note(AuditEntry(action=AuditAction.IDENTITY_ADMITTED, origin=origin, subject=connection.principal, details=details))

    def not_believed(self, arrival: Arrival) -> None:
        """A proxy that is none sent headers of one."""
        origin = AuditOrigin(actor="nobody", surface="http", address=arrival.peer)
        details = {"headers": shown_names(arrival)}
        self._audit.refused(AuditEntry(action=AuditAction.PROXY_HEADERS_IGNORED, origin=origin, reason=arrival.said.value, details=details))
