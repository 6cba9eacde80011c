"""What a fix would change, worked out and told before anything is touched: each step with what is there now and what will be."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from openclaw_config.edit import CannotEdit, changed_lines, with_value
from openclaw_config.mending import with_key_disabled, with_key_renamed
from openclaw_config.migrating import migrated, pending
from openclaw_config.redaction import redact, replace_all
from openclaw_config.secrets import known_secrets
from openclaw_config.source import ConfigError, KeyPath, dotted, line_of, parse
from openclaw_kernel.api.check import DisableKey, Fix, Migrate, RemoveFile, RenameKey, SetKey, SetMode, WriteFile

PRIVATE: Final = 0o600
_LONGEST: Final = 4 << 20
_HIDDEN: Final = "(the secret that stands there)"


class CannotFix(Exception):
    """The fix cannot be made, and nothing was changed; the message says why."""


@dataclass(frozen=True, slots=True)
class ModeStep:
    """Another mode for a file or folder."""

    path: Path
    before: int
    after: int
    told: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContentStep:
    """Another content for a file; `before` is None where there is none yet, `after` where there is to be none."""

    path: Path
    before: bytes | None = field(repr=False)
    before_mode: int
    after: bytes | None = field(repr=False)
    after_mode: int
    told: tuple[str, ...]


Step: TypeAlias = ModeStep | ContentStep
_Keyed: TypeAlias = SetKey | RenameKey | DisableKey | Migrate


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of one fix, in their order."""

    fix: Fix
    steps: Sequence[Step]

    @property
    def told(self) -> list[str]:
        """What would change, a line each."""
        return [line for step in self.steps for line in step.told]


def plan(fix: Fix, *, home: Path, config_path: Path) -> Plan:
    """Work it out on what is there now; raise `CannotFix`."""
    steps: list[Step] = []
    try:
        for change in fix.changes:
            if isinstance(change, SetMode):
                steps.append(_mode(change))
            elif isinstance(change, WriteFile):
                steps.append(_file(change, home))
            elif isinstance(change, RemoveFile):
                steps.append(_removal(change, home))
        keys = [change for change in fix.changes if isinstance(change, SetKey | RenameKey | DisableKey | Migrate)]
        if keys:
            steps.append(_config(keys, config_path.resolve()))
    except OSError as error:
        raise CannotFix(f"{error.filename or home}: {(error.strerror or str(error)).lower()}") from error
    except (CannotEdit, ConfigError, UnicodeDecodeError) as error:
        raise CannotFix(str(error)) from error
    return Plan(fix, steps)


def digest_of(content: bytes | None) -> str | None:
    """SHA-256, hexadecimal; None for a file that is not there."""
    return None if content is None else hashlib.sha256(content).hexdigest()


def read_whole(path: Path) -> tuple[bytes, int] | None:
    """A regular file's content and mode; None where there is none. Raise `OSError`, also for a link and what is no file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor has no path
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LONGEST:
            raise OSError(f"{path}: no file that can be changed; do it by hand")
        return file.read(_LONGEST + 1), stat.S_IMODE(found.st_mode)


def _mode(change: SetMode) -> ModeStep:
    found = change.path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise CannotFix(f"{change.path}: is a link; set the mode of what it leads to by hand")
    before = stat.S_IMODE(found.st_mode)
    return ModeStep(change.path, before, change.mode, (f"{change.path}: mode {before:04o} -> {change.mode:04o}",))


def _file(change: WriteFile, home: Path) -> ContentStep:
    if ".." in change.path.parts or not change.path.is_relative_to(home):
        raise CannotFix(f"{change.path}: is not below the state folder; write it by hand")
    found = read_whole(change.path)
    before, mode = (None, PRIVATE) if found is None else found
    return ContentStep(change.path, before, mode, change.text.encode(), PRIVATE, (f"{change.path}: {change.told}",))


def _removal(change: RemoveFile, home: Path) -> ContentStep:
    found = None if ".." in change.path.parts or not change.path.is_relative_to(home) else read_whole(change.path)
    if found is None:
        raise CannotFix(f"{change.path}: is no file below the state folder; remove it by hand")
    told = f"{change.path}: removed ({len(found[0])} bytes, kept in the backup)"
    return ContentStep(change.path, found[0], found[1], None, found[1], (told,))


def _config(changes: Sequence[_Keyed], path: Path) -> ContentStep:
    found = read_whole(path)
    if found is None:
        raise CannotFix(f"{path}: the file is not there")
    text = before = found[0].decode("utf-8")
    told: list[str] = []
    for change in changes:
        edited, lines = _edited(path, text, change)
        told += lines
        text = edited
    return ContentStep(path, before.encode(), found[1], text.encode(), found[1], tuple(told))


def _edited(path: Path, text: str, change: _Keyed) -> tuple[str, list[str]]:
    """The text with one change made, and what is told of it."""
    name = path.name
    if isinstance(change, SetKey):
        edited = with_value(name, text, change.key, change.value)
        return edited, list(_told(path, text, edited, change))
    if isinstance(change, RenameKey):
        place = f"{path}:{line_of(parse(name, text), change.key)}"
        edited = with_key_renamed(name, text, change.key, change.name)
        return edited, [f"{place}: - {dotted(change.key)}", f"{place}: + {dotted((*change.key[:-1], change.name))}"]
    if isinstance(change, DisableKey):
        document = parse(name, text)
        edited = with_key_disabled(name, text, change.key)
        value = replace_all(json.dumps(_value_at(document, change.key), ensure_ascii=False, default=str), known_secrets())
        becomes = "becomes a comment" if len(edited) > len(text) else "is taken out; the backup holds it"
        return edited, [f"{path}:{line_of(document, change.key)}: - {dotted(change.key)}: {value} ({becomes})"]
    steps = pending(parse(name, text))
    return migrated(name, text), [f"{path}: {step.migration.title}: {dotted(key)}" for step in steps for key in step.keys]


def _told(path: Path, before: str, after: str, change: SetKey) -> Iterator[str]:
    """The place before and after. No line of the file is shown: what else stands on it may be a secret."""
    lines = changed_lines(before, after)
    if not lines:
        return
    known = known_secrets()
    for sign, text in (("-", before), ("+", after)):
        value = json.dumps(_value_at(parse(path.name, text), change.key), ensure_ascii=False, default=str)
        shown = _HIDDEN if change.secret and sign == "-" else replace_all(value, known)
        yield f"{path}:{lines[0][0]}: {sign} {dotted(change.key)}: {shown}"


def _value_at(document: Any, where: KeyPath) -> Any:
    for part in where:
        document = next(item for key, item in document.items() if str(key) == str(part)) if isinstance(document, dict) else document[part]
    return redact(where[-1], document)


def as_json(step: Step, backup: str | None) -> dict[str, Any]:
    """How a step is kept beside its backup; no content."""
    if isinstance(step, ModeStep):
        return {"kind": "mode", "path": str(step.path), "before": step.before, "after": step.after}
    return {
        "kind": "content",
        "path": str(step.path),
        "backup": backup,
        "beforeMode": step.before_mode,
        "beforeDigest": digest_of(step.before),
        "afterMode": step.after_mode,
        "afterDigest": digest_of(step.after),
    }
