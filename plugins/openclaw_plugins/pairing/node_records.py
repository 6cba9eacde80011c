"""What a node says it can do, and what of it a person approved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from openclaw_kernel.api import DeviceClaim, Scope
from openclaw_plugins.pairing.records import LONGEST_PENDING_MS, PENDING_MS, printable

_MOST_NAMES: Final = 256
_LONGEST_NAME: Final = 128
_DANGEROUS: Final = (
    "system.run",
    "system.run.prepare",
    "system.which",
    "browser.proxy*",
    "fs.listDir",
    "system.execApprovals.*",
)


@dataclass(frozen=True, slots=True)
class Surface:
    """Names of what a node has, can be told to do, and is permitted by its system."""

    caps: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()

    @classmethod
    def of(cls, claim: DeviceClaim) -> Surface:
        """What a claim declares, made short and printable; of permissions those that are given."""
        given = [name for name, is_given in claim.permissions.items() if is_given]
        return cls(_names(claim.caps), _names(claim.commands), _names(given))

    def within(self, limit: Surface) -> Surface:
        """What of it lies within the limit."""
        return Surface(_both(self.caps, limit.caps), _both(self.commands, limit.commands), _both(self.permissions, limit.permissions))


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node whose surface a person approved."""

    node_id: str
    surface: Surface
    created_ms: int
    approved_ms: int
    generation: int
    version: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRequest:
    """A node whose surface waits for a person; what was declared under one id never changes."""

    request_id: str
    node_id: str
    surface: Surface
    version: str | None
    model: str | None
    created_ms: int
    refreshed_ms: int

    @property
    def expires_ms(self) -> int:
        """Until when it waits, once the node has left."""
        return min(self.refreshed_ms + PENDING_MS, self.created_ms + LONGEST_PENDING_MS)


def scopes_to_approve(surface: Surface) -> tuple[str, ...]:
    """What whoever approves a surface must have."""
    if any(fnmatchcase(command, pattern) for command in surface.commands for pattern in _DANGEROUS):
        return (Scope.PAIRING.value, Scope.ADMIN.value)
    return (Scope.PAIRING.value, Scope.WRITE.value) if surface.commands else (Scope.PAIRING.value,)


def _names(texts: Iterable[str]) -> tuple[str, ...]:
    # One that would have to be cut short is another name by then.
    plain = {text for text in texts if text == printable(text) and 0 < len(text) <= _LONGEST_NAME}
    return tuple(sorted(plain)[:_MOST_NAMES])


def _both(names: tuple[str, ...], limit: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name in limit)
