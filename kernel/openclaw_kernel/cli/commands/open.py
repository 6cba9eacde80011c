"""`openclaw-kernel open`: a fresh link to the chat page."""

from __future__ import annotations

import argparse

from openclaw_kernel.cli.exits import OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import emit, emit_json


def add(commands: Commands) -> None:
    """Add the command."""
    details = "The link opens the page once, within ten minutes; after that the browser stays signed in."
    commands.add("open", "print a link that opens the chat page", run=run, asks_gateway=True, details=details)


def run(options: argparse.Namespace) -> int:
    """Ask for a link and print it, alone on its line."""
    from openclaw_kernel.cli.client import Client
    from openclaw_kernel.cli.target import find_target

    with Client(find_target(options)) as client:
        link = client.request("webchat.link", {})
    if options.json:
        emit_json(link)
    else:
        emit(link["url"])
    return OK
