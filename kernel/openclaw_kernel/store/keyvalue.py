"""Small durable values of one plugin, in the kernel's table `kernel_key_value`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from openclaw_kernel.api.store import Store

VALUE_LIMIT_BYTES: Final = 64 * 1024

_PUT: Final = "INSERT INTO kernel_key_value VALUES (?, ?, ?) ON CONFLICT (owner, key) DO UPDATE SET value = excluded.value"
_REMOVE: Final = "DELETE FROM kernel_key_value WHERE owner = ? AND key = ?"


class StoredKeyValue:
    """Implements `openclaw_kernel.api.KeyValue` for one owner; others cannot see its keys."""

    def __init__(self, store: Store, owner: str) -> None:
        self._store = store
        self._owner = owner

    async def get(self, key: str) -> str | None:
        """Return the value, None where there is none."""

        def select(connection: sqlite3.Connection) -> str | None:
            where = (self._owner, key)
            row = connection.execute("SELECT value FROM kernel_key_value WHERE owner = ? AND key = ?", where).fetchone()
            return None if row is None else str(row[0])

        return await self._store.read(select)

    async def put(self, key: str, value: str) -> None:
        """Keep the value; raise `ValueError` over 64 KiB of UTF-8."""
        await self._store.write(self.putting(key, value))

    def putting(self, key: str, value: str) -> Callable[[sqlite3.Connection], None]:
        """Return what keeps the value inside a write of the caller's own; raise `ValueError` over 64 KiB of UTF-8."""
        size = len(value.encode())
        if size > VALUE_LIMIT_BYTES:
            raise ValueError(
                f"{self._owner}: the value of {key!r} has {size} bytes, the limit is {VALUE_LIMIT_BYTES};"
                " keep larger ones in tables of its own"
            )
        return lambda connection: _run(connection, _PUT, (self._owner, key, value))

    async def remove(self, key: str) -> None:
        """Forget the value, where there is one."""
        await self._store.write(lambda connection: _run(connection, _REMOVE, (self._owner, key)))


def _run(connection: sqlite3.Connection, statement: str, parameters: tuple[str, ...]) -> None:
    connection.execute(statement, parameters)
