"""The `openclaw-kernel` command."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from keyword import iskeyword
from typing import Final

from openclaw_kernel import __version__
from openclaw_kernel.cli import exits
from openclaw_kernel.cli.errors import CommandFailed
from openclaw_kernel.cli.parsing import DEFAULTS, PROGRAM, Commands, add_gateway, add_place
from openclaw_kernel.cli.terminal import escaped, printable

COMMANDS: Final = (
    "onboard",
    "run",
    "open",
    "status",
    "health",
    "restart",
    "chat",
    "call",
    "logs",
    "why",
    "dead",
    "devices",
    "qr",
    "audit",
    "plugins",
    "config",
    "secrets",
    "security",
    "doctor",
    "service",
    "backup",
    "import",
    "auth",
    "version",
    "completion",
)
"""The commands, in the order of the help. Each has a module of its name in `openclaw_kernel.cli.commands`."""


def build_parser(names: Sequence[str] = COMMANDS) -> tuple[argparse.ArgumentParser, Commands]:
    """The parser, and the tree of its commands, or of some of them."""
    codes = "\n".join(f"  {code:<4} {meaning}" for code, meaning in exits.MEANINGS.items())
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="A gateway for AI agents, and the commands that talk to it.",
        epilog=f"exit codes:\n{codes}\n\n{PROGRAM} COMMAND --help tells more of one command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    add_place(parser)
    add_gateway(parser)
    parser.set_defaults(**DEFAULTS)
    commands = Commands(parser, required=False)
    for name in names:
        import_module(f"openclaw_kernel.cli.commands.{name}{'_' * iskeyword(name)}").add(commands)
    return parser, commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    if options is None:
        return exits.USAGE
    if options.profile is not None:
        # Whatever reads the config from here on, a reload and a process that is started included, means this profile.
        os.environ["OPENCLAW_PROFILE"] = options.profile
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What a model writes may be more than the terminal's encoding has.
            stream.reconfigure(errors="backslashreplace")
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except CommandFailed as error:
        return _fail(error.to_json(), error.status, as_json=options.json)
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return exits.INTERRUPTED
    except BrokenPipeError:
        # Nobody reads on (`| head`); Python's own last flush must not complain of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.FAILED


def _parse(arguments: Sequence[str]) -> argparse.Namespace | None:
    """The options, None where no command was given and the help is printed instead."""
    # The other commands and their parsers would stay in memory for as long as a gateway runs. Completion is made from all of them.
    alone = bool(arguments) and arguments[0] in COMMANDS and arguments[0] != "completion"
    parser, _ = build_parser(arguments[:1] if alone else COMMANDS)
    options = parser.parse_args(arguments)
    if "run" in options:
        return options
    parser.print_help(sys.stderr)
    return None


def _fail(error: dict[str, object], status: int, *, as_json: bool) -> int:
    sys.stdout.flush()
    text = escaped(json.dumps({"error": {**error, "exit": status}}, ensure_ascii=False)) if as_json else printable(str(error["message"]))
    sys.stderr.write(f"{text}\n")
    return status
