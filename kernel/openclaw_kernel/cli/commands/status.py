"""`openclaw-kernel status`: what the gateway is doing, and what is wrong with it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any, Final

from openclaw_kernel.cli.errors import BadUsage, CommandFailed, unknown_shape
from openclaw_kernel.cli.exits import OK, TEMPORARY, UNREACHABLE
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import GREEN, RED, YELLOW, duration, emit, emit_json, paint_out, table

COLOURS: Final = {"started": GREEN, "degraded": YELLOW, "unavailable": YELLOW, "failed": RED, "stopped": RED}
QUIET: Final = frozenset({"started", "disabled"})
"""Plugin states that need no attention."""
_SECONDS: Final = 2.0
_LONGEST_SECONDS: Final = 86_400
_CLEAR: Final = "\x1b[H\x1b[2J"


def add(commands: Commands) -> None:
    """Add the command."""
    details = """\
--watch shows it anew every few seconds until Ctrl+C, and says so while no gateway answers; with --json it prints a line each time."""
    parser = commands.add(
        "status", "show what the gateway is doing, and what is wrong with it", run=run, asks_gateway=True, details=details
    )
    seconds = f"how often, with --watch (default: {_SECONDS:g})"
    parser.add_argument("--watch", action="store_true", help="go on showing it", default=False)
    parser.add_argument("--every", metavar="SECONDS", type=float, help=seconds, default=_SECONDS)


def run(options: argparse.Namespace) -> int:
    """Ask and show."""
    if options.watch:
        return _watch(options)
    status = _ask(options)
    if options.json:
        emit_json(status)
    else:
        _show(status)
    return OK


def _ask(options: argparse.Namespace) -> dict[str, Any]:
    from openclaw_kernel.cli.client import Client
    from openclaw_kernel.cli.target import find_target

    with Client(find_target(options)) as client:
        status: dict[str, Any] = client.request("status")
        offered = client.hello.get("features", {}).get("methods", ())
        if "usage.cost" in offered:
            status["usage"] = client.request("usage.cost", {"days": 1, "mode": "gateway"})["totals"]
    return status


def _watch(options: argparse.Namespace) -> int:
    import time

    if not 0 < options.every <= _LONGEST_SECONDS:
        raise BadUsage(f"--every: found {options.every:g}; give a number of seconds over 0, at most {_LONGEST_SECONDS}")
    is_screen = sys.stdout.isatty() and not options.json
    while True:
        if is_screen:
            sys.stdout.write(_CLEAR)
        try:
            status = _ask(options)
        except CommandFailed as error:
            if error.status not in {TEMPORARY, UNREACHABLE}:
                raise
            # It restarts, or is down: who watches wants to see it come back.
            if options.json:
                emit_json({"error": error.to_json()})
            else:
                emit(paint_out(f"{time.strftime('%H:%M:%S')}  {error}", YELLOW))
        else:
            if options.json:
                emit_json(status)
            else:
                _show(status)
                emit("")
        sys.stdout.flush()
        time.sleep(options.every)


def _show(status: Mapping[str, Any]) -> None:
    try:
        show(status)
    except KeyError as missing:
        raise unknown_shape("status", missing) from missing


def show(status: Mapping[str, Any]) -> None:
    """Lay the status out for people."""
    ready = paint_out("ready", GREEN) if status["ready"] else paint_out("not ready", YELLOW)
    emit(f"openclaw-kernel {status['version']} on {status['url']}: {ready}, up {duration(status['uptimeMs'])}")
    plugins = status["plugins"]
    at_work = [plugin for plugin in plugins if plugin["state"] == "started"]
    rows = [
        ("agents", ", ".join(_agent(agent) for agent in status["agents"]) or "none"),
        ("channels", ", ".join(_channel(name, channel) for name, channel in status["channels"].items()) or "none"),
        ("sessions", status["sessions"]["count"]),
        *([("queue", _queue(status["queue"]))] if "queue" in status else []),
        *([("today", _usage(status["usage"]))] if "usage" in status else []),
        ("clients", status["connections"]),
        *([("loop", _loop(status["eventLoop"]))] if "eventLoop" in status else []),
        ("plugins", f"{len(at_work)} of {len(plugins)} at work"),
    ]
    if "config" in status:
        rows.append(("config", generation(status["config"])))
    if "tls" in status:
        rows.append(("certificate", f"SHA-256 {status['tls']['fingerprint']}"))
    emit(table(rows))
    faulty = [plugin for plugin in plugins if plugin["state"] not in QUIET]
    if faulty:
        emit("")
        emit(table([(plugin["id"], plugin["state"], plugin["reason"]) for plugin in faulty], head=("PLUGIN", "STATE", "REASON")))
    named = {f"{plugin['kind']} {plugin['id']}" for plugin in faulty}
    for reason in status["reasons"]:
        if not any(reason.startswith(f"{name} is ") for name in named):
            emit(f"problem: {reason}")


def _loop(loop: Mapping[str, Any]) -> str:
    figures = f"{loop['delayP50Ms']:g} ms late in the median, p99 {loop['delayP99Ms']:g} ms, at most {loop['delayMaxMs']:g} ms"
    kept = ", ".join(f"{one['plugin']} for {one['ms'] / 1000:.1f} s" for one in loop["blockedBy"])
    return f"{figures}; blocked by {kept}" if kept else figures


def _queue(queue: Mapping[str, Any]) -> str:
    return f"{queue['running']} running, {queue['waiting']} waiting, {queue['deliveries']} on their way out"


def _usage(totals: Mapping[str, Any]) -> str:
    tokens = f"{totals['totalTokens']:,} tokens"
    unpriced = f", of {totals['missingCostEntries']} calls no price is known" if totals["missingCostEntries"] else ""
    return f"{tokens}, ${totals['totalCost']:.2f}{unpriced}"


def generation(config: Mapping[str, Any]) -> str:
    """Say which config is served, and how."""
    number = config["generation"]
    told = "not written down yet" if number is None else f"generation {number}"
    last_good = ", which last worked, for the newest file cannot be served" if config["serving"] == "last-good" else ""
    return f"{told}{last_good}{'; in safe mode, without third-party plugins' if config['safeMode'] else ''}"


def _agent(agent: Mapping[str, Any]) -> str:
    return f"{agent['agentId']} (default)" if agent["isDefault"] else str(agent["agentId"])


def _channel(name: str, channel: Mapping[str, Any]) -> str:
    accounts = channel["accounts"]
    down = [account for account in accounts if account.get("running") is not True]
    problem = next((account["lastError"] for account in down if account.get("lastError")), None)
    return f"{name} (down{f': {problem}' if problem else ''})" if down else name
