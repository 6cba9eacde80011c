"""The sessions of a reference installation: those in files, and those in a database for each agent, as later versions keep them."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

from openclaw_kernel.api.imports import ImportedSession, state_of, write_session
from openclaw_kernel.importing.databases import opened, tables_of
from openclaw_kernel.importing.report import Report
from openclaw_kernel.importing.source import Installation
from openclaw_kernel.importing.transcripts import messages_of

_AGENT_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SESSION_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DATABASE: Final = Path("agent") / "openclaw-agent.sqlite"
_MOST_BYTES: Final = 256 << 20
_WORK: Final = ("cron", "subagent", "acp", "hook")
"""Sessions of work that a person did not lead."""


@dataclass(frozen=True, slots=True)
class Found:
    """One session that can be taken: what is known of it, where it stands, and its messages."""

    session: ImportedSession
    path: str
    messages: list[dict[str, Any]]


def import_sessions(installation: Installation, home: Path, report: Report, *, main_key: str, dry_run: bool) -> int:
    """Take every session that is not here yet, one by one; return how many. Raise `OSError` where one cannot be written."""
    count = 0
    for folder in _agents(installation):
        for found in _sessions(folder, main_key, report):
            if state_of(home, found.session.session_id) is not None:
                report.there += 1
                continue
            count += 1
            report.take(found.path, found.session.key, _told(found))
            if not dry_run:
                write_session(home, found.session, found.messages)
    return count


def _told(found: Found) -> str:
    return f"{len(found.messages)} messages; they come in when the gateway serves"


def _agents(installation: Installation) -> list[Path]:
    try:
        folders = sorted(path for path in (installation.folder / "agents").iterdir() if path.is_dir())
    except OSError:
        return []
    return [folder for folder in folders if _AGENT_ID.fullmatch(folder.name.lower())]


def _sessions(folder: Path, main_key: str, report: Report) -> Iterator[Found]:
    seen: set[str] = set()
    agent_id = folder.name.lower()
    # One by one: what is read of a database is so only while it is open.
    for path, key, entry, events in chain(_in_database(folder, report), _in_files(folder, report)):
        session_id = str(entry.get("sessionId", ""))
        if session_id in seen:
            continue
        seen.add(session_id)
        ours = _key(key, agent_id, main_key)
        if ours is None:
            report.leave(path, f"{key}: it is of work that no person led")
            continue
        messages, left = messages_of(events)
        if not messages:
            report.leave(path, f"{key}: it has no message")
            continue
        if left:
            report.leave(path, f"{key}: {left} entries that are no messages, such as summaries")
        yield Found(_session(ours, agent_id, session_id, entry, messages), path, messages)


def _session(key: str, agent_id: str, session_id: str, entry: Mapping[str, Any], messages: list[dict[str, Any]]) -> ImportedSession:
    times = [message["timestamp"] for message in messages if message["timestamp"]]
    updated = entry.get("updatedAt")
    return ImportedSession(
        key=key,
        agent_id=agent_id,
        session_id=session_id,
        created_ms=min(times, default=0),
        updated_ms=updated if isinstance(updated, int) else max(times, default=0),
        label=_text(entry.get("label")),
        display_name=_text(entry.get("displayName")),
        channel=_text(entry.get("lastChannel") or entry.get("channel")),
        account_id=_text(entry.get("lastAccountId")),
    )


def _key(key: str, agent_id: str, main_key: str) -> str | None:
    """The key as it is called here: lower case, with its agent; None for one of work that nobody led."""
    found = key.strip().lower()
    if found in {"global", "unknown"}:
        found = main_key
    rest = found.split(":", 2)[2] if found.startswith("agent:") and found.count(":") > 1 else found
    if not rest or rest.split(":")[0] in _WORK or any(f":{word}:" in f":{rest}" for word in _WORK):
        return None
    parts = ["direct" if part == "dm" else part for part in rest.split(":")]
    return f"agent:{agent_id}:{main_key if parts == ['main'] else ':'.join(parts)}"


_Session = tuple[str, str, Mapping[str, Any], Iterator[Mapping[str, Any]]]


def _in_files(folder: Path, report: Report) -> Iterator[_Session]:
    """Sessions of a version up to 2026.7: an index, and a file of JSON lines for each."""
    index = folder / "sessions" / "sessions.json"
    try:
        said = json.loads(index.read_text(encoding="utf-8")) if index.exists() else {}
    except (OSError, ValueError) as error:
        report.leave(str(index), f"cannot be read ({error})")
        return
    for key, entry in said.items() if isinstance(said, dict) else ():
        session_id = entry.get("sessionId") if isinstance(entry, dict) else None
        if not isinstance(session_id, str) or not _SESSION_ID.fullmatch(session_id):
            continue
        path = index.parent / f"{session_id}.jsonl"
        if not path.is_file():
            # A later version keeps the transcript in its database.
            continue
        if path.stat().st_size > _MOST_BYTES:
            report.leave(str(path), f"it is longer than {_MOST_BYTES >> 20} MB")
            continue
        yield str(path), str(key), entry, _lines(path)


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                event = json.loads(line)
            except ValueError:
                # The last line of a process that was killed.
                continue
            if isinstance(event, dict):
                yield event


def _in_database(folder: Path, report: Report) -> Iterator[_Session]:
    """Sessions of a later version. The file is only read."""
    path = folder / _DATABASE
    if not path.is_file():
        return
    try:
        with opened(path) as connection:
            if not {"session_nodes", "transcript_events"} <= tables_of(connection):
                return
            nodes = connection.execute("SELECT session_key, current_session_id, entry_json FROM session_nodes").fetchall()
            for key, session_id, text in nodes:
                entry = {**_object(text), "sessionId": session_id}
                yield f"{path}#{session_id}", str(key), entry, _events(connection, str(session_id), f"{path}#{session_id}", report)
    except (sqlite3.Error, OSError) as error:
        report.leave(str(path), f"cannot be read ({error}); stop the reference gateway, and try again")


def _events(connection: sqlite3.Connection, session_id: str, path: str, report: Report) -> Iterator[Mapping[str, Any]]:
    columns = {row[1] for row in connection.execute("PRAGMA table_info(transcript_events)")}
    packed = "event_zstd" if "event_zstd" in columns else "NULL"
    statement = f"SELECT event_json, {packed} FROM transcript_events WHERE session_id = ? ORDER BY seq"  # noqa: S608 - two words of ours
    skipped = 0
    for text, blob in connection.execute(statement, (session_id,)):
        unpacked = text if text is not None else _unpacked(blob)
        if unpacked is None:
            skipped += 1
            continue
        event = _object(unpacked)
        if event:
            yield event
    if skipped:
        report.leave(path, f"{skipped} entries that it keeps compressed by Zstandard, which this Python cannot read (3.14 can)")


def _unpacked(blob: Any) -> str | None:
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]  # of Python 3.14
    except ImportError:
        return None
    try:
        return str(zstd.decompress(blob).decode("utf-8"))
    except (zstd.ZstdError, UnicodeDecodeError, TypeError):
        return None


def _object(text: Any) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
