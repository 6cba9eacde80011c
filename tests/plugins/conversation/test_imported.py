"""Sessions of another gateway are taken up in small writes: once, from where it was cut off, and behind what people have here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from openclaw_kernel.api.imports import ImportedSession, mark_done, read_session, state_of, waiting, write_session
from openclaw_kernel.store.sqlite import SqliteStore
from openclaw_plugins.conversation import imported, sessions, transcript
from openclaw_plugins.conversation.tables import MIGRATIONS

KEY = "agent:main:main"


def session(**changes: Any) -> ImportedSession:
    known: dict[str, Any] = {"key": KEY, "agent_id": "main", "session_id": "s1", "created_ms": 5, "updated_ms": 9, "label": "L"}
    return ImportedSession(**{**known, **changes})


def messages(count: int) -> list[dict[str, Any]]:
    def message(number: int) -> dict[str, Any]:
        role = ("user", "assistant")[number % 2]
        return {"role": role, "content": [{"type": "text", "text": f"message {number}"}], "timestamp": number}

    return [message(number) for number in range(count)]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Any]:
    """A store with the plugin's tables, and its book of sessions."""
    store = SqliteStore(tmp_path / "state.sqlite3")
    await store.open({"conversation": MIGRATIONS})
    book = sessions.SessionBook(store, str(tmp_path))
    await book.open()
    yield SimpleNamespace(store=store, sessions=book, context=SimpleNamespace(home=tmp_path))
    await store.close()


async def texts(world: Any, session_id: str = "s1") -> list[str]:
    rows = await world.store.read(
        lambda connection: connection.execute(
            "SELECT body ->> '$.content[0].text' FROM conversation_messages WHERE session_id = ? ORDER BY seq", (session_id,)
        ).fetchall()
    )
    return [text for (text,) in rows]


async def test_a_session_is_taken_up_whole_and_once(world: Any, tmp_path: Path) -> None:
    write_session(tmp_path, session(), messages(250))
    assert (tmp_path / "imports" / "sessions").stat().st_mode & 0o777 == 0o700
    assert await imported.take_up(world) == 1
    assert await texts(world) == [f"message {number}" for number in range(250)]
    row = await world.sessions.get(KEY)
    assert (row.session_id, row.label, row.title, row.preview) == ("s1", "L", "message 0", "message 249")
    assert (state_of(tmp_path, "s1"), waiting(tmp_path)) == ("done", [])
    assert await imported.take_up(world) == 0
    assert world.sessions.summary("main", 9).count == 1


async def test_one_that_was_cut_off_goes_on_where_it_was(world: Any, tmp_path: Path) -> None:
    path = write_session(tmp_path, session(), messages(250))
    begun, some = read_session(path)
    await world.store.write(lambda connection: imported._open(connection, begun))
    first = imported._next(some)
    await world.store.write(lambda connection: imported._append(connection, begun, first[:70]))
    some.close()  # type: ignore[attr-defined]  # a generator
    assert await world.sessions.get(KEY) is None
    assert await imported.take_up(world) == 1
    assert await texts(world) == [f"message {number}" for number in range(250)]


async def test_who_talked_here_meanwhile_keeps_the_session_and_the_old_one_is_a_transcript(world: Any, tmp_path: Path) -> None:
    row, _ = await world.store.write(lambda connection: sessions.find_or_create(connection, KEY, "main", 1))
    write_session(tmp_path, session(), messages(2))
    assert await imported.take_up(world) == 1
    kept = await world.store.read(lambda connection: sessions.find(connection, KEY))
    assert kept == row
    assert len(await texts(world)) == 2
    assert await world.store.read(lambda connection: transcript.last_seq(connection, row.session_id)) == 0


async def test_a_file_that_is_no_session_harms_no_other(world: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_session(tmp_path, session(session_id="s0"), [])
    path.write_text('{"v": 2}\n')
    write_session(tmp_path, session(session_id="s2"), [{"role": "narrator", "content": []}])
    write_session(tmp_path, session(), messages(2))
    assert await imported.take_up(world) == 1
    assert len(await texts(world)) == 2
    assert len([record for record in caplog.records if "is not taken up" in record.message]) == 2
    assert state_of(tmp_path, "s0") == "waiting"


async def test_a_mark_stays_where_the_file_is_gone_already(tmp_path: Path) -> None:
    path = write_session(tmp_path, session(), [])
    mark_done(path)
    mark_done(path)
    assert state_of(tmp_path, "s1") == "done"
