"""`openclaw-kernel security audit`: what is wrong with how a gateway is set up, and what is safe to mend."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from openclaw_kernel.cli.errors import BadConfig, BadUsage, CommandFailed
from openclaw_kernel.cli.exits import FAILED, OK
from openclaw_kernel.cli.parsing import Commands
from openclaw_kernel.cli.terminal import DIM, RED, YELLOW, emit, emit_json, note, paint_out, printable

if TYPE_CHECKING:
    from openclaw_kernel.api.check import Severity
    from openclaw_kernel.checks.audit import Outcome
    from openclaw_kernel.checks.running import Reported
    from openclaw_kernel.checks.scene import Running

_COLOURS: Final = {"critical": RED, "warn": YELLOW, "info": DIM}


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
    running = _running(home)
    undo = getattr(options, "undo", None)
    if undo is not None:
        return _undo(options, home, running, undo)
    deep = getattr(options, "deep", False)
    if deep and running is None:
        raise BadUsage(f"security audit: --deep needs a running gateway, and none runs in {home}; start it, or leave --deep out")
    outcome = _look(home, running, deep=deep, fix=getattr(options, "fix", False))
    recorded = not outcome.fixed or _record(options, home, running)
    if options.json:
        emit_json({**outcome.to_json(), "fixed": [{**each.to_json(), "recorded": recorded} for each in outcome.fixed]})
    else:
        _show(outcome, recorded=recorded)
    return OK if outcome.ok else FAILED


def _look(home: Path, running: Running | None, *, deep: bool, fix: bool) -> Outcome:
    import asyncio

    from openclaw_config.source import ConfigError
    from openclaw_kernel.checks.audit import audit as look

    try:
        return asyncio.run(look(home, running, deep=deep, fix=fix))
    except ConfigError as error:
        raise BadConfig(str(error)) from error


def _running(home: Path) -> Running | None:
    from openclaw_kernel.checks.scene import Running
    from openclaw_kernel.cli.target import running_at
    from openclaw_kernel.lock import read_owner

    url = running_at(home)
    return None if url is None else Running(pid=int(read_owner(home)["pid"]), url=url)


def _undo(options: argparse.Namespace, home: Path, running: Running | None, fix_id: str) -> int:
    from openclaw_kernel.checks.changes import CannotFix
    from openclaw_kernel.checks.fixes import FixBook

    try:
        record = FixBook(home).undo(fix_id)
    except CannotFix as error:
        raise CommandFailed(f"security audit: {error}") from error
    recorded = _record(options, home, running)
    if options.json:
        emit_json(
            {"undone": fix_id, "summary": record["summary"], "paths": [step["path"] for step in record["steps"]], "recorded": recorded}
        )
        return OK
    emit(f"undone: {record['summary']}")
    _tell_recorded(recorded=recorded)
    return OK


def _record(options: argparse.Namespace, home: Path, running: Running | None) -> bool:
    """Have the audit log written; tell whether it was."""
    if running is None:
        import asyncio

        from openclaw_kernel.checks.offline import record_alone

        return asyncio.run(record_alone(home))
    from openclaw_kernel.cli.client import Client
    from openclaw_kernel.cli.target import find_target

    try:
        with Client(find_target(options)) as client:
            client.request("security.fixes.record", {})
    except CommandFailed as error:
        note(f"the gateway could not be told: {error}", YELLOW)
        return False
    return True


def _show(outcome: Outcome, *, recorded: bool) -> None:
    for each in outcome.fixed:
        emit(f"fixed {each.check_id}: {printable(each.plan.fix.summary)}")
        for line in each.plan.told:
            emit(f"  {printable(line)}")
        if each.plan.fix.consequence:
            emit(f"  {printable(each.plan.fix.consequence)}")
        emit(f"  undo: openclaw-kernel security audit --undo {each.fix_id}")
    for check_id, reason in outcome.not_fixed:
        note(f"not fixed: {check_id}: {printable(reason)}", YELLOW)
    if outcome.fixed:
        _tell_recorded(recorded=recorded)
        emit("")
    for reported in outcome.reported:
        _show_finding(reported)
    counts = outcome.counts
    emit(f"{outcome.checks} checks: {counts['critical']} critical, {counts['warn']} warnings, {counts['info']} for information")
    if any(reported.plan is not None for reported in outcome.reported):
        emit("openclaw-kernel security audit --fix does what stands behind `fix`")


def _show_finding(reported: Reported) -> None:
    finding = reported.finding
    severity: Severity = finding.severity
    where = f" {printable(finding.where)}" if finding.where else ""
    emit(f"{paint_out(severity.value, _COLOURS[severity.value])}  {reported.id}{where}")
    emit(f"  {printable(finding.evidence)}")
    emit(f"  cure: {printable(finding.cure)}")
    plan = reported.plan
    if plan is not None:
        emit(f"  fix: {printable(plan.fix.summary)}")
        for line in plan.told:
            emit(f"    {printable(line)}")
        if plan.fix.consequence:
            emit(f"    {printable(plan.fix.consequence)}")
    emit("")


def _tell_recorded(*, recorded: bool) -> None:
    emit("written down in the audit log" if recorded else "the audit log gets its row when the gateway starts")
