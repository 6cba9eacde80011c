"""Merging a patch into the source of a config, by the rules of `config.patch`. Pure, no pydantic.

null deletes, objects recurse, arrays whose items all have an `id` merge by it, other arrays replace.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from openclaw_config.issues import KeyPath, dotted

_MISSING: Final = object()


class CannotMerge(Exception):
    """The patch cannot be merged; the message names the key and the cure."""


def merged(source: Any, patch: Any, replace_paths: Collection[str] = ()) -> Any:
    """The source with a patch merged in; neither is changed. Raise `CannotMerge` where a list would lose entries unasked.

    `replace_paths` are the dotted places of lists that may be replaced as they are.
    """
    return _merged(source, patch, (), frozenset(replace_paths))


def _merged(base: Any, patch: Any, where: KeyPath, replace: frozenset[str]) -> Any:
    if isinstance(patch, Mapping):
        result = dict(base) if isinstance(base, Mapping) else {}
        for key, value in patch.items():
            name = str(key)
            if value is None:
                result.pop(name, None)
            else:
                result[name] = _merged(result.get(name), value, (*where, name), replace)
        return result
    if isinstance(patch, Sequence) and not isinstance(patch, str) and isinstance(base, Sequence) and not isinstance(base, str):
        return _list(base, patch, where, replace)
    return patch


def _list(base: Sequence[Any], patch: Sequence[Any], where: KeyPath, replace: frozenset[str]) -> list[Any]:
    if dotted(where) in replace:
        return [*patch]
    if base and patch and all(map(_has_id, (*base, *patch))):
        result = [*base]
        for entry in patch:
            position = next((index for index, item in enumerate(result) if item["id"] == entry["id"]), None)
            if position is None:
                result.append(_merged(None, entry, where, replace))
            else:
                result[position] = _merged(result[position], entry, (*where, position), replace)
        return result
    lost = _lost(base, patch)
    if lost:
        raise CannotMerge(
            f"{dotted(where)}: would lose {lost} of its {len(base)} entries; "
            f"send the whole list, or name {dotted(where)} in replacePaths if they are to go"
        )
    return [*patch]


def _has_id(item: Any) -> bool:
    return isinstance(item, Mapping) and isinstance(item.get("id"), str) and bool(item["id"])


def _lost(base: Sequence[Any], patch: Sequence[Any]) -> int:
    left = [*patch]
    lost = 0
    for item in base:
        position = next((index for index, other in enumerate(left) if same(item, other)), None)
        if position is None:
            lost += 1
        else:
            left.pop(position)
    return lost


def same(one: Any, other: Any) -> bool:
    """Whether two trees say the same, kinds of scalars and the order of lists included."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (one == other or one != one)  # noqa: PLR0124 - what is no number equals nothing


def differences(one: Any, other: Any, where: KeyPath = ()) -> list[tuple[KeyPath, Any, Any]]:
    """Every place at which two trees differ with both values, `None` for what is not there; lists are compared as a whole."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        found: list[tuple[KeyPath, Any, Any]] = []
        for key in dict.fromkeys((*one, *other)):
            before, after = one.get(key, _MISSING), other.get(key, _MISSING)
            if before is _MISSING or after is _MISSING:
                found += _leaves(before, after, (*where, key))
            else:
                found += differences(before, after, (*where, key))
        return found
    return [] if same(one, other) else [(where, one, other)]


def _leaves(before: Any, after: Any, where: KeyPath) -> list[tuple[KeyPath, Any, Any]]:
    value = after if before is _MISSING else before
    if isinstance(value, Mapping) and value:
        empty: dict[str, Any] = {}
        return differences(empty, after, where) if before is _MISSING else differences(before, empty, where)
    return [(where, None if before is _MISSING else before, None if after is _MISSING else after)]
