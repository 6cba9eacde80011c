"""`openclaw-kernel security audit`: what is wrong with how a gateway is set up, and what is safe to mend."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from openclaw_kernel.cli.errors import BadConfig, BadUsage
from openclaw_kernel.cli.exits import FAILED, OK
from openclaw_kernel.cli.fixing import running_gateway, show_findings, show_fixes, undo, write_down
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import emit_json

if TYPE_CHECKING:
    from openclaw_kernel.checks.audit import Outcome
    from openclaw_kernel.checks.scene import Running

_COMMAND: Final = "security audit"


def add(commands: Commands) -> None:
    """Add the commands."""
    group = commands.group("security", "look for mistakes in how the gateway is set up", run=audit)
    details = """\
It looks at openclaw.yaml, the state folder, the plugins and the machine, whether the gateway runs or not, and changes
nothing without --fix. Ends with 1 where a finding is a warning or critical.

--json prints {"ok", "checks", "counts": {"info", "warn", "critical"}, "running", "findings": [{"id", "title", "plugin",
"severity", "where", "evidence", "cure", "failed", "fix": null or {"summary", "changes", "consequence"}}],
"fixed": [{"fix", "id", "changes", "recorded"}], "notFixed": [{"id", "reason"}]}."""
    parser = group.add("audit", "look for mistakes, and mend what is safe to mend", run=audit, details=details)
    parser.add_argument("--deep", action="store_true", help="also try the running gateway from outside, as a stranger would")
    change = parser.add_mutually_exclusive_group()
    change.add_argument("--fix", action="store_true", help="mend what is safe to mend; each fix has a backup and can be undone")
    change.add_argument("--undo", metavar="ID", help="take a fix back")


def audit(options: argparse.Namespace) -> int:
    """Look, fix, or undo."""
    from openclaw_config.home import find_home

    home = find_home(options.home)
    running = running_gateway(options, home)
    fix_id = getattr(options, "undo", None)
    if fix_id is not None:
        return undo(options, home, running, fix_id, command=_COMMAND)
    deep = getattr(options, "deep", False)
    if deep and running is None:
        raise BadUsage(f"security audit: --deep needs a running gateway, and none runs in {home}; start it, or leave --deep out")
    outcome = _look(home, running, deep=deep, fix=getattr(options, "fix", False))
    recorded = not outcome.fixed or write_down(options, home, running)
    if options.json:
        emit_json({**outcome.to_json(), "fixed": [{**each.to_json(), "recorded": recorded} for each in outcome.fixed]})
    else:
        show_fixes(outcome, recorded=recorded, command=_COMMAND)
        show_findings(outcome, command=_COMMAND)
    return OK if outcome.ok else FAILED


def _look(home: Path, running: Running | None, *, deep: bool, fix: bool) -> Outcome:
    import asyncio

    from openclaw_config.issues import ConfigError
    from openclaw_kernel.checks.audit import audit as look

    try:
        return asyncio.run(look(home, running, deep=deep, fix=fix))
    except ConfigError as error:
        raise BadConfig(str(error), error.issues) from error
