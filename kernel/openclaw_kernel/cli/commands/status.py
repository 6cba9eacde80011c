"""`openclaw-kernel status`: what the gateway is doing, and what is wrong with it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, Final

from openclaw_kernel.cli.errors import unknown_shape
from openclaw_kernel.cli.exits import OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import GREEN, RED, YELLOW, duration, emit, emit_json, paint_out, table

COLOURS: Final = {"started": GREEN, "degraded": YELLOW, "unavailable": YELLOW, "failed": RED, "stopped": RED}
QUIET: Final = frozenset({"started", "disabled"})
"""Plugin states that need no attention."""


def add(commands: Commands) -> None:
    """Add the command."""
    commands.add("status", "show what the gateway is doing, and what is wrong with it", run=run, asks_gateway=True)


def run(options: argparse.Namespace) -> int:
    """Ask and show."""
    from openclaw_kernel.cli.client import Client
    from openclaw_kernel.cli.target import find_target

    with Client(find_target(options)) as client:
        status = client.request("status")
    if options.json:
        emit_json(status)
        return OK
    try:
        show(status)
    except KeyError as missing:
        raise unknown_shape("status", missing) from missing
    return OK


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
        ("clients", status["connections"]),
        ("plugins", f"{len(at_work)} of {len(plugins)} at work"),
    ]
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


def _agent(agent: Mapping[str, Any]) -> str:
    return f"{agent['agentId']} (default)" if agent["isDefault"] else str(agent["agentId"])


def _channel(name: str, channel: Mapping[str, Any]) -> str:
    accounts = channel["accounts"]
    down = [account for account in accounts if account.get("running") is not True]
    problem = next((account["lastError"] for account in down if account.get("lastError")), None)
    return f"{name} (down{f': {problem}' if problem else ''})" if down else name
