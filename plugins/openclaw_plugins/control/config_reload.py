"""The method `config.reload`."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from openclaw_kernel.api import Call, Params, PluginContext, Scope, origin_of, rpc
from openclaw_kernel.api.config import Change, Configuration


class ReloadParams(Params):
    """Nothing has to be said."""

    note: str | None = None
    """Why, for the history."""


class ReloadedUnit(TypedDict):
    """What was done to one unit: a plugin's id, or `kernel`."""

    unit: str
    outcome: Literal["none", "hot", "unit", "process"]
    waits: bool
    error: NotRequired[str]


class ReloadResult(TypedDict):
    """What became of it."""

    generation: int
    restart: bool
    changed: list[str]
    units: list[ReloadedUnit]


class ReloadMethods:
    """Takes the config file as it is."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @rpc("config.reload", scope=Scope.ADMIN, params=ReloadParams, result=ReloadResult, repeatable="the file as it is then is taken")
    async def reload(self, call: Call, params: ReloadParams) -> dict[str, Any]:
        """Take the config file as it is on disk, whatever `gateway.reload.mode` is, and return when it is in force."""
        applied = await self._context.service(Configuration).reload(Change(origin=origin_of(call), reason=params.note))
        units = [
            {"unit": one.unit, "outcome": one.outcome.value, "waits": one.waits, **({} if one.error is None else {"error": one.error})}
            for one in applied.results
        ]
        return {"generation": applied.generation, "restart": applied.restart, "changed": list(applied.plan.changed), "units": units}
