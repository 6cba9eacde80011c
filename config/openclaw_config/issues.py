"""What is wrong with a config: where it stands, what was found, the cure, and the fix of the doctor that mends it. No pydantic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

KeyPath = tuple[str | int, ...]


class Fix(StrEnum):
    """Ids of what the doctor does about an issue. Stable: they are printed, and looked up by programs."""

    UNKNOWN_KEY = "config.unknown-key"
    """Take the nearest known key, or remove it."""
    DUPLICATE_KEY = "config.duplicate-key"
    MISSING_KEY = "config.missing-key"
    BAD_VALUE = "config.bad-value"
    UNKNOWN_NAME = "config.unknown-name"
    """A value that names something which another section does not have."""
    UNKNOWN_PLUGIN = "config.unknown-plugin"
    """A section of a plugin that is not installed."""
    UNRESOLVED_REFERENCE = "config.unresolved-reference"
    UNREADABLE_FILE = "config.unreadable-file"
    """No file, no YAML, or too much of it."""
    BAD_INCLUDE = "config.bad-include"
    BAD_PROFILE = "config.bad-profile"
    BAD_VARIABLE = "config.bad-variable"


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing wrong with the config. `line` and `column` count from 1, 0 where there is none."""

    file: str
    """The file in which the value stands, relative to the folder of `openclaw.yaml`; or the environment variable that sets it."""
    line: int
    key: str
    """Dotted."""
    found: str
    cure: str
    """Empty where `found` says it all."""
    column: int = field(default=0, kw_only=True)
    fix: Fix | None = field(default=None, kw_only=True)
    where: KeyPath | None = field(default=None, kw_only=True)
    """The key's path, where its parts can hold dots; None means those of `key`."""

    @property
    def place(self) -> str:
        """File, line and column as far as they are known: `openclaw.yaml:12:5`."""
        return placed(self.file, self.line, self.column)

    @property
    def pointer(self) -> str:
        """JSON pointer (RFC 6901) to the place in the whole config; empty for the config itself."""
        parts = self.where if self.where is not None else tuple(self.key.split(".")) if self.key else ()
        return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)

    @property
    def text(self) -> str:
        """What was found and the cure, in one line."""
        return f"{self.found}; {self.cure}" if self.cure else self.found

    def __str__(self) -> str:
        line = f"{self.place}: {self.key}: {self.text}" if self.key else f"{self.place}: {self.text}"
        # A key may hold anything; a line is one line.
        return line if line.isprintable() else "".join(each if each.isprintable() else repr(each)[1:-1] for each in line)

    def to_json(self) -> dict[str, Any]:
        """For programs: `path` and `message` as on the wire, and what they are made of."""
        return {
            "path": self.key,
            "message": self.text,
            "pointer": self.pointer,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "found": self.found,
            "cure": self.cure,
            "fix": None if self.fix is None else self.fix.value,
        }


class ConfigError(Exception):
    """The config cannot be used; `issues` says why. `files` are those that were read, for whoever waits for one of them to be mended."""

    def __init__(self, issues: Sequence[Issue], *, files: Sequence[Path] = ()) -> None:
        super().__init__("\n".join(str(issue) for issue in issues))
        self.issues = tuple(issues)
        self.files = tuple(files)


def placed(file: str, line: int, column: int) -> str:
    """Write a place: `openclaw.yaml:12:5`, or only what is known of it."""
    return ":".join([file, *(str(number) for number in (line, column) if number)])


def dotted(where: Sequence[str | int]) -> str:
    """Write a key path with dots."""
    return ".".join(str(part) for part in where)
