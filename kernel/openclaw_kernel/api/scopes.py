"""Which scope implies which. The table is closed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from openclaw_kernel.api.methods import Scope

ALL_SCOPES: Final = frozenset(scope.value for scope in Scope)

_IMPLIED: Final[dict[str, frozenset[str]]] = {
    Scope.ADMIN.value: ALL_SCOPES,
    Scope.WRITE.value: frozenset({Scope.READ.value, Scope.TALK.value, Scope.SESSIONS_READ.value, Scope.SESSIONS_WRITE.value}),
    Scope.READ.value: frozenset({Scope.SESSIONS_READ.value}),
    Scope.SESSIONS_WRITE.value: frozenset({Scope.SESSIONS_READ.value}),
}


def effective_scopes(granted: Iterable[str]) -> frozenset[str]:
    """All scopes that the granted ones amount to; unknown names grant nothing."""
    held: set[str] = set()
    for scope in granted:
        if scope in ALL_SCOPES:
            held.add(scope)
            held |= _IMPLIED.get(scope, frozenset())
    return frozenset(held)
