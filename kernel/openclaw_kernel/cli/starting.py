"""What `openclaw-kernel run` serves: its options, the choice, and what takes its place where that turns out not to start."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from openclaw_kernel.cli.errors import BadConfig

if TYPE_CHECKING:
    from openclaw_kernel.boot import Boot
    from openclaw_kernel.handover.belongings import Belongings

StartedT = TypeVar("StartedT")

DETAILS = """
An openclaw.yaml that cannot be used refuses the start (exit 78); under systemd or launchd the config that last worked serves instead.
After two starts in a row that died before they were ready, safe mode: no third-party plugins."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that decide."""
    which = parser.add_mutually_exclusive_group()
    last_good = "serve the config that last worked where the file cannot be used (default under systemd and launchd)"
    which.add_argument("--last-good", action="store_true", help=last_good, default=False)
    strict = "refuse to start where the file cannot be used (default elsewhere)"
    which.add_argument("--strict", action="store_true", help=strict, default=False)
    count = "start with all plugins, whatever became of the starts before"
    parser.add_argument("--no-safe-mode", action="store_true", help=count, default=False)


def choose(options: argparse.Namespace, home: Path, *, by_itself: bool) -> tuple[Boot, bool]:
    """What is to be served, and whether it is the first start. `by_itself` is a start that nobody looks at.

    Raise `BadConfig`, and `OSError` where the state folder cannot be used.
    """
    from openclaw_config.home import prepare_home
    from openclaw_kernel.boot import NotServed, decide
    from openclaw_kernel.generations.attempts import Attempts
    from openclaw_kernel.generations.files import GenerationFiles

    # A file that is gone from where a gateway worked is a fault, and not a first start.
    first_start = prepare_home(home, may_begin=GenerationFiles(home).last_good() is None)
    attempts = Attempts(home)
    if options.no_safe_mode:
        attempts.forget()
    try:
        return decide(home, attempts, may_fall_back=options.last_good or (by_itself and not options.strict)), first_start
    except NotServed as refused:
        raise BadConfig(str(refused), refused.issues) from refused


async def start_chosen(boot: Boot, belongings: Belongings, start: Callable[[Boot, Belongings], Awaitable[StartedT]]) -> StartedT:
    """Start what was chosen, or else what last worked, where that may serve; raise `CannotStart`."""
    from openclaw_kernel.cannot_start import CannotStart
    from openclaw_kernel.handover.belongings import Belongings

    # A start that fails closes what it was given.
    spare = belongings.duplicate() if boot.may_fall_back else Belongings()
    with contextlib.ExitStack() as unused:
        unused.callback(spare.close)
        try:
            return await start(boot, belongings)
        except CannotStart as error:
            refused, instead = error, boot.fallen_back(str(error))
            if instead is None:
                raise
        unused.pop_all()
    # The first may have given one up to listen elsewhere; what is served instead opens its port anew.
    spare.drop_closed()
    try:
        return await start(instead, spare)
    except CannotStart as error:
        # Where one of them may start later, it is tried again.
        raise CannotStart(f"{refused}\n{error}", min(refused.status, error.status)) from error
