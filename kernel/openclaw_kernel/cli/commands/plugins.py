"""`openclaw-kernel plugins list|info`: what is installed, with live states where the gateway runs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from openclaw_kernel.cli.errors import CommandFailed, NotNow, Refused, Unreachable, unknown_shape
from openclaw_kernel.cli.exits import OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import YELLOW, emit, emit_json, note, table

if TYPE_CHECKING:
    from openclaw_kernel.host.discovery import Discovery, Found


def add(commands: Commands) -> None:
    """Add the commands."""
    group = commands.group("plugins", "show the installed plugins", run=list_all, asks_gateway=True)
    details = """\
States are those of the running gateway; where none answers, `discovered` means installed and complete,
`unavailable` that something it needs is not, and how to install that. No plugin's code is imported."""
    group.add("list", "list them with their states", run=list_all, asks_gateway=True, details=details)
    info = group.add("info", "tell all about one", run=info_of, asks_gateway=True)
    info.add_argument("id", metavar="ID", help="the plugin's id")


def list_all(options: argparse.Namespace) -> int:
    """Show a table."""
    discovery = _discover(options)
    live = _live(options)
    rows = [_row(found, live.get(found.id)) for found in discovery.plugins]
    if options.json:
        emit_json({"plugins": rows, "problems": list(discovery.problems)})
        return OK
    emit(table([(row["id"], row["kind"], row["version"], _state(row)) for row in rows], head=("PLUGIN", "KIND", "VERSION", "STATE")))
    for problem in discovery.problems:
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
