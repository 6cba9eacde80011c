"""The section `plugins.entries.agents.config`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class AgentsSettings(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, validate_by_alias=True, validate_by_name=False, use_attribute_docstrings=True
    )

    file_chars: Annotated[int, Field(ge=0, le=1_000_000)] = 8_000
    """How many characters of each workspace file go into the prompt."""
    total_chars: Annotated[int, Field(ge=0, le=4_000_000)] = 24_000
    """How many characters of all workspace files together go into the prompt."""
