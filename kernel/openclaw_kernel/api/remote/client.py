"""A client that is opened by the first call and closed at stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Closes(Protocol):
    """What is closed when nobody needs it any more."""

    async def close(self) -> None:
        """Give back connections and descriptors."""


ClientT = TypeVar("ClientT", bound=Closes)


class OpenedOnce(Generic[ClientT]):
    """One client, made by `make` in a thread of its own when it is first asked for: importing an SDK would hold the loop."""

    def __init__(self, make: Callable[[], ClientT]) -> None:
        self._make = make
        self._client: ClientT | None = None
        self._opening = asyncio.Lock()

    async def get(self) -> ClientT:
        """Return the client; who asks while it is being made waits for the same one. Raise what `make` raises."""
        async with self._opening:
            if self._client is None:
                self._client = await asyncio.to_thread(self._make)
            return self._client

    async def close(self) -> None:
        """Close the client, where there is one; safe to call twice."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()
