"""`openclaw-kernel doctor`: what keeps a gateway from working, or soon will, and what can be mended; up, down, and with a broken file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from openclaw_kernel.cli.errors import BadUsage
from openclaw_kernel.cli.exits import CONFIG, FAILED, OK
from openclaw_kernel.cli.fixing import running_gateway, show_findings, show_fixes, show_plan, undo, write_down
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import emit, emit_json, printable

if TYPE_CHECKING:
    from openclaw_kernel.checks.audit import Outcome
    from openclaw_kernel.checks.changes import Plan
    from openclaw_kernel.checks.running import Reported
    from openclaw_kernel.checks.scene import Running

_COMMAND: Final = "doctor"


def add(commands: Commands) -> None:
    """Add the command."""
    details = """\
It looks at openclaw.yaml, the state folder, the database, the plugins, the machine, the network and the running gateway, and needs
none of them whole. Ends with 0 where all is well, with 1 where a finding is a warning or critical, with 78 where openclaw.yaml cannot
be used. Nothing is changed without --fix, which shows what each fix changes and asks before it.

--json prints what security audit --json prints."""
    parser = commands.add("doctor", "look for what keeps the gateway from working, and mend it", run=run, details=details)
    parser.add_argument("--only", metavar="CHECK", action="append", help="this check alone; may be given several times", default=[])
    change = parser.add_mutually_exclusive_group()
    change.add_argument("--fix", action="store_true", help="mend what can be mended; each fix can be undone", default=False)
    change.add_argument("--undo", metavar="ID", help="take a fix back", default=None)
    parser.add_argument("--dry-run", action="store_true", help="with --fix: show what it would change, and change nothing", default=False)
    parser.add_argument("--yes", action="store_true", help="with --fix: do not ask", default=False)


def run(options: argparse.Namespace) -> int:
    """Look, fix, or undo."""
    from openclaw_config.home import find_home

    if options.dry_run and options.undo is not None:
        raise BadUsage("doctor: --dry-run shows what --fix would do; --undo takes a fix back, leave one of them out")
    home = find_home(options.home)
    running = running_gateway(options, home)
    if options.undo is not None:
        return undo(options, home, running, options.undo, command=_COMMAND)
    fix = options.fix and not options.dry_run
    if fix and not options.yes and (options.json or not sys.stdin.isatty()):
        raise BadUsage("doctor: --fix asks before each fix, and nobody can answer here; add --yes, or --dry-run to see the changes")
    consent = _ask if fix and not options.yes else _agree
    outcome = _look(home, running, fix=fix, only=options.only, consent=consent)
    recorded = not outcome.fixed or write_down(options, home, running)
    if options.json:
        emit_json({**outcome.to_json(), "fixed": [{**each.to_json(), "recorded": recorded} for each in outcome.fixed]})
    else:
        show_fixes(outcome, recorded=recorded, command=_COMMAND)
        show_findings(outcome, command=_COMMAND)
    return CONFIG if outcome.broken else OK if outcome.ok else FAILED


def _look(home: Path, running: Running | None, *, fix: bool, only: list[str], consent: Callable[[Reported, Plan], bool]) -> Outcome:
    import asyncio

    from openclaw_kernel.checks.audit import audit

    try:
        return asyncio.run(audit(home, running, deep=False, fix=fix, kind="doctor", only=only, consent=consent))
    except LookupError as error:
        raise BadUsage(f"doctor: --only: {error.args[0]}; they are listed in docs/reference/doctor.md") from error


def _agree(_reported: Reported, _plan: Plan) -> bool:
    return True


def _ask(reported: Reported, plan: Plan) -> bool:
    where = f" {printable(reported.finding.where)}" if reported.finding.where else ""
    emit(f"{reported.id}{where}")
    emit(f"  {printable(reported.finding.evidence)}")
    show_plan(plan)
    sys.stdout.write("  do it? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
