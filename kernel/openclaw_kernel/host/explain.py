"""Say what is wrong with a section in the words of its author: key path, what was found, the cure."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from openclaw_config.issues import Fix

_SHOWN: Final = frozenset({"literal_error", "enum"})
"""Errors whose value may be printed: a value that must be one of a few words is no secret."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong below a section."""

    where: tuple[str | int, ...]
    """Within the section."""
    found: str
    cure: str
    """Empty where `found` says it all."""
    fix: Fix

    def line(self, section: str) -> str:
        """Write it with its whole key, `section` being the path of the section."""
        name = ".".join([part for part in (section, *map(str, self.where)) if part])
        return f"{name}: {self.found}; {self.cure}" if self.cure else f"{name}: {self.found}"


def faults_of(model: type[BaseModel], content: Any, error: ValidationError) -> list[Fault]:
    """Return every fault of the `content` that was validated."""
    by_path: dict[tuple[str | int, ...], list[dict[str, Any]]] = {}
    for detail in error.errors(include_url=False):
        by_path.setdefault(_real_path(content, detail["loc"]), []).append(dict(detail))
    return [_fault(model, path, details) for path, details in by_path.items()]


def explain(model: type[BaseModel], section: str, content: Any, error: ValidationError) -> list[str]:
    """Return one line for each fault; `section` is the path of the validated `content`, empty for a whole file."""
    return [fault.line(section) for fault in faults_of(model, content, error)]


def suggest(wrong: str, known: Iterable[str]) -> str:
    """Return the cure for a name that does not exist."""
    import difflib

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


def _fault(model: type[BaseModel], path: tuple[str | int, ...], details: Sequence[dict[str, Any]]) -> Fault:
    # Of the branches of a union, those that ask for an instance cannot be met from a file.
    detail = next((each for each in details if each["type"] != "is_instance_of"), details[0])
    kind = detail["type"]
    if kind == "extra_forbidden":
        return Fault(path, f"unknown key {str(path[-1])!r}", suggest(str(path[-1]), _keys(model, path[:-1])), Fix.UNKNOWN_KEY)
    if kind == "missing":
        return Fault(path, "missing", "add it", Fix.MISSING_KEY)
    message = str(detail["msg"])
    if kind in {"value_error", "assertion_error"}:
        return Fault(path, message.partition(", ")[2] or message, "", Fix.BAD_VALUE)
    found = repr(detail["input"]) if kind in _SHOWN else type(detail["input"]).__name__
    return Fault(path, f"found {found}", f"{message[:1].lower()}{message[1:]}", Fix.BAD_VALUE)


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
