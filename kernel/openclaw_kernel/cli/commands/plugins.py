"""`openclaw-kernel plugins`: what is installed, with live states where the gateway runs, and changing it there."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from openclaw_kernel.cli.errors import CommandFailed, NotNow, Refused, Unreachable, unknown_shape
from openclaw_kernel.cli.exits import OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import YELLOW, emit, emit_json, note, table

if TYPE_CHECKING:
    from openclaw_kernel.host.discovery import Discovery, Found

CHANGE_SECONDS: Final = 660.0
"""pip may have to fetch and build."""


def add(commands: Commands) -> None:
    """Add the commands."""
    group = commands.group("plugins", "show, install and change plugins", run=list_all, asks_gateway=True)
    details = """\
States are those of the running gateway; where none answers, `discovered` means installed and complete,
`unavailable` that something it needs is not, and how to install that. No plugin's code is imported."""
    group.add("list", "list them with their states", run=list_all, asks_gateway=True, details=details)
    info = group.add("info", "tell all about one", run=info_of, asks_gateway=True)
    info.add_argument("id", metavar="ID", help="the plugin's id")
    _add_changes(group)


def _add_changes(group: Commands) -> None:
    changes = {
        "enable": "let one run: writes plugins.entries.ID.enabled",
        "disable": "let one run no more: writes plugins.entries.ID.enabled",
        "reload": "import the code of one anew; what is under way ends on the old",
        "remove": "stop one and uninstall its distribution",
    }
    runs = {"enable": enable, "disable": disable, "reload": reload, "remove": remove}
    for name, summary in changes.items():
        group.add(name, summary, run=runs[name], asks_gateway=True).add_argument("id", metavar="ID", help="the plugin's id")
    details = """\
The running gateway does it, by pip, without a restart: where the plugin does not start, everything is as it was. Nothing is fetched
from anywhere unless --index is given; what is installed beside stays as it is."""
    install_ = group.add("install", "install a wheel or a folder and load its plugins", run=install, asks_gateway=True, details=details)
    install_.add_argument("requirement", metavar="WHEEL", help="a wheel or folder of this machine; with --index anything that pip takes")
    upgrade_ = group.add("upgrade", "install another version of one and replace it", run=upgrade, asks_gateway=True, details=details)
    upgrade_.add_argument("id", metavar="ID", help="the plugin's id")
    upgrade_.add_argument("requirement", metavar="WHEEL", nargs="?", default=None, help="the new version; default: the newest of the index")
    for parser in (install_, upgrade_):
        parser.add_argument("--index", action="store_true", default=False, help="let pip look in its package index, over the network")


def install(options: argparse.Namespace) -> int:
    """Install."""
    requirement = _placed(options.requirement, index=options.index)
    return _change(options, "plugins.package.install", {"requirement": requirement, "index": options.index}, "installed")


def upgrade(options: argparse.Namespace) -> int:
    """Upgrade."""
    params: dict[str, Any] = {"pluginId": options.id, "index": options.index}
    if options.requirement is not None:
        params["requirement"] = _placed(options.requirement, index=options.index)
    elif not options.index:
        raise CommandFailed(f"plugins upgrade {options.id}: name the wheel of the new version, or say --index to fetch the newest")
    return _change(options, "plugins.package.upgrade", params, "upgraded")


def remove(options: argparse.Namespace) -> int:
    """Remove."""
    return _change(options, "plugins.package.remove", {"pluginId": options.id}, "removed")


def reload(options: argparse.Namespace) -> int:
    """Reload."""
    return _change(options, "plugins.reload", {"pluginId": options.id}, "reloaded")


def enable(options: argparse.Namespace) -> int:
    """Enable."""
    return _set_enabled(options, enabled=True)


def disable(options: argparse.Namespace) -> int:
    """Disable."""
    return _set_enabled(options, enabled=False)


def _set_enabled(options: argparse.Namespace, *, enabled: bool) -> int:
    told = _ask(options, "plugins.setEnabled", {"pluginId": options.id, "enabled": enabled})
    if options.json:
        emit_json(told)
        return OK
    plugin = told["plugin"]
    emit(f"{plugin['id']} is {plugin['state']}{': ' + plugin['error'] if plugin.get('error') else ''}")
    if told["restartRequired"]:
        note(f"a restart is needed: {'; '.join(told.get('warnings', []))}; run openclaw-kernel restart", YELLOW)
    return OK


