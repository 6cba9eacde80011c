"""Items on their way from a plugin's iterator, which runs in a task of its own, to whoever reads them."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterator
from typing import Final, Generic, TypeVar

ItemT = TypeVar("ItemT")

AHEAD: Final = 64
"""How many items an iterator may be ahead of its reader."""


class Flow(Generic[ItemT]):
    """A bounded channel from one task to one reader. `async for` over it ends when the filling task has ended."""

    def __init__(self) -> None:
        self._items: deque[ItemT] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._ended = False

    async def fill(self, iterator: AsyncIterator[ItemT]) -> None:
        """Take the iterator's items until it ends, waiting while the reader is behind."""
        while True:
            try:
                item = await anext(iterator)
            except StopAsyncIteration:
                return
            self._items.append(item)
            self._changed.set()
            while len(self._items) >= AHEAD:
                self._room.clear()
                await self._room.wait()

    def ended(self, _task: asyncio.Task[None]) -> None:
        """Note that no more will come."""
        self._ended = True
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[ItemT]:
        """Yield the items in order."""
        while self._items or not self._ended:
            while self._items:
                self._room.set()
                yield self._items.popleft()
            self._changed.clear()
            if not self._ended:
                await self._changed.wait()


def is_exhausted(iterator: AsyncIterator[object]) -> bool:
    """Tell whether an asynchronous generator has run to its end, so that there is nothing to close."""
    return inspect.isasyncgen(iterator) and iterator.ag_frame is None
