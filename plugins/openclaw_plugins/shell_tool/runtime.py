"""Running one command: a vector of arguments, a deadline, and the end of everything it started."""

from __future__ import annotations

import asyncio
import functools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

from pydantic import BaseModel, ConfigDict, Field

from openclaw_kernel.api import Leash, ToolContext, ToolError, ToolResult
from openclaw_plugins.shell_tool.output import HeadAndTail
from openclaw_plugins.shell_tool.settings import ShellToolSettings

SHELL: Final = "/bin/sh"
TERM_GRACE_SECONDS: Final = 0.5
GONE_SECONDS: Final = 0.8


class ShellParams(BaseModel):
    model_config = ConfigDict(extra="forbid")

    argv: list[str] | None = None
    """The program and its arguments, each as one string; nothing is expanded."""
    command: str | None = None
    """A line for /bin/sh, where the gateway allows it."""
    cwd: str = "."
    """Folder to run in, inside the workspace."""
    timeout_seconds: float | None = Field(default=None, gt=0)
    """Shorter deadline than the default."""


class _Child(asyncio.SubprocessProtocol):
    """Collects the output of a process without a task of its own."""

    def __init__(self, limit: int) -> None:
        self.transport: asyncio.SubprocessTransport | None = None
        self.output = HeadAndTail(limit)
        self.exited = asyncio.Event()
        self.drained = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.output.add(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self.drained.set()

    @property
    def status(self) -> int | None:
        return None if self.transport is None else self.transport.get_returncode()

    def process_exited(self) -> None:
        self.exited.set()


class Shell:
    """The tool's work. `environment` is the gateway's, of which commands see what the settings name; `home` its state folder."""

    def __init__(self, settings: ShellToolSettings, environment: Mapping[str, str], home: Path) -> None:
        self._settings = settings
        self._environment = environment
        self._home = home

    async def run(self, context: ToolContext, params: ShellParams) -> ToolResult:
        """Run the command to its end, its deadline or cancellation; nothing that it started outlives the call."""
        argv = self._argv(params)
        cwd = _inside(context.workspace, params.cwd)
        executable = self._executable(argv[0], cwd)
        seconds = min(params.timeout_seconds or self._settings.timeout_seconds, self._settings.timeout_seconds)
        environment = await self._child_environment(context)
        leash = Leash(self._home)
        child = _Child(self._settings.output_bytes)
        try:
            await leash.start(
                functools.partial(asyncio.get_running_loop().subprocess_exec, lambda: child),
                argv,
                executable=executable,
                cwd=cwd,
                environment=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            late = await _ended(child, leash, seconds)
        except OSError as error:
            raise ToolError(f"{argv[0]} cannot be run: {error.strerror or error}") from error
        finally:
            try:
                # Also when the call is cancelled.
                leash.kill()
                if child.transport is not None:
                    await _within(child.exited, GONE_SECONDS)
            finally:
                leash.release()
                if child.transport is not None:
                    child.transport.close()
        return _result(child, child.status, late_after=seconds if late else None)

    def _argv(self, params: ShellParams) -> list[str]:
        if (params.argv is None) == (params.command is None):
            raise ToolError("give either argv, a list of the program and its arguments, or command")
        if params.command is not None:
            if not self._settings.allow_shell_line:
                raise ToolError(
                    'shell lines are off; give argv, such as ["ls", "-l"] '
                    "(the owner can set plugins.entries.shell-tool.config.allowShellLine)"
                )
            argv = [SHELL, "-c", params.command]
        else:
            argv = params.argv or []
        if not argv or not argv[0]:
            raise ToolError("argv is empty; its first entry names the program")
        for argument in argv:
            _refuse_unfit(argument, "an argument")
        return argv

    def _executable(self, name: str, cwd: Path) -> str:
        """Return the absolute path of a program: looked up in the settings' folders, or a path from the command's folder."""
        if "/" in name:
            return str(cwd / name)
        found = shutil.which(name, path=self._settings.search_path)
        if found is None:
            raise ToolError(f"there is no program {name!r} in {self._settings.search_path}")
        return found

    async def _child_environment(self, context: ToolContext) -> dict[str, str]:
        passed = {name: self._environment[name] for name in self._settings.environment if name in self._environment}
        in_scope = context.secrets.names()
        for line in self._settings.secret_variables:
            variable, _, name = line.partition("=")
            if name in in_scope:
                passed[variable] = (await context.secrets.lease(name, purpose=f"variable {variable} of a command")).unwrap()
        return {**passed, "PATH": self._settings.search_path, "HOME": str(context.workspace)}


def _refuse_unfit(text: str, what: str) -> None:
    """Raise `ToolError` for what the system cannot be given."""
    if "\0" in text:
        raise ToolError(f"{what} holds a NUL character; leave it out")
    if text != text.encode("utf-8", "replace").decode():
        raise ToolError(f"{what} holds half of a character; leave it out")


def _inside(workspace: Path, cwd: str) -> Path:
    """Return the folder to run in, with links followed; raise `ToolError` where it is not in the workspace."""
    _refuse_unfit(cwd, "cwd")
    root = workspace.resolve()
    try:
        folder = (root / cwd).resolve()
        is_inside, is_folder = folder.is_relative_to(root), folder.is_dir()
    except (OSError, RuntimeError) as error:
        # A name that is too long, or links that lead in a circle.
        raise ToolError(f"cwd {cwd[:80]!r} cannot be used: {getattr(error, 'strerror', None) or 'its links lead in a circle'}") from error
    if not is_inside:
        raise ToolError(f"cwd {cwd!r} is outside the workspace; name a folder inside it")
    if not is_folder:
        raise ToolError(f"cwd {cwd!r} is not a folder of the workspace")
    return folder


async def _ended(child: _Child, leash: Leash, seconds: float) -> bool:
    """Wait for the end of the command and of all it started; return whether it had to be stopped."""
    late = not await _within(child.exited, seconds)
    if late:
        leash.terminate()
        if not await _within(child.exited, TERM_GRACE_SECONDS):
            leash.kill()
            await _within(child.exited, GONE_SECONDS)
    # Nobody is left who could write, so this is the time that what was written takes to be read.
    await _within(child.drained, GONE_SECONDS)
    return late


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _result(child: _Child, status: int | None, *, late_after: float | None) -> ToolResult:
    text = child.output.text()
    if late_after is not None:
        return ToolResult(text=_with_line(text, f"[stopped after {late_after:g} seconds]"), is_error=True)
    if status is not None and status < 0:
        return ToolResult(text=_with_line(text, f"[ended by signal {-status}]"), is_error=True)
    if status:
        return ToolResult(text=_with_line(text, f"[exit status {status}]"), is_error=True)
    return ToolResult(text=text or "[no output]")


def _with_line(text: str, line: str) -> str:
    return f"{text.rstrip()}\n{line}" if text.strip() else line
