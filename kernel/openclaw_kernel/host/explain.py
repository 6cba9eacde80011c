"""Say what is wrong with a section in the words of its author: key path, what was found, the cure."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Sequence
from typing import Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

_SHOWN: Final = frozenset({"literal_error", "enum"})
"""Errors whose value may be printed: a value that must be one of a few words is no secret."""


def explain(model: type[BaseModel], section: str, error: ValidationError) -> list[str]:
    """Return one line for each fault; `section` is the path of the validated mapping, empty for a whole file."""
    return [_line(model, section, dict(detail)) for detail in error.errors(include_url=False)]


def suggest(wrong: str, known: Iterable[str]) -> str:
    """Return the cure for a name that does not exist."""
    names = sorted(known)
    near = difflib.get_close_matches(wrong, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"use one of: {', '.join(names)}" if names else "remove it"


def _line(model: type[BaseModel], section: str, detail: dict[str, Any]) -> str:
    location: tuple[str | int, ...] = detail["loc"]
    path = ".".join([part for part in (section, *map(str, location)) if part])
    kind = detail["type"]
    if kind == "extra_forbidden":
        return f"{path}: unknown key {str(location[-1])!r}; {suggest(str(location[-1]), _keys(model, location[:-1]))}"
    if kind == "missing":
        return f"{path}: missing; add it"
    message = str(detail["msg"])
    if kind in {"value_error", "assertion_error"}:
        return f"{path}: {message.partition(', ')[2] or message}"
    found = repr(detail["input"]) if kind in _SHOWN else type(detail["input"]).__name__
    return f"{path}: found {found}; {message[:1].lower()}{message[1:]}"


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
