"""The section `plugins.entries.control-ui.config`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class ControlUiSettings(BaseModel):
    """Nothing is served until `root` is set."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, validate_by_alias=True, validate_by_name=False)

    root: Annotated[str, Field(min_length=1)] | None = None
    """Folder with a built Control UI, the one that holds `index.html`; `~` is the home folder."""
    path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~-]+)+$")] = "/control-ui"
    """Where it is found, below `gateway.controlUi.basePath`."""
