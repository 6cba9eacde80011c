"""Copying the files of agents. What is there already stays as it is."""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from openclaw_kernel.importing.mapping import agent_entries
from openclaw_kernel.importing.report import Report
from openclaw_kernel.importing.source import Installation

WORKSPACE: Final = "workspace"
_MOST_FILES: Final = 100_000
_MOST_BYTES: Final = 4 << 30
_REFERENCE: Final = Path("~/.openclaw")
_SKIPPED: Final = frozenset({"node_modules", "__pycache__", ".venv", "venv"})
"""Folders that are made anew from what stands beside them."""


@dataclass(frozen=True, slots=True)
class Copy:
    """One file to copy."""

    source: Path
    target: Path


def plan_workspaces(installation: Installation, home: Path, report: Report) -> list[Copy]:
    """Find what is to be copied, and report what is not."""
    copies: list[Copy] = []
    budget = [_MOST_FILES, _MOST_BYTES]
    for agent_id, folder in workspaces(installation).items():
        if not folder.is_dir():
            if folder.parent != installation.folder or not folder.name.startswith(WORKSPACE):
                report.leave(
                    str(folder), f"the workspace of agent {agent_id!r} is not there; copy it to {home / WORKSPACE / agent_id} by hand"
                )
            continue
        target = home / WORKSPACE / agent_id
        found = list(_files(folder, folder, report))
        fresh = [Copy(path, target / path.relative_to(folder)) for path in found]
        differing = [copy for copy in fresh if os.path.lexists(copy.target)]
        for copy in differing:
            if not _same(copy):
                report.leave(str(copy.source), f"{copy.target} is there already, and says something else")
        fresh = [copy for copy in fresh if not os.path.lexists(copy.target)]
        size = sum(copy.source.stat().st_size for copy in fresh)
        budget[0] -= len(fresh)
        budget[1] -= size
        if budget[0] < 0 or budget[1] < 0:
            report.leave(str(folder), f"it has more than {_MOST_FILES} files or {_MOST_BYTES >> 30} GB; copy it to {target} by hand")
            continue
        report.there += len(differing)
        if fresh:
            report.take(str(folder), str(target))
        copies += fresh
    return copies


def copy_all(copies: list[Copy]) -> None:
    """Copy; raise `OSError`. A file that came meanwhile stays."""
    for copy in copies:
        copy.target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.path.lexists(copy.target):
            continue
        temporary = copy.target.with_name(f".{copy.target.name}.new")
        shutil.copy2(copy.source, temporary, follow_symlinks=False)
        temporary.replace(copy.target)


def workspaces(installation: Installation) -> dict[str, Path]:
    """The folder of each agent's files, by agent; those that the configuration does not name are where the reference has them."""
    section = installation.config.get("agents")
    defaults = _mapping(_mapping(section).get("defaults"))
    shared = defaults.get(WORKSPACE) or _mapping(installation.config.get("agent")).get(WORKSPACE)
    entries = [(agent_id, entry) for _, agent_id, entry in agent_entries(section)]
    found = {}
    default = next((name for name, entry in entries if entry.get("default")), entries[0][0] if entries else "main")
    for agent_id, entry in entries or [("main", {})]:
        own = entry.get(WORKSPACE)
        if isinstance(own, str):
            found[agent_id] = _path(installation, own)
        elif agent_id == default:
            found[agent_id] = _path(installation, shared) if isinstance(shared, str) else installation.folder / WORKSPACE
        elif isinstance(shared, str):
            found[agent_id] = _path(installation, shared) / agent_id
        else:
            found[agent_id] = installation.folder / f"{WORKSPACE}-{agent_id}"
    return found


def _path(installation: Installation, named: str) -> Path:
    # The folder may have been copied from another machine, where it was the home of somebody else.
    path = Path(named)
    if path.is_relative_to(_REFERENCE):
        path = installation.folder / path.relative_to(_REFERENCE)
    with contextlib.suppress(RuntimeError):
        # Else it is the home of a user whom this machine does not know.
        path = path.expanduser()
    return path if path.is_absolute() else installation.folder / path


def _files(folder: Path, root: Path, report: Report) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        report.leave(str(folder), f"cannot be read ({(error.strerror or str(error)).lower()})")
        return
    for entry in entries:
        path = Path(entry.path)
        if entry.is_symlink():
            report.leave(str(path), "it is a link; what it leads to was not copied")
        elif entry.is_dir():
            if entry.name in _SKIPPED:
                report.leave(str(path), "it is made anew from what stands beside it")
            else:
                yield from _files(path, root, report)
        elif entry.is_file():
            yield path
        else:
            report.leave(str(path), "it is neither a file nor a folder")


def _same(copy: Copy) -> bool:
    try:
        return filecmp.cmp(copy.source, copy.target, shallow=False)
    except OSError:
        return False


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
