"""Every key a person may write says what it is for."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

import pytest
from pydantic import BaseModel

from openclaw_config.describe import field_texts, models_in, schema_of
from openclaw_config.models import Config

GROUPS = ("openclaw.channels", "openclaw.providers", "openclaw.plugins")


def settings_models() -> dict[str, type[BaseModel]]:
    """The settings of every bundled plugin, and the config itself."""
    found: dict[str, type[BaseModel]] = {"config": Config}
    for group in GROUPS:
        for entry in importlib.metadata.entry_points(group=group):
            model = entry.load().settings
            if model is not None:
                found[entry.name] = model
    return found


@pytest.mark.parametrize("name", sorted(settings_models()))
def test_every_field_of_every_settings_model_is_described(name: str) -> None:
    bare = [
        f"{model.__name__}.{field}"
        for model in models_in(settings_models()[name])
        for field in model.model_fields
        if not field_texts(model).get(field)
    ]
    assert bare == []


def test_the_schema_carries_the_descriptions_by_alias() -> None:
    schema: dict[str, Any] = schema_of(Config)
    assert schema["properties"]["gateway"]["description"].startswith("The listener")
    defaults = schema["$defs"]["AgentDefaults"]["properties"]
    assert "tools" in defaults["maxToolRounds"]["description"]


def test_an_inherited_field_keeps_its_text() -> None:
    class Base(BaseModel):
        one: int = 1
        """The first."""

    class Child(Base):
        two: int = 2
        """The second."""

    assert field_texts(Child) == {"one": "The first.", "two": "The second."}
