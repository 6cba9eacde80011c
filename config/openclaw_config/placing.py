"""Setting or taking out one key, as a merge patch over what a config says. Pure, no pydantic."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from openclaw_config.issues import KeyPath, dotted

UNSET: Final = object()
"""In the place of a value: the key is to go."""


class CannotPlace(Exception):
    """There is no such place; the message names the key and the cure."""


@dataclass(slots=True)
class Placed:
    """A merge patch, and the lists that it shortens on purpose."""

    patch: dict[str, Any]
    replace_paths: list[str] = field(default_factory=list)


def placed(source: Mapping[str, Any], path: str, value: Any) -> Placed:
    """The patch that makes a dotted key say exactly this, or nothing; raise `CannotPlace`.

    A part of the path is a key, or the index of a list's item; the index after the last one adds an item.
    """
    parts = path.split(".")
    if not all(parts):
        raise CannotPlace(f"{path!r}: is no dotted key; write it as gateway.port")
    found = Placed({})
    found.patch = _patch(source, tuple(parts), (), value, found.replace_paths)
    return found


def _patch(holder: Any, parts: tuple[str, ...], where: KeyPath, value: Any, replaced: list[str]) -> Any:
    if not parts:
        return None if value is UNSET else _exactly(holder, value, where, replaced)
    if isinstance(holder, list):
        replaced.append(dotted(where))
        return _in_list(holder, parts, where, value)
    key, place = parts[0], (*where, parts[0])
    inner = holder.get(key) if isinstance(holder, Mapping) else None
    if value is UNSET and (not isinstance(holder, Mapping) or key not in holder):
        raise CannotPlace(f"{dotted(place)}: is not set; see openclaw-kernel config get")
    return {key: _patch(inner, parts[1:], place, value, replaced)}


def _exactly(before: Any, value: Any, where: KeyPath, replaced: list[str]) -> Any:
    if isinstance(value, Mapping) and isinstance(before, Mapping):
        gone = {key: None for key in before if key not in value}
        return {**gone, **{key: _exactly(before.get(key), item, (*where, key), replaced) for key, item in value.items()}}
    if isinstance(value, list):
        replaced.append(dotted(where))
    return value


def _in_list(items: list[Any], parts: tuple[str, ...], where: KeyPath, value: Any) -> list[Any]:
    changed = copy.deepcopy(items)
    node: Any = changed
    for depth, part in enumerate(parts):
        place = (*where, *parts[: depth + 1])
        last = depth == len(parts) - 1
        if isinstance(node, list):
            index = int(part) if part.isdecimal() else -1
            most = len(node) if last and value is not UNSET else len(node) - 1
            if not 0 <= index <= most:
                raise CannotPlace(f"{dotted(place)}: the list has {len(node)} items, counted from 0; give an index up to {most}")
            key: Any = index
        elif isinstance(node, dict):
            key = part
            if part not in node and not (last and value is not UNSET):
                raise CannotPlace(f"{dotted(place)}: is not set; see openclaw-kernel config get")
        else:
            raise CannotPlace(f"{dotted(place)}: nothing can be below a single value; set what is above it")
        if not last:
            node = node[key]
        elif value is UNSET:
            del node[key]
        elif isinstance(node, list) and key == len(node):
            node.append(value)
        else:
            node[key] = value
    return changed
