"""What a released version left is brought up by this one, and that version could read on what this one leaves."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from openclaw_config.load import load
from openclaw_kernel.store.migrations import KERNEL, KERNEL_MIGRATIONS
from openclaw_kernel.store.sqlite import SqliteStore
from openclaw_plugins.conversation.tables import MIGRATIONS as CONVERSATION
from openclaw_plugins.pairing.tables import MIGRATIONS as PAIRING
from tests.kernel.cli.command import run_command
from tests.support.gateway import StartGateway
from tests.support.source_tree import read_project

MUSEUM = Path(__file__).resolve().parents[2] / "museum"
VERSIONS = sorted(path.name for path in MUSEUM.iterdir() if path.is_dir())
BY_POSITION = re.compile(r"INSERT (?:OR \w+ )?INTO (\w+) VALUES")
MAIN = "agent:main:main"
SAID = ["milk, please", "milk, please", "and bread", "and bread"]


def taken_out(version: str, home: Path) -> Path:
    """A copy of what the version left."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in (MUSEUM / version).iterdir():
        if path.suffix != ".sql":
            (home / path.name).write_bytes(path.read_bytes())
            (home / path.name).chmod(0o600)
    database = home / "state.sqlite3"
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript((MUSEUM / version / "state.sql").read_text(encoding="utf-8"))
    database.chmod(0o600)
    return home


def columns(path: Path) -> Mapping[str, list[tuple[Any, ...]]]:
    """By table: each column's name, type, whether it may be empty, its default, and its place in the key."""
    with closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")]
        return {name: [row[1:] for row in connection.execute(f"PRAGMA table_info({name})")] for name in names}


def rows(path: Path, tables: Mapping[str, list[tuple[Any, ...]]]) -> Iterator[tuple[str, list[Any]]]:
    """Every row, read by the columns of then."""
    with closing(sqlite3.connect(path)) as connection:
        for table, found in tables.items():
            names = ", ".join(column[0] for column in found)
            yield table, connection.execute(f"SELECT {names} FROM {table} ORDER BY 1, 2").fetchall()  # noqa: S608 - names of the database itself


async def brought_up(home: Path) -> None:
    store = SqliteStore(home / "state.sqlite3")
    assert await store.open({"conversation": CONVERSATION, "pairing": PAIRING}) == {}
    await store.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_every_row_and_column_of_then_is_there_still(version: str, tmp_path: Path) -> None:
    home = taken_out(version, tmp_path / "home")
    database = home / "state.sqlite3"
    before = columns(database)
    kept = {table: found for table, found in rows(database, before) if table != "kernel_migrations"}
    asyncio.run(brought_up(home))
    after = columns(database)
    for table, found in before.items():
        assert after[table][: len(found)] == found, table
        for added in after[table][len(found) :]:
            assert not added[2] or added[3] is not None, f"{table}.{added[0]}: an earlier version writes rows without it; give it a default"
    assert {table: found for table, found in rows(database, before) if table != "kernel_migrations"} == kept
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        newest = connection.execute("SELECT max(number) FROM kernel_migrations WHERE owner = ?", (KERNEL,)).fetchone()
    assert newest == (len(KERNEL_MIGRATIONS),)


@pytest.mark.parametrize("version", VERSIONS)
def test_no_column_was_added_to_a_table_whose_rows_were_written_by_position(version: str, tmp_path: Path) -> None:
    home = taken_out(version, tmp_path / "home")
    before = columns(home / "state.sqlite3")
    written = {table for module in read_project() for table in BY_POSITION.findall(module.source)} & set(before)
    assert "conversation_sessions" in written
    asyncio.run(brought_up(home))
    after = columns(home / "state.sqlite3")
    assert [table for table in sorted(written) if after[table] != before[table]] == []


@pytest.mark.parametrize("version", VERSIONS)
async def test_its_configuration_is_valid_and_needs_no_step(version: str, tmp_path: Path) -> None:
    home = taken_out(version, tmp_path / "home")
    assert load(home / "openclaw.yaml", environment={}).config.agents.entries["main"].identity.name == "Ada"
    assert (await run_command("config", "validate", home=home)).status == 0
    told = (
        await run_command("doctor", "--json", "--only", "config.old-form", "--only", "store.newer", "--only", "store.integrity", home=home)
    ).json()
    assert told["findings"] == []


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_gateway_of_this_version_serves_with_it(version: str, tmp_path: Path, start_gateway: StartGateway) -> None:
    home = taken_out(version, tmp_path / "home")
    gateway = await start_gateway({}, home=home)
    async with gateway.connect() as client:
        history = await client.request("chat.history", {"sessionKey": MAIN})
        texts = [part["text"] for message in history["messages"] for part in message["content"]]
        assert texts == SAID
    await gateway.stop()
    verified = await run_command("audit", "verify", "--json", home=home)
    assert verified.json()["ok"], verified.out
    assert json.loads((await run_command("audit", "export", home=home)).out.splitlines()[0])["action"] == "config.loaded"
