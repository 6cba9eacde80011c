"""Looking back at the configurations that were accepted, and putting one back, over RPC."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints
from typing_extensions import TypedDict

from openclaw_kernel.api import Call, Params, PluginContext, Scope, origin_of, rpc
from openclaw_kernel.api.config import Change, Configuration, Generation
from openclaw_plugins.control.config_methods import results_to_wire
from openclaw_plugins.control.config_restarts import ConfigRestarts
from openclaw_plugins.control.config_wire import ToldParams, UnitRow

_MOST: Final = 200

Number = Annotated[int, Field(ge=1)]


class HistoryParams(Params):
    """`before` is a number: only older ones."""

    limit: Annotated[int, Field(ge=1, le=_MOST)] = 50
    before: Number | None = None


class GenerationParams(Params):
    generation: Number


class RollbackParams(Params):
    """`reason` is kept with the new generation."""

    generation: Number
    reason: Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000)] | None = None


class GenerationRow(TypedDict):
    """One accepted configuration; `changed` are the keys that differ from the one before."""

    number: int
    hash: str
    timeMs: int
    actor: str
    surface: str
    reason: str | None
    changed: list[str]


class HistoryResult(TypedDict):
    generations: list[GenerationRow]


class GenerationResult(TypedDict):
    """`raw` is the file's text with secrets replaced."""

    generation: int
    raw: str


class RollbackResult(TypedDict):
    """`generation` is the number that the configuration has now."""

    ok: bool
    noop: bool
    generation: int
    hash: str
    changedPaths: list[str]
    units: list[UnitRow]
    restart: dict[str, Any] | None


class ConfigHistoryMethods:
    """The methods config.history, config.generation.get and config.rollback."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._restarts = ConfigRestarts(context)

    @property
    def _configuration(self) -> Configuration:
        return self._context.service(Configuration)

    @rpc("config.history", scope=Scope.READ, params=HistoryParams, result=HistoryResult)
    async def history(self, _call: Call, params: HistoryParams) -> dict[str, Any]:
        """List the configurations that were accepted, the newest first: number, who wanted it, through what, why, and what changed."""
        found = await self._configuration.history(limit=params.limit, before=params.before)
        return {"generations": [_row(one) for one in found]}

    @rpc("config.generation.get", scope=Scope.READ, params=GenerationParams, result=GenerationResult)
    async def get(self, _call: Call, params: GenerationParams) -> dict[str, Any]:
        """Return the text of one generation, its secrets replaced."""
        return {"generation": params.generation, "raw": await self._configuration.text_of(params.generation)}

    @rpc(
        "config.rollback",
        scope=Scope.ADMIN,
        params=RollbackParams,
        result=RollbackResult,
        repeatable="what is in force already is put back by nothing",
        control_plane=True,
    )
    async def rollback(self, call: Call, params: RollbackParams) -> dict[str, Any]:
        """Make an earlier generation the newest, as a new number, and return when it is in force."""
        change = Change(origin=origin_of(call), reason=params.reason or None)
        written = await self._configuration.rollback(params.generation, change)
        told = await self._restarts.after(ToldParams.model_validate({"note": params.reason}), written, kind="config-apply")
        return {
            "ok": True,
            "noop": written.noop,
            "generation": written.generation,
            "hash": written.hash,
            "changedPaths": list(written.changed_keys),
            "units": results_to_wire(written),
            "restart": told.get("restart"),
        }


def _row(one: Generation) -> GenerationRow:
    return {
        "number": one.number,
        "hash": one.hash,
        "timeMs": one.ts_ms,
        "actor": one.actor,
        "surface": one.surface,
        "reason": one.reason,
        "changed": list(one.changed),
    }
