"""What `security audit` and `doctor` have in common: findings as people read them, fixes undone, and the audit log's rows about them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from openclaw_kernel.cli.errors import CommandFailed, NotNow, Unreachable
from openclaw_kernel.cli.exits import OK
from openclaw_kernel.cli.terminal import DIM, RED, YELLOW, emit, emit_json, note, paint_out, printable

if TYPE_CHECKING:
    from openclaw_kernel.checks.audit import Outcome
    from openclaw_kernel.checks.changes import Plan
    from openclaw_kernel.checks.running import Reported
    from openclaw_kernel.checks.scene import Running

_ANSWER_SECONDS: Final = 4.0
"""Less than a check may take: a gateway that hangs is a finding, not the end of the check."""
_COLOURS: Final = {"critical": RED, "warn": YELLOW, "info": DIM}


def running_gateway(options: argparse.Namespace, home: Path) -> Running | None:
    """The gateway that owns the state folder now."""
    from openclaw_kernel.checks.scene import Running
    from openclaw_kernel.cli.target import running_at
    from openclaw_kernel.lock import read_owner

    url = running_at(home)
    if url is None:
        return None

    def ask(method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        from openclaw_kernel.cli.client import Client
        from openclaw_kernel.cli.target import find_target

        try:
            with Client(find_target(options), seconds=_ANSWER_SECONDS) as client:
                answer: Mapping[str, Any] = client.request(method, dict(params), seconds=_ANSWER_SECONDS)
                return answer
        except (NotNow, Unreachable) as error:
            raise TimeoutError(str(error)) from error
        except CommandFailed as error:
            raise OSError(str(error)) from error

    return Running(pid=int(read_owner(home)["pid"]), url=url, ask=ask)


def undo(options: argparse.Namespace, home: Path, running: Running | None, fix_id: str, *, command: str) -> int:
    """Take a fix back."""
    from openclaw_kernel.checks.changes import CannotFix
    from openclaw_kernel.checks.fixes import FixBook

    try:
        record = FixBook(home).undo(fix_id)
    except CannotFix as error:
        raise CommandFailed(f"{command}: {error}") from error
    recorded = write_down(options, home, running)
    if options.json:
        emit_json(
            {"undone": fix_id, "summary": record["summary"], "paths": [step["path"] for step in record["steps"]], "recorded": recorded}
        )
        return OK
    emit(f"undone: {record['summary']}")
    tell_recorded(recorded=recorded)
    return OK


def write_down(options: argparse.Namespace, home: Path, running: Running | None) -> bool:
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


def show_fixes(outcome: Outcome, *, recorded: bool, command: str) -> None:
    """What was mended, and what was not."""
    for each in outcome.fixed:
        emit(f"fixed {each.check_id}: {printable(each.plan.fix.summary)}")
        for line in each.plan.told:
            emit(f"  {printable(line)}")
        if each.plan.fix.consequence:
            emit(f"  {printable(each.plan.fix.consequence)}")
        emit(f"  undo: openclaw-kernel {command} --undo {each.fix_id}")
    for check_id, reason in outcome.not_fixed:
        note(f"not fixed: {check_id}: {printable(reason)}", YELLOW)
    if outcome.fixed:
        tell_recorded(recorded=recorded)
        emit("")


def show_findings(outcome: Outcome, *, command: str) -> None:
    """What was found, and how much of it."""
    for reported in outcome.reported:
        show_finding(reported)
    counts = outcome.counts
    emit(f"{outcome.checks} checks: {counts['critical']} critical, {counts['warn']} warnings, {counts['info']} for information")
    if any(reported.plan is not None for reported in outcome.reported):
        emit(f"openclaw-kernel {command} --fix does what stands behind `fix`")


def show_finding(reported: Reported) -> None:
    """One of them."""
    finding = reported.finding
    where = f" {printable(finding.where)}" if finding.where else ""
    emit(f"{paint_out(finding.severity.value, _COLOURS[finding.severity.value])}  {reported.id}{where}")
    emit(f"  {printable(finding.evidence)}")
    emit(f"  cure: {printable(finding.cure)}")
    if reported.plan is not None:
        show_plan(reported.plan)
    emit("")


def show_plan(plan: Plan) -> None:
    """What a fix would change."""
    emit(f"  fix: {printable(plan.fix.summary)}")
    for line in plan.told:
        emit(f"    {printable(line)}")
    if plan.fix.consequence:
        emit(f"    {printable(plan.fix.consequence)}")


def tell_recorded(*, recorded: bool) -> None:
    """Whether the audit log has it."""
    emit("written down in the audit log" if recorded else "the audit log gets its row when the gateway starts")
