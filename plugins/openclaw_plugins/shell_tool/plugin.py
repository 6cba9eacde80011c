"""The bundled shell tool."""

from __future__ import annotations

import os
from typing import ClassVar

from pydantic import BaseModel

from openclaw_kernel.api import ConfigRejected, PluginContext, Registrar, RetryClass, Tool, hookimpl
from openclaw_plugins.shell_tool.runtime import Shell, ShellParams
from openclaw_plugins.shell_tool.settings import ShellToolSettings


class ShellToolPlugin:
    """Registers the tool switched off: there are no approvals yet, so an agent's `tools.allow` has to name it."""

    settings: ClassVar[type[BaseModel] | None] = ShellToolSettings

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @hookimpl
    def openclaw_register_tools(self, registrar: Registrar) -> None:
        settings = self._context.settings(ShellToolSettings)
        known = self._context.config.secrets.entries
        for line in settings.secret_variables:
            variable, _, name = line.partition("=")
            if name not in known or variable in {"PATH", "HOME"}:
                found = f"{variable} is the tool's own" if name in known else f"names {name!r}, which secrets.entries does not have"
                cure = "choose another variable" if name in known else f"add it there; there are: {', '.join(sorted(known)) or 'none'}"
                raise ConfigRejected("plugins.entries.shell-tool.config.secretVariables", found, cure)
        registrar.add_tool(
            Tool(
                name="shell",
                label="Shell",
                description=(
                    "Run a program in the workspace and return its output. Give argv as a list; nothing in it is expanded. "
                    "Do not leave programs running in the background: they are ended with the call."
                ),
                params=ShellParams,
                run=Shell(settings, os.environ, self._context.home).run,
                retry_class=RetryClass.SIDE_EFFECTING,
                # The command's own deadline comes first; this one catches what it cannot.
                timeout_seconds=settings.timeout_seconds + 5,
                group="runtime",
                enabled=False,
            )
        )
