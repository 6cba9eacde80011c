"""Accepted configs: numbered, with their bytes and their row of the audit log, or not at all."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from openclaw_config.load import Loaded, load
from openclaw_kernel.api.audit import AuditFilter, AuditOrigin
from openclaw_kernel.api.config import Change
from openclaw_kernel.api.errors import InvalidRequest, Unavailable
from openclaw_kernel.audit.trail import AuditTrail
from openclaw_kernel.generations import GenerationFiles, Generations, LastGood, table
from openclaw_kernel.generations import files as files_module
from openclaw_kernel.generations.files import KEPT, REJECTED_KEPT, NotKept
from openclaw_kernel.store.sqlite import SqliteStore
from openclaw_kernel.testing import FakeClock

PERSON = Change(origin=AuditOrigin(actor="device:d1", surface="ws"), reason="a new port")


def config(home: Path, text: str) -> Loaded:
    """The file with this text, loaded."""
    (home / "openclaw.yaml").write_text(text, encoding="utf-8")
    return load(home / "openclaw.yaml", environment={})


class Book:
    """Generations over a real store."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.clock = FakeClock()
        self.store = SqliteStore(home / "state.sqlite3")
        self.audit = AuditTrail(self.store, home=home, now_ms=self.clock.now_ms)
        self.generations = self.anew()

    def anew(self) -> Generations:
        """As the next start has it."""
        return Generations(self.home, self.store, self.audit, now_ms=self.clock.now_ms)

    async def rows(self) -> list[dict[str, Any]]:
        """The audit log's rows about configs."""
        page = await self.audit.page(AuditFilter(action="config"), behind=None, limit=500, oldest_first=True)
        return [dict(row) for row in page.rows]


@pytest.fixture
async def book(tmp_path: Path) -> AsyncIterator[Book]:
    book = Book(tmp_path)
    await book.store.open({})
    await book.audit.open()
    yield book
    await book.audit.close()
    await book.store.close()


async def test_a_generation_has_number_author_reason_hash_and_changed_keys_and_the_audit_log_has_it_too(book: Book) -> None:
    first = config(book.home, "gateway: {port: 1}\n")
    await book.generations.take_start(first)
    book.clock.advance(5)
    second = config(book.home, "gateway: {port: 2}\n")
    made = await book.generations.take(second, PERSON, ["gateway.port"])
    assert (made.number, made.hash, made.actor, made.surface, made.reason) == (2, second.hash, "device:d1", "ws", "a new port")
    assert (made.changed, made.ts_ms) == (("gateway.port",), book.clock.now_ms())
    assert book.generations.current == made
    assert [one.number for one in await book.generations.history()] == [2, 1]
    assert (await book.generations.history(limit=1, before=2))[0].changed == ("gateway.port",)
    row = (await book.rows())[-1]
    assert (row["action"], row["actor"], row["surface"], row["reason"]) == ("config.accepted", "device:d1", "ws", "a new port")
    assert (row["before"], row["after"], row["details"]["generation"]) == (first.hash, second.hash, 2)


async def test_the_exact_bytes_are_kept_for_nobody_else_to_read(book: Book) -> None:
    text = "# café\r\ngateway:   {port: 7}   # mine\n"
    loaded = config(book.home, "{}\n")
    (book.home / "openclaw.yaml").write_bytes(text.encode())
    loaded = load(book.home / "openclaw.yaml", environment={})
    await book.generations.take_start(loaded)
    folder = book.home / "generations"
    kept = folder / f"{loaded.hash}.yaml"
    assert kept.read_bytes() == text.encode()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_a_write_that_is_undone_leaves_neither_a_number_nor_a_row_of_the_audit_log(book: Book) -> None:
    loaded = config(book.home, "gateway: {port: 1}\n")

    def fails(connection: sqlite3.Connection) -> None:
        book.generations.accept(connection, loaded, PERSON, ["gateway.port"])
        raise LookupError("the other part of the write")

    with pytest.raises(LookupError):
        await book.store.write(fails)
    assert await book.generations.history() == []
    assert await book.rows() == []
    assert (await book.generations.take(loaded, PERSON, ["gateway.port"])).number == 1


