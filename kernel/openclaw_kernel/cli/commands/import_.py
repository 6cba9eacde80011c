"""`openclaw-kernel import openclaw PATH`: take a reference installation over, and tell what of it stays behind."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from openclaw_kernel.cli.errors import CommandFailed
from openclaw_kernel.cli.exits import OK
from openclaw_kernel.cli.fixing import running_gateway, write_down
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import emit, emit_json, note, printable, table

if TYPE_CHECKING:
    from openclaw_kernel.importing.report import Line
    from openclaw_kernel.importing.run import Imported


def add(commands: Commands) -> None:
    """Add the commands."""
    group = commands.group("import", "take over what another gateway has", run=None)
    details = """\
Reads openclaw.json with what it includes, agents, bindings, workspaces, sessions and the people who may write. Nothing there is changed.
Secrets go into files below secrets/, which openclaw.yaml names. What openclaw.yaml says already stays; run twice, nothing more changes.
Stop the other gateway before: two with one bot take each other's messages.

--json prints {"source", "taken", "changed", "notTaken": [{"path", "to", "why"}], "alreadyHere", "written", "sessions", "dryRun",
"undo"}; openclaw-kernel doctor --undo takes the change of openclaw.yaml back."""
    parser = group.add("openclaw", "take over a reference installation, e.g. ~/.openclaw", run=run, details=details)
    parser.add_argument("path", metavar="PATH", help="its state folder, or the configuration file in it")
    parser.add_argument("--dry-run", action="store_true", help="tell what would be taken, and change nothing", default=False)


def run(options: argparse.Namespace) -> int:
    """Import, and report."""
    import asyncio

    from openclaw_config.home import find_home
    from openclaw_kernel.importing.run import import_openclaw
    from openclaw_kernel.importing.source import CannotImport

    home = find_home(options.home)
    try:
        imported = asyncio.run(import_openclaw(Path(options.path).expanduser(), home, dry_run=options.dry_run))
    except CannotImport as error:
        raise CommandFailed(f"import openclaw: {error}") from error
    if imported.undo is not None:
        write_down(options, home, running_gateway(options, home))
    if options.json:
        emit_json({**imported.report.to_json(), "sessions": imported.sessions, "dryRun": imported.dry_run, "undo": imported.undo})
    else:
        _show(imported)
    return OK


def _show(imported: Imported) -> None:
    report = imported.report
    _lines("taken", report.taken)
    _lines("changed", report.changed)
    _lines("not taken", report.not_taken)
    emit(
        f"{len(report.taken)} taken, {len(report.changed)} changed, {len(report.not_taken)} not taken, {report.there} here already;"
        f" {imported.sessions} sessions"
    )
    if imported.dry_run:
        note("nothing was changed; without --dry-run it is")
    elif imported.undo is not None:
        emit(f"undo of openclaw.yaml: openclaw-kernel doctor --undo {imported.undo}")
    if imported.sessions and not imported.dry_run:
        emit("sessions come in when the gateway serves, or at its next start")


def _lines(title: str, lines: list[Line]) -> None:
    if lines:
        emit(f"{title}:")
        rows = [(f"  {printable(line.path)}", printable(line.to or ""), printable(line.why or "")) for line in lines]
        emit(table(rows))
        emit("")
