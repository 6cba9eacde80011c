"""One change at a time, none left half done, and none made for somebody who may no longer make it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from openclaw_kernel.api import GatewayError, InvalidRequest, PluginContext, Unavailable

ValueT = TypeVar("ValueT")
Allowed = Callable[[], None]
"""Raises where the caller may not; asked again when the change is made, for its right may be gone by then."""


class Changes:
    """The order of changes, and whether any are made."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self.lock = asyncio.Lock()
        """Held by the change that is being made."""
        self.is_open = False

    def must_be_open(self) -> None:
        """Raise `Unavailable` where the devices are not read yet, or no longer kept."""
        if not self.is_open:
            raise Unavailable("devices cannot be paired now: the plugin pairing does not run", retryable=True)

    async def make(self, name: str, change: Callable[[], Coroutine[Any, Any, ValueT]], allowed: Allowed = lambda: None) -> ValueT:
        """Make a change alone; raise what `allowed` or the change raises in the protocol's words."""

        async def alone() -> ValueT | GatewayError:
            async with self.lock:
                try:
                    allowed()
                    return await change()
                except GatewayError as error:
                    return error

        self.must_be_open()
        # A caller that gives up must not leave disk and memory apart.
        answer: ValueT | GatewayError = await asyncio.shield(self._context.spawn(name, alone()))
        if isinstance(answer, GatewayError):
            raise answer
        return answer


def there(value: ValueT | None, what: str) -> ValueT:
    """The value; raise `InvalidRequest` where it is gone since it was asked for."""
    if value is None:
        raise InvalidRequest(f"unknown {what}: somebody else decided on it just now; see device.pair.list")
    return value
