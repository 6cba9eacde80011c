"""Say what is wrong with a section in the words of its author: key path, what was found, the cure."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

_SHOWN: Final = frozenset({"literal_error", "enum"})
"""Errors whose value may be printed: a value that must be one of a few words is no secret."""


def explain(model: type[BaseModel], section: str, content: Any, error: ValidationError) -> list[str]:
    """Return one line for each fault; `section` is the path of the validated `content`, empty for a whole file."""
    by_path: dict[tuple[str | int, ...], list[dict[str, Any]]] = {}
    for detail in error.errors(include_url=False):
        by_path.setdefault(_real_path(content, detail["loc"]), []).append(dict(detail))
    return [_line(model, section, path, details) for path, details in by_path.items()]


def suggest(wrong: str, known: Iterable[str]) -> str:
    """Return the cure for a name that does not exist."""
    names = sorted(known)
    near = difflib.get_close_matches(wrong, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"use one of: {', '.join(names)}" if names else "remove it"


def _real_path(content: Any, location: Sequence[str | int]) -> tuple[str | int, ...]:
    # A union adds the name of its branch to the location, which the author of the section never wrote.
    path: list[str | int] = []
    for position, part in enumerate(location):
        inside = part in content if isinstance(content, Mapping) else isinstance(content, list) and isinstance(part, int)
        if inside:
            content = content[part]
        elif not isinstance(content, Mapping) or position < len(location) - 1:
            continue
        path.append(part)
    return tuple(path)


def _line(model: type[BaseModel], section: str, path: tuple[str | int, ...], details: Sequence[dict[str, Any]]) -> str:
    # Of the branches of a union, those that ask for an instance cannot be met from a file.
    detail = next((each for each in details if each["type"] != "is_instance_of"), details[0])
    name = ".".join([part for part in (section, *map(str, path)) if part])
    kind = detail["type"]
    if kind == "extra_forbidden":
        return f"{name}: unknown key {str(path[-1])!r}; {suggest(str(path[-1]), _keys(model, path[:-1]))}"
    if kind == "missing":
        return f"{name}: missing; add it"
    message = str(detail["msg"])
    if kind in {"value_error", "assertion_error"}:
        return f"{name}: {message.partition(', ')[2] or message}"
    found = repr(detail["input"]) if kind in _SHOWN else type(detail["input"]).__name__
    return f"{name}: found {found}; {message[:1].lower()}{message[1:]}"


def _keys(model: type[BaseModel], location: Sequence[str | int]) -> set[str]:
    models = [model]
    for part in location:
        annotations = [field.annotation for owner in models for name, field in owner.model_fields.items() if part in {name, field.alias}]
        # A list's index, a mapping's key or a union's tag leads to no field: the models stay.
        models = [found for annotation in annotations for found in _models_in(annotation)] or models
    return {field.alias or name for owner in models for name, field in owner.model_fields.items()}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return [annotation] if issubclass(annotation, BaseModel) else []
    if get_origin(annotation) in {Union, types.UnionType, list, dict, tuple, set} or get_args(annotation):
        return [found for argument in get_args(annotation) for found in _models_in(argument)]
    return []
