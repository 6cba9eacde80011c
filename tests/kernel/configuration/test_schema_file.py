"""`openclaw.schema.json` follows the installed plugins where the config refers to it, and is never a fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openclaw_config.load import load_text
from openclaw_kernel.configuration.schema_file import NAME, keep_schema_file, refresh_file, schema_path, stamp_of
from openclaw_kernel.host.discovery import discover

MODELINE = f"# yaml-language-server: $schema=./{NAME}\n"


async def kept(home: Path, text: str) -> None:
    """Do what a start does with a config."""
    (home / "openclaw.yaml").write_text(text, encoding="utf-8")
    await keep_schema_file(load_text(text, home / "openclaw.yaml", environment={}), discover(home))


async def test_a_file_that_is_of_other_plugins_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text('{"$comment": "of an earlier version"}')
    await kept(tmp_path, MODELINE)
    schema = json.loads(path.read_text(encoding="utf-8"))
    assert "telegram" in schema["properties"]["channels"]["properties"]
    assert schema["$comment"] == stamp_of(discover(tmp_path), {})


async def test_a_file_of_these_plugins_is_left_alone_and_one_that_nobody_refers_to_is_not_made(tmp_path: Path) -> None:
    await kept(tmp_path, "logging: {level: info}\n")
    assert not (tmp_path / NAME).exists()
    told = json.dumps({"$comment": stamp_of(discover(tmp_path), {})})
    (tmp_path / NAME).write_text(told)
    await kept(tmp_path, MODELINE)
    assert (tmp_path / NAME).read_text() == told


async def test_what_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / NAME).mkdir()
    await kept(tmp_path, MODELINE)
    assert f"{tmp_path / NAME} is not up to date: " in caplog.text


def test_a_switched_off_plugin_is_another_schema(tmp_path: Path) -> None:
    discovery = discover(tmp_path)
    off = {"plugins": {"entries": {"echo": {"enabled": False}}}}
    assert stamp_of(discovery, off) != stamp_of(discovery, {})
    assert stamp_of(discovery, {"plugins": 3}) == stamp_of(discovery, {})


def test_the_file_is_replaced_as_a_whole_and_only_where_it_differs(tmp_path: Path) -> None:
    path = schema_path(tmp_path / "openclaw.yaml")
    assert refresh_file(path, "one")
    before = path.stat()
    assert not refresh_file(path, "one")
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert refresh_file(path, "two")
    assert path.read_text() == "two"
    assert [item.name for item in tmp_path.iterdir()] == [NAME]
