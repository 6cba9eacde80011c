"""What the protocol refuses, as the audit log is told of it: whoever proved nothing is `nobody`, whatever it calls itself."""

from __future__ import annotations

from typing import Final

from openclaw_kernel.api.audit import AuditAction, AuditEntry, AuditLog, AuditOrigin, trace_id_of
from openclaw_kernel.api.errors import Forbidden, GatewayError
from openclaw_kernel.api.methods import Client

_LONGEST_NAME: Final = 64
_PAIRING: Final = "PAIRING_REQUIRED"
_FOREIGN: Final = "CONTROL_UI_ORIGIN_NOT_ALLOWED"


class Refusals:
    """Tells the audit log, where there is one. Faults of form, and refusals that will be over soon, are none of its matter."""

    def __init__(self, log: AuditLog | None = None) -> None:
        self._log = log

    def foreign_origin(self, origin: str | None, address: str, *, surface: str) -> None:
        """A page of another origin was turned away; what it names stands for itself in the row, however many it names."""
        subject = None if origin is None else f"origin:{origin}"
        self._tell(AuditAction.ORIGIN_REFUSED, _nobody(surface, address), "missing" if origin is None else "not allowed", subject)

    def credential(self, reason: str, address: str, *, surface: str, device_id: str | None = None) -> None:
        """A credential did not hold. `device_id` is of a device that proved its key."""
        action = AuditAction.AUTH_LOCKED_OUT if reason == "rate_limited" else AuditAction.AUTH_REFUSED
        self._tell(action, _nobody(surface, address), reason, None if device_id is None else f"device:{device_id}")

    def handshake(self, error: GatewayError, address: str, *, device_id: str | None) -> None:
        """A handshake was refused."""
        details = error.details or {}
        code = details.get("code")
        # A request to be paired is a row of its own.
        if not isinstance(code, str) or code == _PAIRING:
            return
        if code == _FOREIGN:
            self.foreign_origin(None, address, surface="ws")
        elif "authReason" in details:
            self.credential(str(details["authReason"]), address, surface="ws", device_id=device_id)
        elif code.startswith("DEVICE_AUTH_"):
            self.credential(str(details.get("reason", code)), address, surface="ws")
        elif code.endswith("DEVICE_IDENTITY_REQUIRED"):
            self.credential("device identity required", address, surface="ws")

    def method(self, client: Client, method: str, error: GatewayError, traceparent: str | None, *, by_handler: bool = False) -> None:
        """A call was refused for want of a role or a scope; `by_handler`: the method itself found that it would give away too much."""
        details = error.details or {}
        if isinstance(error, Forbidden):
            lacking = details.get("missingScope")
            reason = str(details.get("code", "forbidden")) if lacking is None else f"missing scope {lacking}"
        elif error.message.startswith("unauthorized role"):
            lacking, reason = None, "unauthorized role"
        else:
            return
        origin = AuditOrigin(actor=client.principal, surface="ws", address=client.address, trace_id=trace_id_of(traceparent))
        action = AuditAction.GRANT_REFUSED if by_handler and lacking is not None else AuditAction.METHOD_REFUSED
        self._tell(action, origin, reason, f"method:{method[:_LONGEST_NAME]}")

    def page(self, reason: str, address: str) -> None:
        """A one-time code did not open the page."""
        self._tell(AuditAction.PAGE_REFUSED, _nobody("http", address), reason, None)

    def _tell(self, action: AuditAction, origin: AuditOrigin, reason: str, subject: str | None) -> None:
        if self._log is not None:
            self._log.refused(AuditEntry(action=action, origin=origin, outcome="refused", reason=reason, subject=subject))


def _nobody(surface: str, address: str) -> AuditOrigin:
    return AuditOrigin(actor="nobody", surface=surface, address=address)
