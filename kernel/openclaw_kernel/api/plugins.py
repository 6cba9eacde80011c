"""Plugins that come, go and change while the gateway runs: the service `Plugins`, for a plugin that offers this to people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from openclaw_kernel.api.config import Change, UnitResult
from openclaw_kernel.api.errors import InvalidRequest


class RestartNeeded(InvalidRequest):
    """Python cannot do it in a process that runs; nothing was changed. The message has the reason and the cure."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message, details={"code": "RESTART_NEEDED", "reason": reason})
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginEntry:
    """One installed plugin, as a list of them shows it."""

    id: str
    kind: str
    distribution: str
    version: str
    bundled: bool
    state: str
    """One of `PluginState`."""
    reason: str | None
    summary: str
    restart: str | None
    """What of it waits for a restart: files of another version lie on disk than what runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginOutcome:
    """What became of something that was asked for."""

    plugins: Sequence[str]
    """The plugins that it was about, by id."""
    results: Sequence[UnitResult] = ()
    restart: str | None = None
    """Why a restart has to bring it about, None where it is in force."""
    version: str | None = None
    """The version that is installed now."""
    warnings: Sequence[str] = ()


class Plugins(Protocol):
    """What is installed, and changing it. One change at a time; whoever asks waits. None of it is for agents: raise `Forbidden`."""

    def entries(self) -> Sequence[PluginEntry]:
        """Return what is installed, bundled ones first."""
        ...

    async def set_enabled(self, plugin_id: str, change: Change, *, enabled: bool) -> PluginOutcome:
        """Write `plugins.entries.<id>.enabled` and apply it; raise as `Configuration.write`."""
        ...

    async def reload(self, plugin_id: str, change: Change) -> PluginOutcome:
        """Import its code anew and replace it; what is under way ends on the old.

        Raises:
            RestartNeeded: its code cannot be replaced in this process.
            NotApplied: the new does not start; the old one runs on.
        """
        ...

    async def refresh(self, change: Change) -> PluginOutcome:
        """Look again what is installed: load what has come, stop what is gone, replace what has another version."""
        ...

    async def install(self, requirement: str, change: Change, *, index: bool) -> PluginOutcome:
        """Install by pip, and load its plugins. `requirement` is a path of the gateway's machine, or with `index` anything pip takes.

        Raises:
            InvalidRequest: pip failed, or there is no plugin in it; nothing is left of it.
        """
        ...

    async def upgrade(self, plugin_id: str, requirement: str | None, change: Change, *, index: bool) -> PluginOutcome:
        """Install another version and replace its plugins; where that does not start, the version before is put back, files and all.

        Raises:
            NotApplied: the new version does not start; the one before runs.
        """
        ...

    async def remove(self, plugin_id: str, change: Change) -> PluginOutcome:
        """Stop its distribution's plugins and uninstall it."""
        ...


def results_to_wire(results: Sequence[UnitResult]) -> list[dict[str, Any]]:
    """What was done to each unit, as methods tell it."""
    return [{"unit": result.unit, "outcome": result.outcome.value, "error": result.error, "waits": result.waits} for result in results]
