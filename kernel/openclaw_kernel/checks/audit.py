"""One run of `security audit`: survey, checks, and with `fix` the fixes, after which everything is looked at again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from openclaw_config.home import config_path
from openclaw_kernel.api.check import CheckContext, CheckKind, Severity
from openclaw_kernel.checks.changes import CannotFix, Plan, plan
from openclaw_kernel.checks.fixes import FixBook
from openclaw_kernel.checks.gathering import gather
from openclaw_kernel.checks.running import Reported, counts_of, run_checks, wanted_of
from openclaw_kernel.checks.scene import Running, survey
from openclaw_kernel.host.discovery import discover
from openclaw_kernel.host.guard import Guard


@dataclass(frozen=True, slots=True)
class Fixed:
    """A fix that was made."""

    fix_id: str
    check_id: str
    plan: Plan

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        fix = self.plan.fix
        told = {"summary": fix.summary, "changes": self.plan.told, "consequence": fix.consequence}
        return {"fix": self.fix_id, "id": self.check_id, **told}


@dataclass(slots=True)
class Outcome:
    """What there is to tell."""

    reported: Sequence[Reported]
    checks: int
    running: bool
    fixed: list[Fixed] = field(default_factory=list)
    not_fixed: list[tuple[str, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is worse than for information."""
        return all(each.finding.severity is Severity.INFO for each in self.reported)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many there are of each severity."""
        return counts_of(self.reported)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "ok": self.ok,
            "checks": self.checks,
            "counts": dict(self.counts),
            "running": self.running,
            "findings": [self._finding(each) for each in self.reported],
            "fixed": [each.to_json() for each in self.fixed],
            "notFixed": [{"id": check_id, "reason": reason} for check_id, reason in self.not_fixed],
        }

    def _finding(self, reported: Reported) -> dict[str, Any]:
        finding, planned = reported.finding, reported.plan
        fix = None
        if planned is not None:
            fix = {"summary": planned.fix.summary, "changes": planned.told, "consequence": planned.fix.consequence}
        return {
            "id": reported.id,
            "title": reported.title,
            "plugin": reported.plugin_id,
            "severity": finding.severity.value,
            "where": finding.where,
            "evidence": finding.evidence,
            "cure": finding.cure,
            "failed": reported.failed,
            "fix": fix,
        }


async def audit(home: Path, running: Running | None, *, deep: bool, fix: bool, kind: CheckKind = "security") -> Outcome:
    """Look, and mend where that is asked for; raise `ConfigError` where openclaw.yaml cannot be used at all."""
    outcome = await _look(home, running, deep=deep, kind=kind)
    book = FixBook(home)
    failed = [(check_id, f"a fix was cut off; take it back with --undo {fix_id}") for check_id, fix_id in book.cut_off()]
    if not fix:
        outcome.not_fixed = failed
        return outcome
    made: list[Fixed] = []
    for reported in outcome.reported:
        if reported.finding.fix is None:
            continue
        try:
            # Worked out again: the fix before may have changed the same file.
            planned = plan(reported.finding.fix, home=home, config_path=config_path(home))
            made.append(Fixed(book.make(planned, reported.id), reported.id, planned))
        except CannotFix as error:
            failed.append((reported.id, str(error)))
    after = await _look(home, running, deep=deep, kind=kind) if made else outcome
    after.fixed, after.not_fixed = made, failed
    return after


async def _look(home: Path, running: Running | None, *, deep: bool, kind: CheckKind) -> Outcome:
    discovery = discover()
    guard = Guard()
    probe = None
    if deep and running is not None:
        # Imported here: most runs do not probe.
        from openclaw_kernel.checks.probing import GatewayProbe

        probe = GatewayProbe(running.pid, running.url)
    try:
        context = survey(home, discovery, running=running, probe=probe).context
        gathered = await gather(guard, config=context.config, home=home, discovery=discovery)
        reported = await run_checks(gathered, context, guard, kind=kind)
    finally:
        await guard.close(1.0)
    planned = [_planned(each, context) for each in reported]
    return Outcome(planned, len(wanted_of(gathered.checks, context, kind)), running is not None)


def _planned(reported: Reported, context: CheckContext) -> Reported:
    fix = reported.finding.fix
    if fix is None:
        return reported
    try:
        return replace(reported, plan=plan(fix, home=context.home, config_path=context.config_path))
    except CannotFix:
        return reported
