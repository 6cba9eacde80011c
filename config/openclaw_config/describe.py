"""JSON Schema of a settings model with the docstring beneath each field as its description.

pydantic can read these docstrings itself (`use_attribute_docstrings`), but does so for every class at import, which costs the start
60 ms for texts that only `config.schema` shows.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The model's JSON Schema by alias, every field described."""
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.get("$defs", {})
    for found in models_in(model):
        place = schema if found is model else definitions.get(found.__name__)
        if place is None:
            continue
        texts = field_texts(found)
        for name, info in found.model_fields.items():
            entry = place.get("properties", {}).get(info.alias or name)
            if entry is not None and name in texts:
                entry.setdefault("description", texts[name])
    return schema


def models_in(model: type[BaseModel], seen: set[type[BaseModel]] | None = None) -> Iterator[type[BaseModel]]:
    """The model and every model its fields are made of, each once."""
    known = set() if seen is None else seen
    if model in known:
        return
    known.add(model)
    yield model
    for info in model.model_fields.values():
        for part in _classes(info.annotation):
            yield from models_in(part, known)


def field_texts(model: type[BaseModel]) -> dict[str, str]:
    """Field name to the docstring beneath it, inherited fields included."""
    texts: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if issubclass(owner, BaseModel) and owner is not BaseModel:
            texts |= _own_texts(owner)
    return texts


def _own_texts(model: type[BaseModel]) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(model)))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    texts = {}
    for statement, following in itertools.pairwise(body):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant) and isinstance(following.value.value, str):
            texts[statement.target.id] = inspect.cleandoc(following.value.value)
    return texts


def _classes(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _classes(argument)
