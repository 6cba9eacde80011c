"""`openclaw-kernel version`."""

from __future__ import annotations

import argparse
import sys

from openclaw_kernel import __version__
from openclaw_kernel.cli.exits import OK
from openclaw_kernel.cli.parsing import PROGRAM, Commands
from openclaw_kernel.cli.terminal import emit, emit_json


def add(commands: Commands) -> None:
    """Add the command."""
    commands.add("version", "print the version", run=run)


def run(options: argparse.Namespace) -> int:
    """Print it."""
    if options.json:
        emit_json({"version": __version__, "protocol": 4, "python": sys.version.partition(" ")[0]})
    else:
        emit(f"{PROGRAM} {__version__}")
    return OK
