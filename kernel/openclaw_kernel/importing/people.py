"""Who may write to the reference's channels by a pairing: files of an earlier version, rows of a later one."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from openclaw_kernel.importing.databases import opened, tables_of
from openclaw_kernel.importing.report import Report
from openclaw_kernel.importing.source import Installation

_FILE: Final = re.compile(r"(?P<channel>[a-z0-9]+)(?:-(?P<account>[A-Za-z0-9_-]+))?-allowFrom\.json")
_DATABASE: Final = Path("state") / "openclaw.sqlite"
DEFAULT: Final = "default"

Allowed = tuple[str, str, str, list[str]]
"""Where it stands, channel, account, and the ids."""


def paired_people(installation: Installation, report: Report) -> Iterator[Allowed]:
    """Yield the lists; ids are as the platform has them, and a wildcard is in none."""
    yield from _in_files(installation.folder / "credentials", report)
    yield from _in_database(installation.folder / _DATABASE, report)


def _in_files(folder: Path, report: Report) -> Iterator[Allowed]:
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return
    for path in paths:
        match = _FILE.fullmatch(path.name)
        if match is not None:
            try:
                said = json.loads(path.read_text(encoding="utf-8"))
                listed = said["allowFrom"] if isinstance(said, dict) else said
                ids = [str(each) for each in listed if str(each) != "*"]
            except (OSError, ValueError, KeyError, TypeError):
                report.leave(str(path), "is no list of people that can be read")
                continue
            if ids:
                yield str(path), match["channel"], match["account"] or DEFAULT, ids
        elif path.name.endswith("-pairing.json"):
            report.leave(str(path), "codes that wait to be approved hold for an hour; whoever wants in asks again")
        elif path.is_dir() or path.suffix == ".json":
            report.leave(str(path), "logins are made anew")


def _in_database(path: Path, report: Report) -> Iterator[Allowed]:
    if not path.is_file():
        return
    found: dict[tuple[str, str], list[str]] = {}
    try:
        with opened(path) as connection:
            if "channel_pairing_allow_entries" not in tables_of(connection):
                return
            rows = connection.execute("SELECT channel_key, account_id, entry FROM channel_pairing_allow_entries ORDER BY sort_order")
            for channel, account, entry in rows:
                if entry != "*":
                    found.setdefault((str(channel), str(account or DEFAULT)), []).append(str(entry))
    except (sqlite3.Error, OSError) as error:
        report.leave(str(path), f"cannot be read ({error}); stop the reference gateway, and try again")
        return
    for (channel, account), ids in found.items():
        yield f"{path}#channel_pairing_allow_entries", channel, account, ids
