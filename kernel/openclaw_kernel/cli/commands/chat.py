"""`openclaw-kernel chat`: talk to an agent, in lines or with one question."""

from __future__ import annotations

import argparse
import sys

from openclaw_kernel.cli.errors import BadUsage
from openclaw_kernel.cli.parsing import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    details = """\
Without -m it reads messages line by line: /new, /status, /model and the other chat commands work as in every
channel, Ctrl+C stops the running answer, Ctrl+D ends. The answer goes to stdout, what tools do to stderr."""
    parser = commands.add("chat", "talk to an agent", run=run, asks_gateway=True, details=details)
    parser.add_argument("-m", "--message", metavar="TEXT", help="send this, print the answer, end; - reads it from stdin", default=None)
    parser.add_argument("--session", metavar="KEY", help="session to talk in (default: the agent's main one)", default=None)
    parser.add_argument("--agent", metavar="ID", help="agent to talk to (default: the default agent)", default=None)


def run(options: argparse.Namespace) -> int:
    """Ask once, or converse."""
    if options.message is None and options.json:
        raise BadUsage("chat: --json goes with -m")
    message = sys.stdin.read() if options.message == "-" else options.message
    if message is not None and not message.strip():
        raise BadUsage("chat: -m: the message is empty; write one")
    from openclaw_kernel.cli.conversation import ask, converse
    from openclaw_kernel.cli.target import find_target

    target = find_target(options)
    if message is not None:
        return ask(target, message, session=options.session, agent=options.agent, as_json=options.json)
    return converse(target, session=options.session, agent=options.agent)
