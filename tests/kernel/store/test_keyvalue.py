"""Small values, each plugin's its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from openclaw_kernel.store.keyvalue import StoredKeyValue
from openclaw_kernel.store.sqlite import SqliteStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "state.sqlite3")
    await opened.open({})
    yield opened
    await opened.close()


async def test_a_value_is_kept_replaced_and_removed(store: SqliteStore) -> None:
    values = StoredKeyValue(store, "bells")
    assert await values.get("key") is None
    await values.put("key", "one")
    await values.put("key", "zwei ☃")
    assert await values.get("key") == "zwei ☃"
    await values.remove("key")
    await values.remove("key")
    assert await values.get("key") is None


async def test_one_plugin_does_not_see_anothers(store: SqliteStore) -> None:
    bells, other = StoredKeyValue(store, "bells"), StoredKeyValue(store, "other")
    await bells.put("key", "mine")
    await other.remove("key")
    assert (await bells.get("key"), await other.get("key")) == ("mine", None)


async def test_values_outlive_the_store(store: SqliteStore) -> None:
    await StoredKeyValue(store, "bells").put("key", "kept")
    await store.close()
    again = SqliteStore(store.path)
    await again.open({})
    assert await StoredKeyValue(again, "bells").get("key") == "kept"
    await again.close()


async def test_a_value_over_64_kib_is_refused(store: SqliteStore) -> None:
    values = StoredKeyValue(store, "bells")
    await values.put("key", "x" * 65_536)
    with pytest.raises(ValueError, match="bells: the value of 'key' has 65538 bytes, the limit is 65536"):
        await values.put("key", "é" * 32_769)
