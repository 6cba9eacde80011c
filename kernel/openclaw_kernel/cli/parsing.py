"""The tree of commands. Each command adds itself; options that all have are added here."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final, TypeAlias

Run: TypeAlias = Callable[[argparse.Namespace], int]

PROGRAM: Final = "openclaw-kernel"
TOKEN_VARIABLE: Final = "OPENCLAW_GATEWAY_TOKEN"  # noqa: S105 - the name of a variable


class Commands:
    """The commands of one level, by name, with their parsers and the commands below them."""

    def __init__(self, parser: argparse.ArgumentParser, *, required: bool) -> None:
        self.parser = parser
        """The one they are commands of."""
        self._level = parser.add_subparsers(title="commands", metavar="COMMAND", required=required)
        self.parsers: dict[str, argparse.ArgumentParser] = {}
        self.summaries: dict[str, str] = {}
        self.below: dict[str, Commands] = {}
        self.listed_by: dict[tuple[str, str], str] = {}
        """By command and argument: which command of ours prints what the shell may complete there, a line each."""

    def add(self, name: str, summary: str, *, run: Run, asks_gateway: bool = False, details: str = "") -> argparse.ArgumentParser:
        """Add a command. `asks_gateway` gives it the options that name a gateway."""
        parser = self._level.add_parser(
            name,
            help=summary,
            description=f"{summary[:1].upper()}{summary[1:]}.",
            epilog=details or None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
        )
        add_place(parser)
        if asks_gateway:
            add_gateway(parser)
        parser.set_defaults(run=run)
        self.parsers[name] = parser
        self.summaries[name] = summary
        return parser

    def group(self, name: str, summary: str, *, run: Run | None = None, asks_gateway: bool = False) -> Commands:
        """Add a command that has commands of its own; `run` is what it does without one."""
        parser = self.add(name, summary, run=run or _nothing, asks_gateway=asks_gateway)
        self.below[name] = Commands(parser, required=run is None)
        return self.below[name]


def add_place(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command takes."""
    home = "state folder (default: $OPENCLAW_KERNEL_HOME, else ~/.openclaw-kernel)"
    parser.add_argument("--home", metavar="FOLDER", help=home, default=argparse.SUPPRESS)
    profile = "layer openclaw.<NAME>.yaml over openclaw.yaml (default: $OPENCLAW_PROFILE)"
    parser.add_argument("--profile", metavar="NAME", help=profile, default=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print JSON for programs", default=argparse.SUPPRESS)


def add_gateway(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a gateway."""
    url = "another gateway than the one of the state folder, e.g. http://127.0.0.1:18789; name its secret too"
    parser.add_argument("--url", metavar="URL", help=url, default=argparse.SUPPRESS)
    token = f"its token or password; better in {TOKEN_VARIABLE}, which no process list shows"
    parser.add_argument("--token", metavar="SECRET", help=token, default=argparse.SUPPRESS)
    pin = "SHA-256 of the certificate that an https:// or wss:// gateway has to show (default: one that this system trusts)"
    parser.add_argument("--tls-fingerprint", metavar="SHA256", help=pin, default=argparse.SUPPRESS)


DEFAULTS: Final[dict[str, Any]] = {"home": None, "profile": None, "json": False, "url": None, "token": None, "tls_fingerprint": None}
"""Values of the options above where nobody gave them; set once, at the root, so that they may stand before or after the command."""


def _nothing(_options: argparse.Namespace) -> int:
    raise AssertionError("argparse lets no group of commands through without one of its commands")
