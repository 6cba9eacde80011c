"""The calls that are under way on one instance of a plugin: what makes it possible to replace it without cutting one off."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from openclaw_kernel.api.errors import Unavailable

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class Calls:
    """Counts the calls of one instance. Until `open` nobody calls it: who looks it up waits."""

    def __init__(self, *, opened: bool = True) -> None:
        self._open = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._count = 0
        self._withdrawn = False
        if opened:
            self._open.set()

    @property
    def is_open(self) -> bool:
        """Whether it takes calls."""
        return self._open.is_set()

    @property
    def count(self) -> int:
        """How many are under way."""
        return self._count

    @property
    def withdrawn(self) -> bool:
        """Whether it was given up before it took a call."""
        return self._withdrawn

    def open(self) -> None:
        """Take calls from now on."""
        self._open.set()

    def hold(self) -> None:
        """Let new calls wait until it is opened again."""
        self._open.clear()

    def withdraw(self) -> None:
        """Let those who wait look again: this one will never take calls."""
        self._withdrawn = True
        self._open.set()

    async def opened(self) -> None:
        """Wait until it takes calls, or never will."""
        await self._open.wait()

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count one call."""
        self._count += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._idle.set()

    async def idle(self) -> None:
        """Wait until no call is under way."""
        await self._idle.wait()


class Counted(Protocol):
    """Something that belongs to an instance."""

    @property
    def calls(self) -> Calls: ...


CountedT = TypeVar("CountedT", bound=Counted)


async def in_force(lookup: Callable[[], CountedT | None]) -> CountedT | None:
    """Return what is looked up once it takes calls; what was given up meanwhile is looked up again."""
    while (found := lookup()) is not None and not found.calls.is_open:
        await found.calls.opened()
    return found


def counted(calls: Calls, plugin_id: str, function: FunctionT) -> FunctionT:
    """Return the async function with each of its calls counted; one of another kind as it is."""
    if not inspect.iscoroutinefunction(function):
        return function

    @functools.wraps(function)
    async def call(*arguments: Any) -> Any:
        if not calls.is_open:
            await calls.opened()
        if calls.withdrawn:
            raise Unavailable(f"plugin {plugin_id!r} was being replaced, and that failed; ask again", retryable=True)
        with calls.call():
            return await function(*arguments)

    return call  # type: ignore[return-value]  # of the same signature
