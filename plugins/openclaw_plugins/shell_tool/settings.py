"""The section `plugins.entries.shell-tool.config`."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from openclaw_kernel.api import PluginSettings

DEFAULT_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


class ShellToolSettings(PluginSettings):
    allow_shell_line: bool = False
    """Take a `command` line for /bin/sh as well as a list of arguments."""
    timeout_seconds: Annotated[int, Field(ge=1, le=3_600)] = 60
    """Longest a command may run, in seconds."""
    output_bytes: Annotated[int, Field(ge=256, le=4 << 20)] = 32_768
    """How much of the output is kept, half from its beginning and half from its end."""
    search_path: Annotated[str, Field(pattern=r"^/[^:]*(:/[^:]*)*$")] = DEFAULT_PATH
    """Absolute folders in which programs are looked for, separated by colons; the child's PATH."""
    secret_variables: list[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*=[a-z0-9][a-z0-9_-]{0,63}$")]] = []
    """`VARIABLE=name` of `secrets.entries`: commands of an agent whose `secrets` names it see the secret in that variable."""
    environment: list[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]] = ["LANG", "LC_ALL", "TZ"]
    """Names of the gateway's environment variables that a command may see, beside PATH and HOME, which is the workspace."""
