"""`openclaw-kernel health`: a check for people and for supervisors."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from openclaw_kernel.cli.commands.status import generation
from openclaw_kernel.cli.errors import unknown_shape
from openclaw_kernel.cli.exits import FAILED, OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import emit, emit_json, table


def add(commands: Commands) -> None:
    """Add the command."""
    details = "Ends with 0 where the gateway says it is well, with 1 where it says it is not, with 69 where none answers."
    commands.add("health", "check that the gateway is well", run=run, asks_gateway=True, details=details)


def run(options: argparse.Namespace) -> int:
    """Ask and show."""
    from openclaw_kernel.cli.client import Client
    from openclaw_kernel.cli.target import find_target

    target = find_target(options)
    with Client(target) as client:
        health = client.request("health", {"probe": True})
        config = client.request("status").get("config")
    status = OK if health["ok"] else FAILED
    if options.json:
        emit_json({**health, "config": config})
        return status
    try:
        _show(health, config, target.url)
    except KeyError as missing:
        raise unknown_shape("health", missing) from missing
    return status


def _show(health: Mapping[str, Any], config: Mapping[str, Any] | None, url: str) -> None:
    emit(f"{'well' if health['ok'] else 'not well'}: {url}")
    if config is not None:
        emit(f"config: {generation(config)}")
    labels = health["channelLabels"]
    accounts = [
        (labels.get(name, name), account["accountId"], "running" if account.get("running") else "down", account.get("lastError", ""))
        for name in health["channelOrder"]
        for account in health["channels"][name]["accounts"]
    ]
    if accounts:
        emit(table(accounts, head=("CHANNEL", "ACCOUNT", "STATE", "LAST ERROR")))
    for error in health.get("plugins", {}).get("errors", ()):
        emit(f"problem: {error['error']}" if error["origin"] == "config" else f"plugin {error['id']} failed: {error['error']}")
