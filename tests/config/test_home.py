"""The state folder: private, never somebody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from openclaw_config.home import config_path, find_home, prepare_home
from openclaw_config.load import load


def mode_of(path: Path) -> int:
    """Its permission bits."""
    return path.stat().st_mode & 0o777


def test_a_first_start_writes_a_config_that_loads_and_a_random_token(tmp_path: Path) -> None:
    tokens = set()
    for name in ("one", "two"):
        home = tmp_path / name / "state"
        assert prepare_home(home) is True
        assert (mode_of(home), mode_of(config_path(home)), mode_of(home / "gateway.token")) == (0o700, 0o600, 0o600)
        token = load(config_path(home)).config.gateway.auth.token
        assert token is not None
        tokens.add(token.unwrap())
    assert len(tokens) == 2
    assert all(len(token) >= 40 for token in tokens)


def test_a_further_start_changes_nothing(tmp_path: Path) -> None:
    prepare_home(tmp_path / "state")
    config_path(tmp_path / "state").write_text("gateway:\n  port: 1\n")
    assert prepare_home(tmp_path / "state") is False
    assert config_path(tmp_path / "state").read_text() == "gateway:\n  port: 1\n"


def test_a_token_that_is_there_is_kept(tmp_path: Path) -> None:
    home = tmp_path / "state"
    home.mkdir()
    (home / "gateway.token").write_text("mine-already")
    assert prepare_home(home) is True
    assert (home / "gateway.token").read_text() == "mine-already"


@pytest.mark.parametrize("content", ["openclaw.yaml", "gateway.token", "lost+found", None])
def test_an_open_folder_of_ours_or_an_empty_one_is_made_private(tmp_path: Path, content: str | None) -> None:
    tmp_path.chmod(0o755)
    if content is not None:
        (tmp_path / content).write_text("gateway: {}\n")
    prepare_home(tmp_path)
    assert mode_of(tmp_path) == 0o700


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    tmp_path.chmod(0o755)
    with pytest.raises(OSError, match=r"it holds other files and no openclaw\.yaml") as refused:
        prepare_home(tmp_path)
    assert refused.value.filename == str(tmp_path)
    assert mode_of(tmp_path) == 0o755
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_is_no_folder_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):  # noqa: PT011 - which one depends on the system
        prepare_home(tmp_path / "file")


def test_the_option_wins_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("OPENCLAW_KERNEL_HOME", raising=False)
    assert find_home() == tmp_path / ".openclaw-kernel"
    monkeypatch.setenv("OPENCLAW_KERNEL_HOME", "~/other")
    assert find_home() == tmp_path / "other"
    assert find_home("/somewhere") == Path("/somewhere")
    assert find_home("relative").is_absolute()
