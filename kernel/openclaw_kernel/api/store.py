"""The store as plugins see it: one writer, group commit, numbered migrations."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from sqlite_utils import Database

ValueT = TypeVar("ValueT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One step of a plugin's table space. Numbers start at 1 without holes; a released step never changes.

    `apply` runs inside a transaction; the plugin's tables carry its id as prefix (`conversation_inbound`). It only adds: tables,
    indexes, and columns with a default, so that the version before can still read and write. It is part of the start, so it does
    nothing that takes longer the more history there is.
    """

    number: int
    name: str
    apply: Callable[[Database], object]
    batch: Callable[[sqlite3.Connection], bool] | None = None
    """What takes long: filling what `apply` added, in parts. It is called once the gateway serves, each time in a write of its own, until
    it returns False, and after a restart again. Whoever reads copes with what is not filled yet."""


class Store(Protocol):
    """Durable state. A work function gets the connection inside a transaction and must not keep it."""

    async def write(self, work: Callable[[sqlite3.Connection], ValueT]) -> ValueT:
        """Run on the writing thread; return once the transaction is on disk. An exception undoes this work only."""
        ...

    async def read(self, work: Callable[[sqlite3.Connection], ValueT]) -> ValueT:
        """Run on a read-only connection."""
        ...


class KeyValue(Protocol):
    """Small durable values of one plugin (up to 64 KiB each)."""

    async def get(self, key: str) -> str | None: ...
    async def put(self, key: str, value: str) -> None: ...
    async def remove(self, key: str) -> None: ...
