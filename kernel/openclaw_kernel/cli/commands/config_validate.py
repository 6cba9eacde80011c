"""`openclaw-kernel config validate [FILE]`: everything a start would find wrong, at once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from openclaw_kernel.cli.errors import BadConfig
from openclaw_kernel.cli.exits import OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import emit, emit_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openclaw_config.issues import Issue
    from openclaw_config.load import Loaded

DETAILS = """\
Checks keys, values and references in all layers, and the sections of the plugins that would run: of these the code that
declares their settings is imported, nothing is started. Each line says file, line and column, what was found and the cure;
below it stand the JSON pointer and the id of what openclaw-kernel doctor does about it."""


def add(group: Commands) -> None:
    """Add the command."""
    parser = group.add("validate", "check the file, or another as if it stood in its place", run=validate, details=DETAILS)
    parser.add_argument("file", metavar="FILE", nargs="?", help="default: openclaw.yaml of the state folder", default=None)


def validate(options: argparse.Namespace) -> int:
    """Check everything a start would check, short of starting."""
    from openclaw_config.home import config_path, find_home
    from openclaw_config.issues import ConfigError
    from openclaw_kernel.cli.validation import plugin_issues

    path = config_path(find_home(options.home))
    checked = path if options.file is None else Path(options.file).absolute()
    try:
        loaded = _load(path, checked)
    except ConfigError as error:
        raise _refused(error.issues, as_json=options.json) from error
    issues = plugin_issues(loaded)
    if issues:
        raise _refused(issues, as_json=options.json)
    if options.json:
        emit_json({"path": str(checked), "valid": True, "files": [str(file) for file in loaded.files]})
    else:
        emit(f"{checked} is valid")
    return OK


def _load(path: Path, checked: Path) -> Loaded:
    from openclaw_config.load import load, load_text
    from openclaw_config.source import read_text

    # Another file is a draft: what it names by relative paths lies in the state folder, and so will it.
    return load(path) if checked == path else load_text(read_text(checked), path.with_name(checked.name))


def _refused(issues: Sequence[Issue], *, as_json: bool) -> BadConfig:
    # For programs the issues themselves say all.
    return BadConfig("\n".join(map(str if as_json else _diagnosis, issues)), issues)


def _diagnosis(issue: Issue) -> str:
    known = [f"pointer {issue.pointer}"] if issue.pointer else []
    known += [] if issue.fix is None else [f"fix {issue.fix.value}"]
    return f"{issue}\n    {', '.join(known)}" if known else str(issue)
