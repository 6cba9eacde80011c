"""Reading and writing the configuration over RPC."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from openclaw_kernel.api import Call, InvalidRequest, PluginContext, Scope, origin_of, rpc
from openclaw_kernel.api.config import Change, ConfigPlan, Configuration, Edit, Written
from openclaw_kernel.api.edits import file_edit, patch_edit
from openclaw_plugins.control import config_wire as wire
from openclaw_plugins.control.config_restarts import ConfigRestarts
from openclaw_plugins.control.wire import Nothing

NO_HASH: Final = "config base hash required; re-run config.get and retry"
"""Word for word what clients know."""


class ConfigMethods:
    """The methods config.*."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._restarts = ConfigRestarts(context)

    @property
    def _configuration(self) -> Configuration:
        return self._context.service(Configuration)

    @rpc("config.get", scope=Scope.READ, params=Nothing, result=dict[str, Any])
    async def get(self, _call: Call, _params: Nothing) -> dict[str, Any]:
        """Return the config file with every secret redacted, whether it is valid, and its hash."""
        return dict(await self._configuration.snapshot())

    @rpc("config.schema", scope=Scope.READ, params=Nothing, result=wire.ConfigSchemaResult)
    async def schema(self, _call: Call, _params: Nothing) -> dict[str, Any]:
        """Return the JSON Schema of the config with the sections of the loaded plugins."""
        return dict(await self._configuration.schema())

    @rpc("config.schema.lookup", scope=Scope.READ, params=wire.LookupParams, result=wire.ConfigLookupResult)
    async def lookup(self, _call: Call, params: wire.LookupParams) -> dict[str, Any]:
        """Return the schema of one key, what a change of it does, and the keys below it."""
        return dict(await self._configuration.lookup(params.path))

    # Loading what is sent reads the files and runs the programs that it refers to: it is for who may write it as well.
    @rpc("config.plan", scope=Scope.ADMIN, params=wire.ConfigPlanParams, result=wire.ConfigPlanResult, repeatable="it changes nothing")
    async def plan(self, _call: Call, params: wire.ConfigPlanParams) -> dict[str, Any]:
        """Say what a file or a patch would do to each unit, and do nothing."""
        if (params.raw is None) == (params.patch is None):
            raise InvalidRequest("config.plan: give raw or patch, one of them")
        if params.patch is not None:
            patch = params.patch
            return plan_to_wire(await self._configuration.plan_edit(await _wish(lambda: patch_edit(patch, params.replace_paths))))
        raw = params.raw or ""
        return plan_to_wire(await self._configuration.plan_edit(await _wish(lambda: file_edit(raw))))

    @rpc(
        "config.set",
        scope=Scope.ADMIN,
        params=wire.ConfigSetParams,
        result=wire.ConfigWriteResult,
        repeatable="the hash of a file that was changed is no base any more",
    )
    async def set(self, call: Call, params: wire.ConfigSetParams) -> dict[str, Any]:
        """Write the whole config file, and return when it is in force."""
        written = await self._write(call, await _wish(lambda: file_edit(params.raw)), params.base_hash, None, shrink=params.allow_shrink)
        return await self._answer(written)

    @rpc(
        "config.apply",
        scope=Scope.ADMIN,
        params=wire.ConfigApplyParams,
        result=wire.ConfigWriteResult,
        repeatable="the hash of a file that was changed is no base any more",
        control_plane=True,
    )
    async def apply(self, call: Call, params: wire.ConfigApplyParams) -> dict[str, Any]:
        """Write the whole config file, and tell a session after the restart if one follows."""
        edit = await _wish(lambda: file_edit(params.raw))
        written = await self._write(call, edit, params.base_hash, params.note, shrink=params.allow_shrink)
        # First: what is shown beside it takes a while, and a restart nobody delays comes by itself.
        restart = await self._restarts.after(params, written, kind="config-apply")
        return {**await self._answer(written), **restart}

    @rpc(
        "config.patch",
        scope=Scope.ADMIN,
        params=wire.ConfigPatchParams,
        result=wire.ConfigWriteResult,
        repeatable="the hash of a file that was changed is no base any more",
        control_plane=True,
    )
    async def patch(self, call: Call, params: wire.ConfigPatchParams) -> dict[str, Any]:
        """Merge a patch into the config file: null deletes, objects recurse, lists of things with an id merge by it."""
        edit = await _wish(lambda: patch_edit(params.raw, params.replace_paths))
        # A patch says what is to go: it may take as much as it names.
        written = await self._write(call, edit, params.base_hash, params.note, shrink=True)
        # First: what is shown beside it takes a while, and a restart nobody delays comes by itself.
        restart = await self._restarts.after(params, written, kind="config-patch")
        return {**await self._answer(written), **restart}

    async def _write(self, call: Call, edit: Edit, base_hash: str | None, note: str | None, *, shrink: bool) -> Written:
        if base_hash is None and (await self._configuration.snapshot())["exists"]:
            raise InvalidRequest(NO_HASH)
        change = Change(origin=origin_of(call), reason=(note or "").strip() or None)
        return await self._configuration.write(edit, change, base_hash=base_hash, shrink=shrink)

    async def _answer(self, written: Written) -> dict[str, Any]:
        shown = await self._configuration.snapshot()
        answer = {"ok": True, "path": shown["path"], "config": shown["config"]}
        if written.noop:
            return {**answer, "noop": True, "changedPaths": []}
        return {
            **answer,
            "hash": written.hash,
            "changedPaths": list(written.changed_keys),
            "generation": written.generation,
            "units": results_to_wire(written),
        }


def plan_to_wire(plan: ConfigPlan) -> dict[str, Any]:
    """A plan as clients get it."""
    units = [
        {
            "unit": unit.unit,
            "outcome": unit.outcome.value,
            "waits": unit.waits,
            "paths": list(unit.paths),
            "reason": unit.reason,
            "connections": unit.connections,
        }
        for unit in plan.units
    ]
    return {"outcome": plan.outcome.value, "changed": list(plan.changed), "units": units}


def results_to_wire(written: Written) -> list[dict[str, Any]]:
    """What was done to each unit, with the keys that decided it."""
    planned: Mapping[tuple[str, bool], Any] = {(unit.unit, unit.waits): unit for unit in written.plan.units}
    rows: list[dict[str, Any]] = []
    for result in written.results:
        unit = planned.get((result.unit, result.waits))
        row = {"unit": result.unit, "outcome": result.outcome.value, "waits": result.waits}
        told = {} if unit is None else {"paths": list(unit.paths), "reason": unit.reason}
        rows.append({**row, **told, **({} if result.error is None else {"error": result.error})})
    return rows


async def _wish(read: Callable[[], Edit]) -> Edit:
    # JSON5 of the length that is allowed takes half a second to read.
    try:
        return await asyncio.to_thread(read)
    except ValueError as error:
        raise InvalidRequest(str(error)) from error
