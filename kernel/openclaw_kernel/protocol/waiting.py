"""What a device is told that waits for a person."""

from __future__ import annotations

from typing import Any, Final

from openclaw_kernel.api.errors import NotPaired
from openclaw_kernel.api.pairing import ApprovalNeeded, DeviceClaim, PairingReason

_ONE_SHOT: Final = frozenset({"cli", "probe", "test"})
_TOO_MANY: Final = "too many devices wait for approval; approve or reject some (openclaw-kernel devices list), then connect again"
_REQUIREMENTS: Final[dict[PairingReason, str]] = {
    "not-paired": "device is not approved yet",
    "role-upgrade": "device asks for a role that it is not approved for",
    "scope-upgrade": "device asks for more scopes than it is approved for",
    "metadata-upgrade": "device is not what it was when it was approved",
}


def pairing_required(claim: DeviceClaim, needed: ApprovalNeeded, no_request: str = _TOO_MANY) -> NotPaired:
    """The refusal of a device that waits for a person; `no_request` says why it does not."""
    details: dict[str, Any] = {
        "code": "PAIRING_REQUIRED",
        "reason": needed.reason,
        "deviceId": claim.device_id,
        "requestedRole": claim.role,
        "requestedScopes": list(claim.scopes),
    }
    if needed.approved_roles:
        details |= {"approvedRoles": list(needed.approved_roles), "approvedScopes": list(needed.approved_scopes)}
    if needed.request_id is None:
        return NotPaired(f"pairing required: {no_request}", details=details | {"remediationHint": no_request})
    details |= {
        "requestId": needed.request_id,
        "remediationHint": f"run `openclaw-kernel devices approve {needed.request_id}` where the gateway runs, then connect again",
    }
    if claim.client_mode in _ONE_SHOT:
        details["pauseReconnect"] = True
    else:
        # It comes back by itself, and is in once somebody has approved it.
        details |= {"recommendedNextStep": "wait_then_retry", "pauseReconnect": False}
    return NotPaired(f"pairing required: {_REQUIREMENTS[needed.reason]}", details=details)
