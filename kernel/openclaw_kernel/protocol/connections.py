"""The open connections: by id for the server, by principal for who may end them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Final

from openclaw_kernel.protocol.connection import Connection
from openclaw_kernel.protocol.handshake import Close

INVALIDATED: Final = 4001
AUTHORITIES_CHANGED: Final = "authorities-changed"
AUTH_CHANGED: Final = "gateway auth changed"
_ANSWER_SECONDS: Final = 0.25


class OpenConnections:
    """Implements the service `Connections`. A connection is added when its client is in, and removed when its socket is lost."""

    def __init__(self) -> None:
        self._connections: dict[str, Connection] = {}
        self._principals: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many clients are connected."""
        return len(self._connections)

    def __iter__(self) -> Iterator[Connection]:
        """Iterate over those that are open now."""
        return iter(list(self._connections.values()))

    def add(self, connection: Connection) -> None:
        """Count a client in."""
        self._connections[connection.connection_id] = connection
        self._principals[connection.principal] += 1

    def remove(self, connection: Connection) -> None:
        """Count a client out."""
        if self._connections.pop(connection.connection_id, None) is None:
            return
        self._principals[connection.principal] -= 1
        if not self._principals[connection.principal]:
            del self._principals[connection.principal]

    def are_open(self, principal: str, *, role: str | None = None) -> bool:
        """See `openclaw_kernel.api.Connections.are_open`."""
        if principal not in self._principals:
            return False
        return role is None or any(one.principal == principal and one.role == role for one in self)

    def grant_surface(self, principal: str, *, caps: Collection[str], commands: Collection[str]) -> None:
        """See `openclaw_kernel.api.Connections.grant_surface`."""
        for connection in self:
            if connection.principal == principal and connection.role == "node":
                connection.grant_surface(caps, commands)

    def expire(self, now_ms: int) -> None:
        """End the connections of those whose proof of identity has ended."""
        for connection in self:
            if connection.expires_ms is not None and connection.expires_ms <= now_ms and not connection.invalidated:
                connection.invalidated = True
                connection.outbound.close(Close(INVALIDATED, "client invalidated: identity-expired"))

    def ids(self) -> frozenset[str]:
        """Return who is connected now."""
        return frozenset(self._connections)

    def end_methods(self, methods: Collection[str], *, spared: Collection[str] = ()) -> int:
        """End those who came in by one of these methods, whose credential is none any more; return how many. `spared` are ids.

        Nothing that they ask from now on is done; who asked for the change still gets its answer.
        """
        ended = [one for one in self if one.method in methods and one.connection_id not in spared and not one.invalidated]
        for connection in ended:
            connection.invalidated = True
            asyncio.get_running_loop().call_later(_ANSWER_SECONDS, connection.outbound.close, Close(INVALIDATED, AUTH_CHANGED))
        return len(ended)

    def invalidate(self, principal: str, reason: str, *, role: str | None = None, answering: str | None = None) -> int:
        """See `openclaw_kernel.api.Connections.invalidate`."""
        close = Close(INVALIDATED, f"client invalidated: {reason}")
        ended = [one for one in self if one.principal == principal and role in {None, one.role}]
        for connection in ended:
            connection.invalidated = True
            if connection.connection_id == answering:
                asyncio.get_running_loop().call_later(_ANSWER_SECONDS, connection.outbound.close, close)
            else:
                connection.outbound.close(close)
        return len(ended)
