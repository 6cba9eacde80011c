"""The methods of plugins that come, go and change while the gateway runs."""

from __future__ import annotations

from typing import Annotated, Any, Final, NotRequired

from pydantic import Field, StringConstraints
from typing_extensions import TypedDict

from openclaw_kernel.api import Call, Params, PluginContext, Scope, origin_of, rpc
from openclaw_kernel.api.config import Change
from openclaw_kernel.api.plugins import PluginEntry, PluginOutcome, Plugins, results_to_wire
from openclaw_plugins.control import wire

PluginId = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Requirement = Annotated[str, StringConstraints(min_length=1, max_length=2048)]

_REPEATABLE: Final = "what is done already is found so, and nothing is done twice"


class SetEnabledParams(Params):
    """Whether a plugin runs. `acknowledge_capabilities` is the reference's; here nothing asks for it."""

    plugin_id: PluginId
    enabled: bool
    acknowledge_capabilities: dict[str, Any] | None = None


class PluginParams(Params):
    """One plugin."""

    plugin_id: PluginId


class InstallParams(Params):
    """A wheel or folder on the gateway's machine; with `index` anything that pip takes, which may go to the network."""

    requirement: Requirement
    index: bool = False


class UpgradeParams(Params):
    """A plugin, and where its new version is; without `requirement` the newest that the index has, which needs `index`."""

    plugin_id: PluginId
    requirement: Requirement | None = None
    index: bool = False


class Row(TypedDict):
    """One plugin of the list."""

    id: str
    name: str
    packageName: str
    description: NotRequired[str]
    version: NotRequired[str]
    kind: list[str]
    origin: str
    installed: bool
    enabled: bool
    state: str
    error: NotRequired[str]
    removable: bool


class ListResult(TypedDict):
    """What is installed."""

    plugins: list[Row]
    diagnostics: list[Any]
    mutationAllowed: bool


class SetEnabledResult(TypedDict):
    """The plugin as it is now."""

    ok: bool
    plugin: Row
    restartRequired: bool
    warnings: NotRequired[list[str]]


class RefreshResult(TypedDict):
    """It was looked."""

    ok: bool


class UnitRow(TypedDict):
    """What was done to one unit."""

    unit: str
    outcome: str
    error: str | None
    waits: bool


class ChangeResult(TypedDict):
    """What became of a change of plugins. `restart` says why a restart has to bring it about, None where it is in force."""

    ok: bool
    plugins: list[str]
    version: str | None
    units: list[UnitRow]
    restart: str | None
    warnings: Annotated[list[str], Field()]


class PluginMethods:
    """Listing, enabling, reloading, installing."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @property
    def _plugins(self) -> Plugins:
        return self._context.service(Plugins)

    @rpc("plugins.list", scope=Scope.READ, params=wire.Nothing, result=ListResult)
    def list_all(self, _call: Call, _params: wire.Nothing) -> dict[str, Any]:
        """List the installed plugins with their states."""
        entries = self._plugins.entries()
        waiting = [f"plugin {entry.id!r}: a restart is needed: {entry.restart}" for entry in entries if entry.restart is not None]
        return {"plugins": [_row(entry) for entry in entries], "diagnostics": waiting, "mutationAllowed": True}

    @rpc(
        "plugins.setEnabled",
        scope=Scope.ADMIN,
        params=SetEnabledParams,
        result=SetEnabledResult,
        repeatable=_REPEATABLE,
        control_plane=True,
    )
    async def set_enabled(self, call: Call, params: SetEnabledParams) -> dict[str, Any]:
        """Enable or disable a plugin: writes `plugins.entries.<id>.enabled` and brings it about."""
        outcome = await self._plugins.set_enabled(params.plugin_id, _change(call), enabled=params.enabled)
        entry = next(one for one in self._plugins.entries() if one.id == params.plugin_id)
        told = {"ok": True, "plugin": _row(entry), "restartRequired": outcome.restart is not None}
        return {**told, "warnings": [outcome.restart]} if outcome.restart is not None else told

    @rpc("plugins.refresh", scope=Scope.ADMIN, params=wire.Nothing, result=RefreshResult, repeatable=_REPEATABLE, control_plane=True)
    async def refresh(self, call: Call, _params: wire.Nothing) -> dict[str, Any]:
        """Look again what is installed: load what has come, stop what is gone, replace what has another version."""
        await self._plugins.refresh(_change(call))
        return {"ok": True}

    @rpc(
        "plugins.reload",
        scope=Scope.ADMIN,
        params=PluginParams,
        result=ChangeResult,
        repeatable="the code on disk is what runs afterwards, however often it is asked for",
        control_plane=True,
    )
    async def reload(self, call: Call, params: PluginParams) -> dict[str, Any]:
        """Import a plugin's code anew and replace it; what is under way ends on the old, which runs on where the new does not start."""
        return _told(await self._plugins.reload(params.plugin_id, _change(call)))

    @rpc(
        "plugins.package.install",
        scope=Scope.ADMIN,
        params=InstallParams,
        result=ChangeResult,
        repeatable=_REPEATABLE,
        control_plane=True,
    )
    async def install(self, call: Call, params: InstallParams) -> dict[str, Any]:
        """Install a distribution by pip and load its plugins; where they cannot be loaded it is taken off again."""
        return _told(await self._plugins.install(params.requirement, _change(call), index=params.index))

    @rpc(
        "plugins.package.upgrade",
        scope=Scope.ADMIN,
        params=UpgradeParams,
        result=ChangeResult,
        repeatable=_REPEATABLE,
        control_plane=True,
    )
    async def upgrade(self, call: Call, params: UpgradeParams) -> dict[str, Any]:
        """Install another version of a plugin and replace it; where that does not start, the version before is put back."""
        return _told(await self._plugins.upgrade(params.plugin_id, params.requirement, _change(call), index=params.index))

    @rpc(
        "plugins.package.remove",
        scope=Scope.ADMIN,
        params=PluginParams,
        result=ChangeResult,
        repeatable=_REPEATABLE,
        control_plane=True,
    )
    async def remove(self, call: Call, params: PluginParams) -> dict[str, Any]:
        """Stop a plugin and uninstall its distribution, with all plugins in it."""
        return _told(await self._plugins.remove(params.plugin_id, _change(call)))


def _change(call: Call) -> Change:
    return Change(origin=origin_of(call))


def _row(entry: PluginEntry) -> dict[str, Any]:
    state = {"disabled": "disabled", "failed": "error", "unavailable": "error"}.get(entry.state, "enabled")
    row: dict[str, Any] = {
        "id": entry.id,
        "name": entry.id,
        "packageName": entry.distribution,
        "version": entry.version,
        "kind": [entry.kind],
        "origin": "bundled" if entry.bundled else "pip",
        "installed": True,
        "enabled": state != "disabled",
        "state": state,
        "removable": not entry.bundled,
    }
    if entry.summary:
        row["description"] = entry.summary
    if state == "error" or (entry.reason is not None and state == "enabled"):
        row["error"] = entry.reason or entry.state
    return row


def _told(outcome: PluginOutcome) -> dict[str, Any]:
    return {
        "ok": True,
        "plugins": list(outcome.plugins),
        "version": outcome.version,
        "units": results_to_wire(outcome.results),
        "restart": outcome.restart,
        "warnings": list(outcome.warnings),
    }
