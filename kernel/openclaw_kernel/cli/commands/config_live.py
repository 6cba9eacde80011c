"""`openclaw-kernel config plan|reload`: what a file would do to what runs, and taking openclaw.yaml as it is on disk."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from openclaw_kernel.cli.errors import BadConfig, Refused, Unreachable
from openclaw_kernel.cli.exits import OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import emit, emit_json

_WORDS: Final = {
    "none": "nothing",
    "hot": "goes on with the new values",
    "unit": "is replaced by a new instance",
    "process": "needs a restart of the gateway",
}
_MOST_PATHS: Final = 4


def add(group: Commands) -> None:
    """Add the commands."""
    details = """\
Prints for each unit (a plugin, or the kernel) what would happen to it, which keys decide that, and how many are connected through it;
nothing is done. Where no gateway runs, FILE is compared with openclaw.yaml as the next start would read it."""
    plan = group.add("plan", "say what a file would do to each unit", run=plan_file, asks_gateway=True, details=details)
    plan.add_argument("file", metavar="FILE", help="the config as it would be, e.g. a copy of openclaw.yaml that you edited")
    details = "Also where gateway.reload.mode is off, and for secrets that are others now. Waits until it is in force."
    group.add("reload", "have the gateway take openclaw.yaml as it is on disk", run=reload, asks_gateway=True, details=details)


def plan_file(options: argparse.Namespace) -> int:
    """Ask the gateway, or work it out."""
    from openclaw_config.issues import ConfigError
    from openclaw_config.source import read_text

    try:
        text = read_text(Path(options.file))
    except ConfigError as error:
        raise BadConfig(str(error)) from error
    try:
        plan = {"running": True, **_ask(options, "config.plan", {"raw": text})}
    except Unreachable:
        if options.url is not None:
            raise
        plan = {"running": False, **_offline(options, text)}
    except Refused as refused:
        # An older gateway has no planner; ours knows what it would read.
        if "unknown method" not in str(refused):
            raise
        plan = {"running": False, **_offline(options, text)}
    if options.json:
        emit_json(plan)
        return OK
    if not plan["running"]:
        emit("no gateway was asked; this is what would happen to one that runs with openclaw.yaml as it is")
    _show(plan["units"], plan["changed"])
    return OK


def reload(options: argparse.Namespace) -> int:
    """Ask the gateway."""
    answer = _ask(options, "config.reload", {})
    if options.json:
        emit_json(answer)
        return OK
    _show(answer["units"], answer["changed"])
    if answer["restart"]:
        emit("the gateway restarts by itself to bring it about")
    return OK


def _ask(options: argparse.Namespace, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    from openclaw_kernel.cli.client import Client
    from openclaw_kernel.cli.target import find_target

    with Client(find_target(options)) as client:
        answer: dict[str, Any] = client.request(method, dict(params))
    return answer


def _offline(options: argparse.Namespace, text: str) -> dict[str, Any]:
    # Imported here: this is the planner itself, which who asks a gateway does not need.
    from openclaw_config.home import config_path, find_home
    from openclaw_config.issues import ConfigError
    from openclaw_config.load import load, load_text
    from openclaw_kernel.host.discovery import discover
    from openclaw_kernel.live.parts import parts_of
    from openclaw_kernel.reload.plan import decide

    home = find_home(options.home)
    path = config_path(home)
    try:
        running, candidate = load(path).config, load_text(text, path).config
    except ConfigError as error:
        raise BadConfig(str(error)) from error
    settings = candidate.gateway.reload
    plan = decide(running, candidate, parts_of(discover(home), running, candidate), mode=settings.mode, units=settings.units).plan
    units = [
        {"unit": unit.unit, "outcome": unit.outcome.value, "waits": unit.waits, "paths": list(unit.paths), "reason": unit.reason}
        for unit in plan.units
    ]
    return {"outcome": plan.outcome.value, "changed": list(plan.changed), "units": units}


def _show(units: Sequence[Mapping[str, Any]], changed: Sequence[str]) -> None:
    if not changed:
        emit("nothing changes")
    for unit in units:
        paths = unit.get("paths", [])
        more = f" and {len(paths) - _MOST_PATHS} more" if len(paths) > _MOST_PATHS else ""
        waits = ", and waits for it" if unit["waits"] else ""
        count = unit.get("connections", 0)
        connected = f"; {count} connected" if count else ""
        emit(f"{unit['unit']}: {_WORDS[unit['outcome']]}{waits}{connected}")
        if paths:
            emit(f"  {', '.join(paths[:_MOST_PATHS])}{more}: {unit.get('reason', '')}".rstrip(": "))
        if unit.get("error"):
            emit(f"  {unit['error']}")
