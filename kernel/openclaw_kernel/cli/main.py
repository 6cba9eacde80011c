"""The `openclaw-kernel` command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from openclaw_kernel.cli.exits import USAGE


def build_parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    parser = argparse.ArgumentParser(prog="openclaw-kernel")
    commands = parser.add_subparsers(dest="command")
    run = commands.add_parser("run", help="run the gateway in the foreground")
    run.add_argument("--home")
    run.add_argument("--json", action="store_true")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.command == "run":
        from openclaw_kernel.cli.run import run

        return run(options)
    parser.print_help()
    return USAGE
