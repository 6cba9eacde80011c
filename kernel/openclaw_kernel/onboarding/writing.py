"""Putting the answers into the state folder: secrets first, then the smallest edit of `openclaw.yaml` that names them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from openclaw_config.edit import changed_lines
from openclaw_config.home import config_path
from openclaw_config.patching import CannotEdit, CannotMerge, patched
from openclaw_config.secret_files import FOLDER, store_private
from openclaw_config.source import ConfigError, read_text
from openclaw_config.whole_files import replace_whole
from openclaw_kernel.onboarding.answers import BadAnswers, Outcome


def planned(home: Path, outcome: Outcome) -> tuple[str, Sequence[tuple[int, str, str]]]:
    """The text that `openclaw.yaml` would have, and the lines that differ; raise `BadAnswers`."""
    path = config_path(home)
    try:
        before = read_text(path)
        after = patched(path.name, before, outcome.patch)
    except (CannotEdit, CannotMerge, ConfigError) as error:
        raise BadAnswers(str(error)) from error
    return after, changed_lines(before, after)


def write(home: Path, outcome: Outcome, text: str) -> None:
    """Write secrets and file; each is there whole or not at all.

    Raise `OSError`; `BadAnswers`, with nothing written, where the file was changed since `text` was made of it.
    """
    if planned(home, outcome)[0] != text:
        raise BadAnswers(f"{config_path(home)}: was changed meanwhile; nothing was written, run it again")
    for name, value in outcome.secrets.items():
        store_private(home / FOLDER / name, f"{value}\n")
    # A link stays one: what it leads to is written.
    path = config_path(home).resolve()
    replace_whole(path, text.encode(), mode=path.stat().st_mode & 0o777)
