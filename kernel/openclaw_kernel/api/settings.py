"""The base of a plugin's settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class PluginSettings(BaseModel):
    """A section of the config: camelCase keys, unknown ones refused, values that stay as they were read.

    The docstring beneath a field is its description in `config.schema` and in editors.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=False,
    )
