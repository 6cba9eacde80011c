"""How the shell tool is registered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openclaw_kernel.api import Config, ConfigRejected, RetryClass, Tool
from openclaw_plugins.shell_tool.plugin import ShellToolPlugin
from openclaw_plugins.shell_tool.settings import ShellToolSettings


class Context:
    home = Path("/state")
    config = Config.model_validate({"secrets": {"entries": {"github": "value-of-github"}}})

    def __init__(self, *variables: str) -> None:
        self.variables = variables

    def settings(self, model: type[ShellToolSettings]) -> ShellToolSettings:
        return model.model_validate({"timeoutSeconds": 7, "secretVariables": list(self.variables)})


class Registrar:
    def __init__(self) -> None:
        self.tools: list[Tool[Any]] = []

    def add_tool(self, tool: Tool[Any]) -> None:
        self.tools.append(tool)


def test_the_shell_is_off_until_an_agent_names_it() -> None:
    registrar = Registrar()
    ShellToolPlugin(Context()).openclaw_register_tools(registrar)  # type: ignore[arg-type]
    [tool] = registrar.tools
    assert (tool.name, tool.enabled, tool.retry_class) == ("shell", False, RetryClass.SIDE_EFFECTING)
    assert tool.timeout_seconds > 7
    assert tool.schema()["additionalProperties"] is False


@pytest.mark.parametrize(
    ("line", "problem"),
    [("TOKEN=githb", "names 'githb', which secrets.entries does not have; add it there"), ("PATH=github", "PATH is the tool's own")],
)
def test_a_variable_that_cannot_be_filled_is_refused(line: str, problem: str) -> None:
    plugin = ShellToolPlugin(Context(line))  # type: ignore[arg-type]
    with pytest.raises(ConfigRejected, match=problem):
        plugin.openclaw_register_tools(Registrar())  # type: ignore[arg-type]
