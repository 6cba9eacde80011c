"""Who needs an approval, and what one covers: pure functions over records."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from openclaw_kernel.api import DeviceClaim, PairingReason, effective_scopes
from openclaw_plugins.pairing.records import About, Device, Request, Token

OPERATOR: Final = "operator"
NODE: Final = "node"
_SAME_PLATFORM: Final = {"darwin": "macos", "win32": "windows"}


def needed(device: Device | None, claim: DeviceClaim) -> PairingReason | None:
    """Say why a person has to approve what is asked, None where it was approved."""
    if device is None or device.public_key != claim.public_key:
        return "not-paired"
    if not same_device(device.about, About.of(claim)):
        return "metadata-upgrade"
    role = device.roles.get(claim.role)
    if role is None or role.revoked_ms is not None:
        return "role-upgrade"
    return None if set(claim.scopes) <= effective_scopes(role.scopes) else "scope-upgrade"


def same_device(pinned: About, claimed: About) -> bool:
    """Compare platform and family; what follows the platform's name is its version, and may change."""
    if pinned.device_family is not None and _plain(pinned.device_family) != _plain(claimed.device_family):
        return False
    return _platform(pinned.platform) == _platform(claimed.platform)


def may_be_silent(claim: DeviceClaim, device: Device | None, *, policy: Literal["auto", "ask"], was_removed: bool) -> bool:
    """Decide whether nobody is asked: the one exception for programs of this machine, which know the gateway's secret.

    What a person took away comes back only through a person.
    """
    role = None if device is None else device.roles.get(claim.role)
    taken_away = was_removed or (role is not None and role.revoked_ms is not None)
    return policy == "auto" and claim.local_secret and claim.role == OPERATOR and not taken_away


def covers(token: Token, scopes: Iterable[str]) -> bool:
    """Tell whether a token is good for these scopes."""
    return token.scopes is None or set(scopes) <= effective_scopes(token.scopes)


def same_request(request: Request, other: Request) -> bool:
    """Tell whether a person who approves the one has approved the other."""
    return (
        (request.device_id, request.role, request.reason) == (other.device_id, other.role, other.reason)
        and set(request.scopes) == set(other.scopes)
        and _platform(request.about.platform) == _platform(other.about.platform)
        and _plain(request.about.device_family) == _plain(other.about.device_family)
    )


def _plain(text: str | None) -> str:
    return (text or "").strip().lower()


def _platform(text: str) -> str:
    first = _plain(text).partition(" ")[0]
    return _SAME_PLATFORM.get(first, first)
