"""The sections of the installed plugins as the composed schema of the config wants them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

from pydantic import BaseModel

from openclaw_config.composed import OPEN, Section
from openclaw_config.describe import schema_of
from openclaw_kernel.host.discovery import Discovery, Found
from openclaw_kernel.host.guard import or_else
from openclaw_kernel.host.loader import LoadFailed, load_class

_NOT_KNOWN: Final[Any] = object()
_SCHEMAS: Final[WeakKeyDictionary[type[BaseModel], Mapping[str, Any]]] = WeakKeyDictionary()


def sections_of(discovery: Discovery, models: Mapping[str, type[BaseModel] | None]) -> list[Section]:
    """One section a plugin that is installed.

    `models` are the settings models of those that were imported, None of one that takes no settings. What any other takes nobody knows
    here, so its section is open; so is that of a program, and of a plugin whose schema cannot be made.
    """
    return [_section(found, models) for found in discovery.plugins]


def import_models(discovery: Discovery, document: Mapping[str, Any]) -> dict[str, type[BaseModel] | None]:
    """Import the settings models of all plugins but those that a config switches off; `document` is the config, not validated."""
    plugins = _mapping(document.get("plugins"))
    entries = _mapping(plugins.get("entries"))
    models: dict[str, type[BaseModel] | None] = {}
    for found in discovery.plugins:
        is_off = _mapping(entries.get(found.id)).get("enabled") is False or (plugins.get("enabled") is False and not found.bundled)
        is_program = found.manifest is not None and found.manifest.child is not None
        if found.state != "discovered" or is_off or is_program:
            continue
        model = or_else(found.id, "settings", _model, _NOT_KNOWN)(found)
        if model is not _NOT_KNOWN:
            models[found.id] = model
    return models


def _model(found: Found) -> type[BaseModel] | None:
    model: Any = getattr(load_class(found), "settings", None)
    if model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise LoadFailed(f"settings is {model!r}; name a pydantic model, or None")
    return model


def _section(found: Found, models: Mapping[str, type[BaseModel] | None]) -> Section:
    model = models.get(found.id)
    schema: Mapping[str, Any] | None
    if found.id not in models:
        schema = OPEN
    else:
        schema = None if model is None else or_else(found.id, "schema of the settings", _schema_of, OPEN)(model)
    claims = found.manifest.provider if found.manifest is not None else None
    return Section(
        id=found.id,
        kind=found.kind,
        schema=schema,
        apis=() if claims is None else claims.apis,
        ids=() if claims is None else claims.ids,
    )


def _schema_of(model: type[BaseModel]) -> Mapping[str, Any]:
    # Made from source texts too, which takes its time; a class stays what it is.
    if model not in _SCHEMAS:
        _SCHEMAS[model] = schema_of(model)
    return _SCHEMAS[model]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
