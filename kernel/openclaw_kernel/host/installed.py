"""The entry points of everything on `sys.path`, read so that one broken distribution spoils no other.

`importlib.metadata.entry_points()` raises for all where one distribution's files are damaged.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint
from typing import Final

UNKNOWN: Final = "unknown"

_VALUE: Final = re.compile(r"[\w.]+\s*(:\s*[\w.]+\s*)?(\[.*\])?")


@dataclass(frozen=True, slots=True)
class Installed:
    """One entry point and where it comes from. `fault` says why it cannot be used, None where it can."""

    entry_point: EntryPoint
    distribution: str
    version: str
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Inventory:
    """The entry points of the groups asked for, and what could not be read, a line each."""

    entries: tuple[Installed, ...]
    problems: tuple[str, ...]


def installed(groups: Collection[str]) -> Inventory:
    """Read the entry points of these groups; of several copies of a distribution the first on the path counts."""
    # Finders cache folders by their time stamp, which is too coarse to notice what was installed a moment ago.
    importlib.invalidate_caches()
    entries: list[Installed] = []
    problems: list[str] = []
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions():
        try:
            text = distribution.read_text("entry_points.txt")
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"a distribution in {_folder(distribution)} has an unreadable entry_points.txt ({error}); reinstall it")
            continue
        # Most distributions have nothing for us, and to parse the metadata of all takes longer than all else here.
        if text is None or not any(group in text for group in groups):
            continue
        name, version, fault = _identity(distribution)
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in seen and fault is None:
            continue
        seen.add(key)
        entries += [Installed(each, name, version, fault or _wrong_value(each)) for each in _parse(text, groups)]
    return Inventory(tuple(entries), tuple(problems))


def _identity(distribution: Distribution) -> tuple[str, str, str | None]:
    """Return name, version, and what is wrong with the metadata."""
    try:
        metadata = distribution.metadata
        name, version = ((metadata.get_all(key) or [UNKNOWN])[0] for key in ("Name", "Version"))
    except (OSError, UnicodeDecodeError, TypeError) as error:
        # Without any of its files the email parser is given None, hence TypeError.
        return UNKNOWN, UNKNOWN, f"the METADATA of its distribution in {_folder(distribution)} cannot be read ({error}); reinstall it"
    if UNKNOWN in {name, version}:
        return name, version, f"the METADATA of its distribution in {_folder(distribution)} lacks name or version; reinstall it"
    return name, version, None


def _parse(text: str, groups: Collection[str]) -> Iterator[EntryPoint]:
    group = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("[") and line.endswith("]"):
            group = line[1:-1].strip()
        elif group in groups and line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            yield EntryPoint(name.strip(), value.strip(), group)


def _wrong_value(entry_point: EntryPoint) -> str | None:
    if _VALUE.fullmatch(entry_point.value):
        return None
    return f"entry point {entry_point.value!r} is not written as 'package.plugin:Class'; correct it"


def _folder(distribution: Distribution) -> str:
    return str(distribution.locate_file(""))