def _placed(requirement: str, *, index: bool) -> str:
    """The absolute path of what lies on this machine; the gateway works in a folder of its own."""
    path = Path(requirement).expanduser()
    if path.exists() and (not index or "/" in requirement or path.is_file()):
        return str(path.resolve())
    return requirement


def _change(options: argparse.Namespace, method: str, params: Mapping[str, Any], done: str) -> int:
    told = _ask(options, method, params)
    if options.json:
        emit_json(told)
        return OK
    version = f" {told['version']}" if told["version"] else ""
    emit(f"{done}: {', '.join(told['plugins'])}{version}")
    for warning in told["warnings"]:
        note(warning, YELLOW)
    if told["restart"] is not None:
        note(f"a restart is needed: {told['restart']}; run openclaw-kernel restart", YELLOW)
    return OK


def _ask(options: argparse.Namespace, method: str, params: Mapping[str, Any]) -> Any:
    from openclaw_kernel.cli.client import Client
    from openclaw_kernel.cli.target import find_target

    with Client(find_target(options)) as client:
        return client.request(method, params, seconds=CHANGE_SECONDS)


def list_all(options: argparse.Namespace) -> int:
    """Show a table."""
    discovery = _discover(options)
    live = _live(options)
    rows = [_row(found, live.get(found.id)) for found in discovery.plugins]
    problems = [*discovery.problems, *_cut_off(options)]
    if options.json:
        emit_json({"plugins": rows, "problems": problems})
        return OK
    emit(table([(row["id"], row["kind"], row["version"], _state(row)) for row in rows], head=("PLUGIN", "KIND", "VERSION", "STATE")))
    for problem in problems:
        note(f"problem: {problem}", YELLOW)
    return OK


def info_of(options: argparse.Namespace) -> int:
    """Show one."""
    discovery = _discover(options)
    found = next((plugin for plugin in discovery.plugins if plugin.id == options.id), None)
    if found is None:
        raise CommandFailed(f"plugins: there is no plugin {options.id!r}; installed: {', '.join(sorted(discovery.ids())) or 'none'}")
    row = {**_row(found, _live(options).get(found.id)), **_manifest(found)}
    if options.json:
        emit_json(row)
        return OK
    shown = [(key, _words(value)) for key, value in row.items() if key not in {"reason", "sinceMs"} and value not in ("", None, [], {})]
    emit(table([(key, _state(row)) if key == "state" else (key, value) for key, value in shown]))
    return OK


def _discover(options: argparse.Namespace) -> Discovery:
    from openclaw_config.home import find_home
    from openclaw_kernel.host.discovery import discover

    # The programs of a gateway elsewhere are in a folder elsewhere.
    return discover(find_home(options.home) if options.url is None else None)


def _cut_off(options: argparse.Namespace) -> list[str]:
    from openclaw_config.home import find_home
    from openclaw_kernel.packages.journal import cut_off

    return [change.told() for change in cut_off(find_home(options.home))] if options.url is None else []


def _live(options: argparse.Namespace) -> dict[str, Mapping[str, Any]]:
    """The rows of the running gateway by plugin id; empty where none answers."""
    from openclaw_kernel.cli.client import Client
    from openclaw_kernel.cli.target import find_target

    try:
        with Client(find_target(options)) as client:
            return {row["id"]: row for row in client.request("status")["plugins"]}
    except Unreachable:
        if options.url is not None:
            raise
        return {}
    except (NotNow, Refused) as error:
        note(f"states are not live: {error}")
        return {}
    except KeyError as missing:
        note(f"states are not live: {unknown_shape('status', missing)}")
        return {}


def _row(found: Found, live: Mapping[str, Any] | None) -> dict[str, Any]:
    row = {
        "id": found.id,
        "kind": found.kind,
        "version": found.version,
        "distribution": found.distribution,
        "bundled": found.bundled,
        "state": found.state,
        "reason": found.reason,
    }
    return row if live is None else {**row, "state": live["state"], "reason": live["reason"], "sinceMs": live["sinceMs"]}


def _state(row: Mapping[str, Any]) -> str:
    return f"{row['state']}: {row['reason']}" if row["reason"] else str(row["state"])


def _manifest(found: Found) -> dict[str, Any]:
    manifest = found.manifest
    about: dict[str, Any] = {"code": found.entry_point.value, "section": found.section}
    if manifest is None:
        return about
    return {
        "summary": manifest.summary,
        **about,
        "after": list(manifest.after),
        "needs": list(dict.fromkeys(need.install for need in manifest.needs)),
        "reload": dict(manifest.reload),
        "provides": [*manifest.provider.ids, *manifest.provider.apis],
    }


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
