"""How the web tools are registered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from openclaw_kernel.api import RetryClass, Tool, ToolContext, ToolError
from openclaw_plugins.web_tools.plugin import WebToolsPlugin
from openclaw_plugins.web_tools.settings import FetchParams, WebToolsSettings


class Context:
    def settings(self, model: type[WebToolsSettings]) -> WebToolsSettings:
        return model()


class Registrar:
    def __init__(self) -> None:
        self.tools: list[Tool[Any]] = []

    def add_tool(self, tool: Tool[Any]) -> None:
        self.tools.append(tool)


async def test_fetch_is_registered_and_refuses_private_places_by_default() -> None:
    registrar = Registrar()
    WebToolsPlugin(Context()).openclaw_register_tools(registrar)  # type: ignore[arg-type]
    [tool] = registrar.tools
    assert (tool.name, tool.enabled, tool.retry_class, tool.group) == ("fetch", True, RetryClass.PURE, "web")
    context = ToolContext(agent_id="main", session_key="s", run_id="r", call_id="c", workspace=Path())
    with pytest.raises(ToolError, match=r"127\.0\.0\.1 is not a public address"):
        await tool.run(context, FetchParams(url="http://127.0.0.1/"))


def test_the_plugin_is_imported_without_its_client() -> None:
    code = "import sys, openclaw_plugins.web_tools.plugin; print('openclaw_plugins.web_tools.runtime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
