"""The bundled plugin that serves a Control UI."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel

from openclaw_kernel.api import NotReady, PluginContext, Registrar, hookimpl
from openclaw_plugins.control_ui.files import open_below
from openclaw_plugins.control_ui.routes import INDEX, ControlUiRoutes
from openclaw_plugins.control_ui.settings import ControlUiSettings


class Folder:
    """Says whether a Control UI is in the folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def start(self) -> None:
        """Look for the page.

        Raises:
            NotReady: it is not there yet.
        """
        page = await asyncio.to_thread(open_below, self._root, INDEX)
        if page is None:
            key = "plugins.entries.control-ui.config.root"
            raise NotReady(f"{key}: no {INDEX} in {self._root}; point it at the folder of a built Control UI")
        page.close()

    async def stop(self) -> None:
        """Nothing is held."""


class ControlUiPlugin:
    """Registers the routes, where a folder is named."""

    settings: ClassVar[type[BaseModel] | None] = ControlUiSettings

    def __init__(self, context: PluginContext) -> None:
        settings = context.settings(ControlUiSettings)
        self._root = None if settings.root is None else context.home / Path(settings.root).expanduser()
        self._mount = settings.path
        self._base_path = context.config.gateway.control_ui.base_path + settings.path

    @hookimpl
    def openclaw_register_routes(self, registrar: Registrar) -> None:
        """Serve the folder."""
        if self._root is not None:
            for route in ControlUiRoutes(self._root, mount=self._mount, base_path=self._base_path).routes():
                registrar.add_route(route)

    @hookimpl
    def openclaw_register_services(self, registrar: Registrar) -> None:
        """Look whether it is there."""
        if self._root is not None:
            registrar.add_unit(Folder(self._root))
