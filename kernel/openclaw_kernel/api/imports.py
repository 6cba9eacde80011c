"""Sessions of another gateway on their way in: a file each below the state folder, which the gateway takes up once it serves.

A file is JSON lines: the session first, then its messages, oldest first, each in the form that `message_from_json` reads. Whoever
writes one does it as a whole (`write_session`); whoever has taken it up puts a mark in its place (`mark_done`), so that it comes in once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from openclaw_config.secret_files import make_private_folder, store_private

FOLDER: Final = Path("imports") / "sessions"
_WAITING: Final = ".jsonl"
_DONE: Final = ".done"
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedSession:
    """What is known of a session beside its messages. Times are Unix milliseconds; `current` is false for a transcript that was reset."""

    key: str
    agent_id: str
    session_id: str
    created_ms: int
    updated_ms: int
    label: str | None = None
    display_name: str | None = None
    channel: str | None = None
    account_id: str | None = None
    current: bool = True


def state_of(home: Path, session_id: str) -> str | None:
    """Tell whether a session is `waiting` or `done`; None where nobody wrote it."""
    path = _path(home, session_id)
    return "waiting" if path.exists() else "done" if path.with_suffix(_DONE).exists() else None


def write_session(home: Path, session: ImportedSession, messages: Iterable[Mapping[str, Any]]) -> Path:
    """Write the file of a session, 0600, whole or not at all; raise `OSError`."""
    path = _path(home, session.session_id)
    make_private_folder(path.parent)
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps({"v": _FORMAT, **asdict(session)}) + "\n")
            for message in messages:
                file.write(json.dumps(message) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def waiting(home: Path) -> list[Path]:
    """The files that wait to be taken up, by name."""
    try:
        return sorted(path for path in (home / FOLDER).iterdir() if path.suffix == _WAITING)
    except OSError:
        return []


def read_session(path: Path) -> tuple[ImportedSession, Iterator[dict[str, Any]]]:
    """Read a file: the session, and its messages as they are asked for. Raise `OSError`, `ValueError`; so may the iterator."""
    file = path.open(encoding="utf-8")
    try:
        head = json.loads(file.readline())
        if not isinstance(head, dict) or head.pop("v", None) != _FORMAT:
            raise ValueError(f"{path}: is not of the form {_FORMAT}; import it anew")
        session = ImportedSession(**head)
    except (ValueError, TypeError) as error:
        file.close()
        raise ValueError(f"{path}: is no session ({error}); remove it, and import it anew") from error

    def messages() -> Iterator[dict[str, Any]]:
        with file:
            for line in file:
                message = json.loads(line)
                if not isinstance(message, dict):
                    raise ValueError(f"{path}: holds a line that is no message; remove it, and import it anew")
                yield message

    return session, messages()


def mark_done(path: Path) -> None:
    """Put a mark in the place of a file that was taken up; raise `OSError`."""
    store_private(path.with_suffix(_DONE), "")
    path.unlink(missing_ok=True)


def _path(home: Path, session_id: str) -> Path:
    # An id of another gateway may be anything.
    return home / FOLDER / f"{hashlib.sha256(session_id.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}{_WAITING}"
