"""Numbered steps bring a file to the form of this version, a key at a time, each safe to make twice; none runs by itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from openclaw_config import migrating
from openclaw_config.edit import CannotEdit
from openclaw_config.home import prepare_home
from openclaw_config.mending import with_key_renamed
from openclaw_config.migrating import MIGRATIONS, ConfigMigration, migrated, pending
from openclaw_config.source import KeyPath, parse
from openclaw_kernel.api import Fix, Migrate
from openclaw_kernel.checks.changes import plan
from openclaw_kernel.checks.fixes import FixBook

FILE = """\
# mine
gateway: {door: 18789}   # the port
agents:
  entries:
    a: {mind: x/y}
    b: {mind: x/z}
"""


def _doors(document: Mapping[str, Any]) -> list[KeyPath]:
    return [("gateway", "door")] if "door" in document.get("gateway", {}) else []


def _minds(document: Mapping[str, Any]) -> list[KeyPath]:
    entries = document.get("agents", {}).get("entries", {})
    return [("agents", "entries", name, "mind") for name, entry in entries.items() if "mind" in entry]


STEPS = (
    ConfigMigration(
        number=1, title="gateway.door becomes gateway.port", finds=_doors, edit=lambda n, t, key: with_key_renamed(n, t, key, "port")
    ),
    ConfigMigration(
        number=2,
        title="agents.entries.*.mind becomes model",
        finds=_minds,
        edit=lambda n, t, key: with_key_renamed(n, t, key, "model"),
    ),
)


def test_released_steps_are_numbered_from_one_without_holes() -> None:
    assert [step.number for step in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


def test_all_steps_that_are_needed_are_made_and_no_other_byte_changes() -> None:
    assert [(step.migration.number, len(step.keys)) for step in pending(parse("f", FILE), STEPS)] == [(1, 1), (2, 2)]
    after = migrated("f", FILE, STEPS)
    assert after == FILE.replace("door:", "port:").replace("mind:", "model:")
    assert pending(parse("f", after), STEPS) == []
    assert migrated("f", after, STEPS) == after


def test_a_step_that_cannot_be_made_changes_nothing() -> None:
    both = FILE.replace("{door: 18789}", "{door: 18789, port: 1}")
    with pytest.raises(CannotEdit):
        migrated("f", both, STEPS)


def test_doctor_makes_them_with_a_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_home(tmp_path)
    file = tmp_path / "openclaw.yaml"
    file.write_text(FILE)
    defaults = (STEPS,)
    monkeypatch.setattr(migrating.pending, "__defaults__", defaults)
    monkeypatch.setattr(migrating.migrated, "__defaults__", defaults)
    planned = plan(Fix(summary="bring it up", changes=(Migrate(),)), home=tmp_path, config_path=file)
    assert planned.told == [
        f"{file}: gateway.door becomes gateway.port: gateway.door",
        f"{file}: agents.entries.*.mind becomes model: agents.entries.a.mind",
        f"{file}: agents.entries.*.mind becomes model: agents.entries.b.mind",
    ]
    book = FixBook(tmp_path)
    fix_id = book.make(planned, "config.old-form")
    assert file.read_text() == migrated("f", FILE, STEPS)
    book.undo(fix_id)
    assert file.read_text() == FILE
