"""Who needs an approval, what is granted, and who may give it: pure functions over records."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from openclaw_kernel.api import (
    ALL_SCOPES,
    Client,
    DeviceClaim,
    Forbidden,
    InvalidRequest,
    PairingReason,
    Scope,
    device_of,
    effective_scopes,
)
from openclaw_plugins.pairing.records import About, Device, Request, Token

OPERATOR: Final = "operator"
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


def granted(asked: tuple[str, ...], limit: tuple[str, ...]) -> tuple[str, ...]:
    """Narrow what was approved to what is asked; who names nothing gets nothing."""
    held = effective_scopes(limit)
    return tuple(scope for scope in asked if scope in held)


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


def refuse_beyond(caller: Client, device_id: str, role: str, scopes: Iterable[str] = ()) -> None:
    """Raise unless the caller may manage this role of this device and hand out these scopes: never more than its own."""
    unknown = sorted(set(scopes) - ALL_SCOPES)
    if unknown:
        raise InvalidRequest(f"scopes: there is no scope {unknown[0][:64]!r}; known are {', '.join(sorted(ALL_SCOPES))}")
    if not caller.has(Scope.PAIRING):
        # It was there when the call began: the connection was ended meanwhile.
        raise _missing(Scope.PAIRING, "the right to manage devices was taken away")
    if not caller.has(Scope.ADMIN):
        own = device_of(caller.principal)
        if own is not None and own != device_id:
            raise _missing(Scope.ADMIN, "a device without operator.admin manages only itself")
        if role != OPERATOR:
            raise _missing(Scope.ADMIN, f"the role {role[:64]!r} is given and taken by operator.admin only")
    for scope in sorted(set(scopes)):
        if not caller.has(Scope(scope)):
            raise _missing(Scope(scope), "nobody hands out more than it has")


def _missing(scope: Scope, why: str) -> Forbidden:
    details = {"code": "MISSING_SCOPE", "missingScope": scope.value, "requiredScopes": [scope.value]}
    return Forbidden(f"missing scope: {scope.value}; {why}", details=details)


def _plain(text: str | None) -> str:
    return (text or "").strip().lower()


def _platform(text: str) -> str:
    first = _plain(text).partition(" ")[0]
    return _SAME_PLATFORM.get(first, first)
