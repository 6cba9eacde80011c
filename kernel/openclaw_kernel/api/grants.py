"""What may be handed on: rights only narrow on their way, and nobody gives more than it has. Pure functions, and the only ones for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from openclaw_kernel.api.errors import Forbidden, InvalidRequest
from openclaw_kernel.api.methods import Client, Scope
from openclaw_kernel.api.pairing import device_of
from openclaw_kernel.api.scopes import ALL_SCOPES, effective_scopes

_OPERATOR: Final = "operator"


def narrowed(asked: Iterable[str], limit: Iterable[str]) -> tuple[str, ...]:
    """Of what is asked, that which the limit amounts to; who names nothing gets nothing, and so does who may have nothing.

    What lies within the limit stays as it was asked; a scope beyond it gives way to those that it implies and the limit has.
    """
    most = effective_scopes(limit)
    given: dict[str, None] = {}
    for scope in asked:
        given.update(dict.fromkeys([scope] if scope in most else sorted(effective_scopes([scope]) & most)))
    return tuple(given)


def refuse_beyond(caller: Client, device_id: str, role: str, scopes: Iterable[str] = ()) -> None:
    """Raise unless the caller may manage this role of this device and hand out these scopes: never more than its own."""
    handed_out = set(scopes)
    unknown = sorted(handed_out - ALL_SCOPES)
    if unknown:
        raise InvalidRequest(f"scopes: there is no scope {unknown[0][:64]!r}; known are {', '.join(sorted(ALL_SCOPES))}")
    if not caller.has(Scope.PAIRING):
        # It was there when the call began: the connection was ended meanwhile.
        raise _missing(Scope.PAIRING, "the right to manage devices was taken away")
    if not caller.has(Scope.ADMIN):
        own = device_of(caller.principal)
        if own is not None and own != device_id:
            raise _missing(Scope.ADMIN, "a device without operator.admin manages only itself")
        if role != _OPERATOR:
            raise _missing(Scope.ADMIN, f"the role {role[:64]!r} is given and taken by operator.admin only")
    for scope in sorted(handed_out):
        if not caller.has(Scope(scope)):
            raise _missing(Scope(scope), "nobody hands out more than it has")


def _missing(scope: Scope, why: str) -> Forbidden:
    """The refusal of who lacks a scope, in the protocol's words."""
    details = {"code": "MISSING_SCOPE", "missingScope": scope.value, "requiredScopes": [scope.value]}
    return Forbidden(f"missing scope: {scope.value}; {why}", details=details)