class UnreadableStore(SqliteStore):
    """Writes, and cannot be read: all its readers are busy, say."""

    async def read(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Raise `Unavailable`."""
        raise Unavailable("too many read", retryable=True)


async def test_once_the_write_is_on_disk_nothing_says_that_the_config_was_not_accepted(book: Book) -> None:
    loaded = config(book.home, "gateway: {port: 1}\n")
    await book.generations.take_start(loaded)
    unreadable = UnreadableStore(book.home / "state.sqlite3")
    await unreadable.open({})
    generations = Generations(book.home, unreadable, book.audit, now_ms=book.clock.now_ms)
    try:
        made = await generations.take(config(book.home, "gateway: {port: 2}\n"), PERSON, ["gateway.port"])
    finally:
        await unreadable.close()
    assert generations.current == made == (await book.generations.history())[0]


async def test_bytes_that_cannot_be_kept_are_no_generation(book: Book) -> None:
    (book.home / "generations").write_text("in the way")
    with pytest.raises(Unavailable, match="a config cannot be kept"):
        await book.generations.take(config(book.home, "{}\n"), PERSON, [])
    assert await book.generations.history() == []


async def test_a_start_records_a_config_that_is_not_the_newest_generation_and_only_such_a_one(book: Book) -> None:
    await book.generations.take_start(config(book.home, "gateway: {port: 1}\n"))
    again = book.anew()
    await again.take_start(config(book.home, "gateway: {port: 1}\n"))
    assert [one.number for one in await again.history()] == [1]
    assert again.current is not None
    edited = book.anew()
    await edited.take_start(config(book.home, "gateway: {port: 2, bind: lan}\nlogging: {level: info}\n"))
    newest = (await edited.history())[0]
    assert (newest.number, newest.surface, newest.actor) == (2, "start", "gateway")
    assert newest.changed == ("gateway.bind", "gateway.port", "logging.level")


async def test_a_start_puts_back_bytes_that_somebody_cleaned_away(book: Book) -> None:
    loaded = config(book.home, "{}\n")
    await book.generations.take_start(loaded)
    kept = book.home / "generations" / f"{loaded.hash}.yaml"
    kept.unlink()
    await book.anew().take_start(loaded)
    assert kept.read_bytes() == b"{}\n"


async def test_a_generation_is_shown_without_its_secrets(book: Book) -> None:
    text = "gateway:\n  auth:\n    mode: token\n    token: swordfish-0123456789 # swordfish-0123456789\n"
    await book.generations.take_start(config(book.home, text))
    shown = await book.generations.text_of(1)
    assert "swordfish" not in shown
    assert "mode: token" in shown


async def test_an_unknown_generation_and_one_whose_bytes_are_others_are_refused_by_name(book: Book) -> None:
    loaded = config(book.home, "{}\n")
    await book.generations.take_start(loaded)
    with pytest.raises(InvalidRequest, match="generation 9: there is none"):
        await book.generations.text_of(9)
    (book.home / "generations" / f"{loaded.hash}.yaml").write_text("gateway: {port: 9}\n")
    with pytest.raises(InvalidRequest, match=r"generation 1: .*is not what was kept"):
        await book.generations.text_of(1)


async def test_last_good_is_what_was_marked_and_survives_every_later_generation(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "KEPT", 3)
    monkeypatch.setattr(table, "KEPT", 3)
    good = config(book.home, "gateway: {port: 1}\n")
    await book.generations.take_start(good)
    await book.generations.mark_good()
    for port in range(2, 9):
        await book.generations.take(config(book.home, f"gateway: {{port: {port}}}\n"), PERSON, ["gateway.port"])
    files = GenerationFiles(book.home)
    assert files.last_good() == LastGood(number=1, files={"openclaw.yaml": good.hash})
    assert files.read(good.hash) == b"gateway: {port: 1}\n"
    left = {path.read_text() for path in files.folder.glob("*.yaml")}
    assert left == {f"gateway: {{port: {port}}}\n" for port in (1, 6, 7, 8)}
    with pytest.raises(InvalidRequest, match=r"generation 4: .*cannot be read"):
        await book.generations.text_of(4)


async def test_in_doubt_nothing_is_held_for_good(book: Book) -> None:
    await book.generations.take_start(config(book.home, "{}\n"))
    book.generations.in_doubt = True
    await book.generations.mark_good()
    assert GenerationFiles(book.home).last_good() is None


def test_as_many_generations_are_kept_as_the_docs_say() -> None:
    assert KEPT == 200


def test_what_is_not_last_good_any_more_is_not_taken_for_it(tmp_path: Path) -> None:
    files = GenerationFiles(tmp_path)
    for text in (
        "",
        "{",
        "[]",
        "null",
        '{"number": "1"}',
        '{"number": 1, "files": {"openclaw.yaml": "../x"}}',
        '{"number": 1, "files": {}}',
    ):
        files.folder.mkdir(exist_ok=True)
        (files.folder / "last-good").write_text(text)
        assert files.last_good() is None, text


def test_what_another_version_wrote_into_last_good_stays(tmp_path: Path) -> None:
    files = GenerationFiles(tmp_path)
    files.folder.mkdir()
    (files.folder / "last-good").write_text('{"number": 1, "files": {}, "probedBy": "version 9"}')
    files.mark_good(LastGood(number=2, files={"openclaw.yaml": "0" * 64}))
    assert '"probedBy": "version 9"' in (files.folder / "last-good").read_text()
    assert files.last_good() == LastGood(number=2, files={"openclaw.yaml": "0" * 64})


def test_of_refused_files_the_newest_few_are_kept(tmp_path: Path) -> None:
    files = GenerationFiles(tmp_path)
    digests = [files.keep_rejected(f"{number}".encode()) for number in range(REJECTED_KEPT + 5)]
    left = {path.stem for path in (files.folder / "rejected").iterdir()}
    assert len(left) == REJECTED_KEPT
    assert digests[-1] in left
    with pytest.raises(NotKept):
        files.read(digests[-1])


async def test_of_changes_that_follow_closely_the_last_is_held_for_good(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    mark, entered, overtaken = GenerationFiles.mark_good, threading.Event(), threading.Event()

    def slow_at_first(files: GenerationFiles, good: LastGood) -> None:
        if not entered.is_set():
            entered.set()
            # Nobody may come by meanwhile; where somebody does, it is over at once.
            overtaken.wait(0.5)
            mark(files, good)
        else:
            mark(files, good)
            overtaken.set()

    monkeypatch.setattr(GenerationFiles, "mark_good", slow_at_first)
    await book.generations.take(config(book.home, "gateway: {port: 1}\n"), PERSON, ["gateway.port"])
    first = asyncio.create_task(book.generations.mark_good())
    await asyncio.to_thread(entered.wait, 10)
    await book.generations.take(config(book.home, "gateway: {port: 2}\n"), PERSON, ["gateway.port"])
    await asyncio.gather(first, book.generations.mark_good())
    good = book.generations.files.last_good()
    assert good is not None
    assert good.number == 2
