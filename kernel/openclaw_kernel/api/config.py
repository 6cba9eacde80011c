"""The configuration in force, and changing it: what a plugin that offers it to people asks for by `context.service(Configuration)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from openclaw_kernel.api.audit import AuditOrigin
from openclaw_kernel.api.errors import InvalidRequest


class ReloadOutcome(StrEnum):
    """What a change does to one unit, the gentlest first; the words of a manifest's `[reload]`."""

    NONE = "none"
    """Nothing: it reads the value when it needs it, or not at all."""
    HOT = "hot"
    """It is handed the changed snapshot and goes on."""
    UNIT = "unit"
    """It is replaced by a new instance; nobody else is touched."""
    PROCESS = "process"
    """Only a restart of the gateway brings it about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPlan:
    """What a change does to one unit: a plugin by its id, or `kernel`."""

    unit: str
    outcome: ReloadOutcome
    paths: Sequence[str]
    """The changed keys that decide it, dotted, sorted."""
    reason: str
    """One line for people: which rule decided."""
    waits: bool = False
    """It needs a restart that the mode does not make by itself."""
    connections: int = 0
    """How many clients and conversations it touches: those that are connected through it now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigPlan:
    """What a configuration would do to what runs; a pure function of both."""

    changed: Sequence[str]
    """Every changed leaf, dotted, sorted."""
    units: Sequence[UnitPlan]

    @property
    def outcome(self) -> ReloadOutcome:
        """The hardest of all units."""
        order = list(ReloadOutcome)
        return max((unit.outcome for unit in self.units), key=order.index, default=ReloadOutcome.NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitResult:
    """What was done to one unit. `error` is None where it went well, else one line with the cure."""

    unit: str
    outcome: ReloadOutcome
    error: str | None = None
    waits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What became of an accepted configuration."""

    generation: int
    """Its number, or that of the one in force where nothing changed."""
    plan: ConfigPlan
    results: Sequence[UnitResult]
    restart: bool = False
    """The gateway restarts by itself to bring the rest about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written(Applied):
    """What became of a write of the file. `noop`: it said that already, and was not written."""

    hash: str
    """That of the file now."""
    changed_keys: Sequence[str]
    """The keys of the file that say something else now, dotted, sorted."""
    noop: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Who wants a configuration, and why. `by_agent` where a model decided it: then only leaves marked agent-writable can change."""

    origin: AuditOrigin
    reason: str | None = None
    by_agent: bool = False


class ConfigConflict(InvalidRequest):
    """The file is not what the caller read. `diff` says for each key what it was (`base`), is (`theirs`) and should become (`yours`).

    On the wire the error has no details, for clients know a conflict by that; the diff is the payload beside it.
    """

    def __init__(self, message: str, diff: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(message, payload={"diff": list(diff)})
        self.diff = diff


class NotApplied(InvalidRequest):
    """A valid configuration could not be brought about; everything is as it was. `results` names the unit that failed."""

    def __init__(self, message: str, results: Sequence[UnitResult]) -> None:
        super().__init__(message)
        self.results = results


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One configuration that was accepted. Immutable."""

    number: int
    """From 1, without gaps."""
    hash: str
    """SHA-256 of the file's bytes, hexadecimal."""
    ts_ms: int
    actor: str
    surface: str
    """Through what it came: `file`, `start`, `rpc`, `cli`, `rollback` ..."""
    reason: str | None
    changed: Sequence[str]
    """Keys that differ from the generation before, dotted."""


Edit = Callable[[str], str]
"""From the file's text to the text that is wanted; raise `InvalidRequest` where it cannot be made."""


class Configuration(Protocol):
    """The one way to the configuration: reading it, changing it, looking back. Whoever changes waits until it was applied."""

    async def snapshot(self) -> Mapping[str, Any]:
        """The redacted result of `config.get`: of the file as it is on disk, valid or not."""

    async def schema(self) -> Mapping[str, Any]:
        """The result of `config.schema`: the kernel's and every plugin's part, one JSON Schema."""

    async def lookup(self, path: str) -> Mapping[str, Any]:
        """The result of `config.schema.lookup`; raise `InvalidRequest` for a path that no schema knows."""

    async def plan(self, text: str) -> ConfigPlan:
        """Say what this file would do, and do nothing; raise `InvalidRequest` with `issues` where it is not valid."""

    async def plan_edit(self, edit: Edit, *, by: Change | None = None) -> ConfigPlan:
        """Say what the file would do after an edit; raise as `plan`, and `Forbidden` where an agent puts in a reference.

        The result is loaded, which reads what its references name and runs their programs: it is for who may write it.
        """

    async def write(self, edit: Edit, change: Change, *, base_hash: str | None, shrink: bool = False) -> Written:
        """Write the file and apply it; return when every unit has its new snapshot or instance.

        Redaction marks in what the edit returns are replaced by what is hidden at their place. `base_hash` None means whatever is there.
        `shrink` allows a file to lose more than half of itself.

        Raises:
            ConfigConflict: `base_hash` is not the hash of the file.
            NotApplied: a unit refused; file and units are as they were.
            Forbidden: an agent may not write one of the keys.
            InvalidRequest: the result is not valid; details hold `issues`. Or the edit cannot be made.
        """

    async def reload(self, change: Change) -> Written:
        """Take the file as it is on disk, whatever the mode; raise as `write` does, but for the conflict."""

    async def history(self, *, limit: int = 50, before: int | None = None) -> Sequence[Generation]:
        """The generations, newest first."""

    async def text_of(self, generation: int) -> str:
        """The file's text of a generation with secrets redacted; raise `InvalidRequest` for one that is not kept."""

    async def rollback(self, generation: int, change: Change) -> Written:
        """Make an earlier generation the newest, as a new number; raise as `write` does."""
