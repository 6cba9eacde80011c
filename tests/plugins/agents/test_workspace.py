"""An agent's folder: made once, private, read as data."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from openclaw_plugins.agents.prompt import system_prompt
from openclaw_plugins.agents.tokens import estimate
from openclaw_plugins.agents.workspace import STARTER_FILES, Workspace, WorkspaceText

NOON = datetime(2026, 11, 22, 12, 34, tzinfo=UTC)


def prompt(workspace: WorkspaceText, **facts: Any) -> str:
    facts = {"name": None, "file_chars": 8_000, "total_chars": 24_000, "tools": True, "channel": None, **facts}
    return system_prompt(workspace=workspace, now=facts.pop("now", NOON), extra=facts.pop("extra", None), **facts)


def test_a_new_folder_is_private_and_has_the_starter_files(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "deep" / "main")
    workspace.ensure()
    assert workspace.path.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in workspace.path.iterdir()) == sorted(STARTER_FILES)


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "AGENTS.md").write_text("mine")
    Workspace(tmp_path).ensure()
    assert [path.name for path in tmp_path.iterdir()] == ["AGENTS.md"]
    assert (tmp_path / "AGENTS.md").read_text() == "mine"
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "main").write_text("x")
    with pytest.raises(FileExistsError):
        Workspace(tmp_path / "main").ensure()


def test_the_starter_prompt_is_short_enough_for_the_smallest_model(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "main")
    workspace.ensure()
    text = prompt(workspace.read())
    assert text == (
        "You are a helpful personal assistant.\n\n"
        "Answer in a few plain sentences. If you do not know something, say so.\n\n"
        "You are friendly, honest and direct.\n\n"
        "It is Sunday, 22 November 2026, after 12:00 (UTC)."
    )
    assert estimate(text) < 120


def test_the_identity_file_gives_name_and_emoji(tmp_path: Path) -> None:
    (tmp_path / "IDENTITY.md").write_text("# Who\n- **Name:** Molty \n* emoji: \U0001f99e\nAvatar: pic.png\nLikes the sea.\n")
    text = Workspace(tmp_path).read()
    assert (text.name, text.emoji, text.avatar) == ("Molty", "\U0001f99e", "pic.png")
    assert text.texts["IDENTITY.md"] == "# Who\nLikes the sea."


@pytest.mark.parametrize("text", ["\n" * 500_000, "name: a" + " " * 500_000 + "b", "- " * 250_000, "*" * 500_000])
def test_an_identity_file_written_to_be_slow_is_read_at_once(tmp_path: Path, text: str) -> None:
    # In the square of its length, the first of these would hold the whole gateway for hours.
    (tmp_path / "IDENTITY.md").write_text(text)
    started = time.perf_counter()
    Workspace(tmp_path).read()
    assert time.perf_counter() - started < 2


def test_files_are_read_again_only_when_they_changed(tmp_path: Path) -> None:
    path = tmp_path / "USER.md"
    path.write_text("one")
    os.utime(path, ns=(1, 1))
    workspace = Workspace(tmp_path)
    assert workspace.read().texts == {"USER.md": "one"}
    path.write_text("two")
    os.utime(path, ns=(1, 1))
    assert workspace.read().texts == {"USER.md": "one"}
    os.utime(path, ns=(2, 2))
    assert workspace.read().texts == {"USER.md": "two"}
    path.unlink()
    assert workspace.read().texts == {}


def test_a_link_or_a_pipe_in_the_folder_is_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush")
    folder = tmp_path / "main"
    folder.mkdir()
    (folder / "SOUL.md").symlink_to(secret)
    os.mkfifo(folder / "USER.md")
    (folder / "TOOLS.md").mkdir()
    (folder / "AGENTS.md").write_text("fine")
    text = Workspace(folder).read()
    assert text.texts == {"AGENTS.md": "fine"}
    assert len(text.problems) == 3


def test_bytes_that_are_not_text_do_not_stop_a_turn(tmp_path: Path) -> None:
    (tmp_path / "USER.md").write_bytes(b"ab\xff\x00c")
    assert Workspace(tmp_path).read().texts == {"USER.md": "ab\ufffd\x00c"}


FILES = WorkspaceText(texts={"USER.md": "u" * 50, "AGENTS.md": "a" * 50, "TOOLS.md": "t" * 50})


def test_parts_stand_from_the_steady_to_the_changing() -> None:
    text = prompt(FILES, name="Molty", channel="telegram", extra=" be brief ")
    parts = text.split("\n\n")
    assert parts[0] == "You are Molty, a personal assistant."
    assert [part[0] for part in parts[1:4]] == ["a", "u", "t"]
    assert parts[4:] == [
        "The conversation takes place on telegram.",
        "be brief",
        "It is Sunday, 22 November 2026, after 12:00 (UTC).",
    ]


def test_the_prompt_stays_the_same_within_an_hour() -> None:
    assert prompt(FILES) == prompt(FILES, now=NOON.replace(minute=59))
    assert prompt(FILES) != prompt(FILES, now=NOON.replace(hour=13))


def test_each_file_and_all_together_are_capped() -> None:
    text = prompt(FILES, file_chars=30, total_chars=40)
    assert (text.count("aaa"), text.count("a" * 31)) == (10, 0)
    assert "u" * 10 in text
    assert "u" * 11 not in text
    assert "tttt" not in text
    assert "the rest of AGENTS.md is left out: over 30 characters" in text


def test_notes_on_tools_are_left_out_where_there_are_none() -> None:
    assert "tttt" not in prompt(FILES, tools=False)
