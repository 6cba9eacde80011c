"""Numbered steps that bring `openclaw.yaml` to the form of this version: edits of its text, of which every other byte stays.

A step never runs in the start path: the gateway reads the form of the version before as well, and `doctor --fix` makes the steps. A
released step never changes; a new form gets a new one. Each is safe to make twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from openclaw_config.source import KeyPath, parse


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigMigration:
    """One step. `finds` names the keys that are still in the old form, `edit` brings one of them to the new one.

    `edit` gets the file's name, its text and the key; it raises `CannotEdit` where it cannot be done with all else as it is.
    """

    number: int
    title: str
    finds: Callable[[Mapping[str, Any]], Sequence[KeyPath]]
    edit: Callable[[str, str, KeyPath], str]


@dataclass(frozen=True, slots=True)
class Pending:
    """A step that a file needs, and where."""

    migration: ConfigMigration
    keys: Sequence[KeyPath]


MIGRATIONS: Final[tuple[ConfigMigration, ...]] = ()
"""In their order. There is none yet: the form of version 0.1.0 is the form of this one."""


def pending(document: Mapping[str, Any], migrations: Sequence[ConfigMigration] = MIGRATIONS) -> list[Pending]:
    """The steps that a parsed file needs, in their order."""
    return [Pending(step, keys) for step in migrations if (keys := step.finds(document))]


def migrated(name: str, text: str, migrations: Sequence[ConfigMigration] = MIGRATIONS) -> str:
    """Return the text in the form of this version; raise `ConfigError`, `CannotEdit`."""
    for step in migrations:
        # Looked for anew after each edit: it may have moved what comes after it.
        for _ in range(len(step.finds(parse(name, text)))):
            left = step.finds(parse(name, text))
            if not left:
                break
            text = step.edit(name, text, left[0])
    return text
