"""The `openclaw-kernel` command."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from typing import Final

from openclaw_kernel import __version__
from openclaw_kernel.cli import exits
from openclaw_kernel.cli.commands import (
    audit,
    auth,
    backup,
    call,
    chat,
    completion,
    config,
    dead,
    devices,
    doctor,
    health,
    import_,
    logs,
    onboard,
    plugins,
    qr,
    restart,
    run,
    secrets,
    security,
    service,
    status,
    version,
    why,
)
from openclaw_kernel.cli.commands import open as open_
from openclaw_kernel.cli.errors import CommandFailed
from openclaw_kernel.cli.parsing import DEFAULTS, PROGRAM, Commands, add_gateway, add_place
from openclaw_kernel.cli.terminal import escaped, printable

COMMANDS: Final = (
    onboard,
    run,
    open_,
    status,
    health,
    restart,
    chat,
    call,
    logs,
    why,
    dead,
    devices,
    qr,
    audit,
    plugins,
    config,
    secrets,
    security,
    doctor,
    service,
    backup,
    import_,
    auth,
    version,
    completion,
)


def build_parser() -> tuple[argparse.ArgumentParser, Commands]:
    """The parser, and the tree of its commands."""
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
    for command in COMMANDS:
        command.add(commands)
    return parser, commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    parser, _ = build_parser()
    options = parser.parse_args(arguments)
    if options.profile is not None:
        # Whatever reads the config from here on, a reload and a process that is started included, means this profile.
        os.environ["OPENCLAW_PROFILE"] = options.profile
    if "run" not in options:
        parser.print_help(sys.stderr)
        return exits.USAGE
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


def _fail(error: dict[str, object], status: int, *, as_json: bool) -> int:
    sys.stdout.flush()
    text = escaped(json.dumps({"error": {**error, "exit": status}}, ensure_ascii=False)) if as_json else printable(str(error["message"]))
    sys.stderr.write(f"{text}\n")
    return status
