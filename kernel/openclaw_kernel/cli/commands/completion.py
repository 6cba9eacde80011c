"""`openclaw-kernel completion`: a script for the shell, made from the parser."""

from __future__ import annotations

import argparse
import functools
import sys

from openclaw_kernel.cli.exits import OK
from openclaw_kernel.cli.parsing import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    details = """\
bash:  eval "$(openclaw-kernel completion bash)"            in ~/.bashrc
zsh:   openclaw-kernel completion zsh > ~/.zfunc/_openclaw-kernel
fish:  openclaw-kernel completion fish > ~/.config/fish/completions/openclaw-kernel.fish"""
    parser = commands.add(
        "completion", "print a script that completes commands in the shell", run=functools.partial(run, commands), details=details
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell it is for")


def run(commands: Commands, options: argparse.Namespace) -> int:
    """Print it."""
    from openclaw_kernel.cli.shells import SCRIPTS, describe

    sys.stdout.write(SCRIPTS[options.shell](describe(commands.parser, commands)))
    return OK
