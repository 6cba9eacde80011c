"""The section `plugins.entries.control-ui.config`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from openclaw_kernel.api import PluginSettings


class ControlUiSettings(PluginSettings):
    """Nothing is served until `root` is set."""

    root: Annotated[str, Field(min_length=1)] | None = None
    """Folder with a built Control UI, the one that holds `index.html`; `~` is the home folder."""
    path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~-]+)+$")] = "/control-ui"
    """Where it is found, below `gateway.controlUi.basePath`."""
