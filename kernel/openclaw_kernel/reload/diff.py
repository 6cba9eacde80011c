"""What differs between two validated configs. Pure.

A path is the keys from the top to one value; a list whose entries have an `id` is taken as a mapping by that id, any other as one value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel, ValidationError

from openclaw_config.source import dotted

Path = tuple[str, ...]
ModelT = TypeVar("ModelT", bound=BaseModel)

_MISSING: Final = object()


def changed_paths(before: BaseModel, after: BaseModel) -> list[Path]:
    """Return the paths of every leaf that differs, sorted; null counts as absent."""
    return sorted(set(_differences(before, after, ())))


def named(paths: Sequence[Path]) -> tuple[str, ...]:
    """Write paths with dots, sorted."""
    return tuple(sorted({dotted(path) for path in paths}))


def hold(candidate: ModelT, running: ModelT, paths: Sequence[Path]) -> ModelT:
    """Return the candidate with the running config's value at each of these paths."""
    held: Any = candidate
    for path in paths:
        held = _graft(held, running, path)
    return cast("ModelT", held)


def _differences(before: Any, after: Any, path: Path) -> Iterator[Path]:
    old, new = _branches(before), _branches(after)
    if old is not None and new is not None and isinstance(before, list) == isinstance(after, list):
        for key in {**old, **new}:
            yield from _differences(old.get(key, _MISSING), new.get(key, _MISSING), (*path, key))
        common = [key for key in new if key in old]
        # Of a list the order counts: the first model of a provider is its default.
        if isinstance(after, list) and common != [key for key in old if key in new]:
            yield path
    elif (old or new) and (_is_absent(before) or _is_absent(after)):
        default = _default_of(after if old is None else before)
        if default is not None:
            # That it is there says something even where all that it says is the default.
            yield from [*_differences(default, before if new is None else after, path)] or [path]
            return
        for key, value in (old or new or {}).items():
            yield from _differences(value if old else _MISSING, _MISSING if old else value, (*path, key))
    elif not _are_same(before, after):
        yield path


def _branches(value: Any) -> dict[str, Any] | None:
    """What lies below a value by key, None where it is a leaf."""
    if isinstance(value, BaseModel):
        return {info.alias or name: getattr(value, name) for name, info in type(value).model_fields.items()}
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, list) and value:
        ids = [_id_of(entry) for entry in value]
        if all(ids) and len(set(ids)) == len(ids):
            return dict(zip(cast("list[str]", ids), value, strict=True))
    return None


def _default_of(value: Any) -> BaseModel | None:
    if not isinstance(value, BaseModel):
        return None
    try:
        return type(value)()
    except ValidationError:
        return None


def _id_of(entry: Any) -> str | None:
    found = entry.get("id") if isinstance(entry, Mapping) else getattr(entry, "id", None)
    return found if isinstance(found, str) else None


def _is_absent(value: Any) -> bool:
    return value is _MISSING or value is None


def _are_same(before: Any, after: Any) -> bool:
    if _is_absent(before) or _is_absent(after):
        return _is_absent(before) and _is_absent(after)
    return isinstance(before, bool) == isinstance(after, bool) and bool(before == after)


def _graft(target: Any, source: Any, path: Path) -> Any:
    """The target with what the source has at the path, or without it where the source has nothing."""
    if not path:
        return source
    key, rest = path[0], path[1:]
    below, theirs = _branches(target), _branches(source)
    if below is None or theirs is None or isinstance(target, list) != isinstance(source, list):
        return source
    value = theirs.get(key, _MISSING)
    if value is not _MISSING and key in below:
        value = _graft(below[key], value, rest)
    return _with(target, key, value)


def _with(container: Any, key: str, value: Any) -> Any:
    if isinstance(container, BaseModel):
        names = {info.alias or name: name for name, info in type(container).model_fields.items()}
        return container.model_copy(update={names[key]: value})
    if isinstance(container, Mapping):
        kept = {name: item for name, item in container.items() if str(name) != key}
        return kept if value is _MISSING else {**kept, next((name for name in container if str(name) == key), key): value}
    entries = [entry for entry in container if _id_of(entry) != key]
    if value is _MISSING:
        return entries
    if len(entries) == len(container):
        return [*entries, value]
    return [value if _id_of(entry) == key else entry for entry in container]
