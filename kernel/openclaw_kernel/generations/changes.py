"""What two configs differ in, by key; and which generation gave a key its value. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

MOST_KEYS: Final = 2_000
"""So many keys a generation names; of more, what they stand below."""


def leaves(document: Mapping[str, Any]) -> dict[str, Any]:
    """Every value that is no mapping, by dotted key; an empty mapping is one, a list is one."""
    found: dict[str, Any] = {}
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        key, node = waiting.pop()
        if isinstance(node, Mapping) and (node or not key):
            waiting += [(f"{key}.{name}" if key else str(name), item) for name, item in reversed([*node.items()])]
        else:
            found[key] = node
    return found


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the keys whose values differ, came or went; dotted, sorted."""
    old, new = leaves(before), leaves(after)
    return sorted(key for key in old.keys() | new.keys() if key not in old or key not in new or not _same(old[key], new[key]))


def bounded(keys: Iterable[str]) -> list[str]:
    """Return the keys sorted; where they are too many, what they stand below."""
    found = sorted(set(keys))
    depth = max((key.count(".") for key in found), default=0)
    while len(found) > MOST_KEYS and depth > 0:
        found = sorted({".".join(key.split(".")[:depth]) for key in found})
        depth -= 1
    return found[:MOST_KEYS]


def touches(changed: Sequence[str], key: str) -> bool:
    """Whether a key, something above or something below it is among those that changed."""
    return any(one == key or one.startswith(f"{key}.") or key.startswith(f"{one}.") for one in changed)


def unified(before: str, after: str, *, names: tuple[str, str]) -> Iterator[str]:
    """The lines of a unified diff."""
    import difflib

    return difflib.unified_diff(before.splitlines(), after.splitlines(), *names, lineterm="")


def _same(one: Any, other: Any) -> bool:
    # 1 and True are equal to Python, and not to a config.
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return isinstance(one, bool) is isinstance(other, bool) and bool(one == other)
