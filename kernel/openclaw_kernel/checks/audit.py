"""One run of `security audit` or `doctor`: survey, checks, and the fixes that are wanted, after which everything is looked at again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from openclaw_config.home import config_path
from openclaw_kernel.api.check import CheckContext, CheckKind, Severity
from openclaw_kernel.checks.changes import CannotFix, Plan, plan
from openclaw_kernel.checks.fixes import FixBook
from openclaw_kernel.checks.gathering import Gathered, gather
from openclaw_kernel.checks.running import Reported, counts_of, run_checks, wanted_of
from openclaw_kernel.checks.scene import Running, survey
from openclaw_kernel.checks.sections import section_faults
from openclaw_kernel.host.discovery import discover
from openclaw_kernel.host.guard import Guard

Consent: TypeAlias = Callable[[Reported, Plan], bool]
"""Asked before each fix, with what it would change now."""


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
    broken: bool = False
    """Whether openclaw.yaml cannot be used."""
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


async def audit(
    home: Path,
    running: Running | None,
    *,
    deep: bool,
    fix: bool,
    kind: CheckKind = "security",
    only: Collection[str] = (),
    consent: Consent = lambda _reported, _plan: True,
) -> Outcome:
    """Look, and mend where that is asked for. `only` are ids of checks, none means all.

    Raise `ConfigError` where openclaw.yaml cannot be used at all, unless it is the doctor who looks; `LookupError` for an id of no check.
    """
    outcome = await _look(home, running, deep=deep, kind=kind, only=only)
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
            if not consent(reported, planned):
                failed.append((reported.id, "was not wanted"))
                continue
            made.append(Fixed(book.make(planned, reported.id), reported.id, planned))
        except CannotFix as error:
            failed.append((reported.id, str(error)))
    after = await _look(home, running, deep=deep, kind=kind, only=only) if made else outcome
    after.fixed, after.not_fixed = made, failed
    return after


async def _look(home: Path, running: Running | None, *, deep: bool, kind: CheckKind, only: Collection[str]) -> Outcome:
    discovery = discover(home)
    guard = Guard()
    probe = None
    if deep and running is not None:
        # Imported here: most runs do not probe.
        from openclaw_kernel.checks.probing import GatewayProbe

        probe = GatewayProbe(running.pid, running.url)
    try:
        scene = survey(home, discovery, running=running, probe=probe, tolerant=kind == "doctor")
        context = scene.context
        if kind == "doctor":
            context = replace(context, faults=(*context.faults, *await section_faults(guard, scene.loaded, discovery)))
        gathered = _only(await gather(guard, config=context.config, home=home, discovery=discovery), only)
        reported = await run_checks(gathered, context, guard, kind=kind)
    finally:
        await guard.close(1.0)
    planned = [_planned(each, context) for each in reported]
    # A file that is not there yet is written by the first start.
    broken = context.config_path.exists() and any(not fault.is_section for fault in context.faults)
    return Outcome(planned, len(wanted_of(gathered.checks, context, kind)), running is not None, broken)


def _only(gathered: Gathered, ids: Collection[str]) -> Gathered:
    known = {owned.item.id for owned in gathered.checks}
    unknown = sorted(set(ids) - known)
    if unknown:
        raise LookupError(f"there is no check {unknown[0]!r}")
    return replace(gathered, checks=[owned for owned in gathered.checks if not ids or owned.item.id in ids])


def _planned(reported: Reported, context: CheckContext) -> Reported:
    fix = reported.finding.fix
    if fix is None:
        return reported
    try:
        return replace(reported, plan=plan(fix, home=context.home, config_path=context.config_path))
    except CannotFix:
        return reported
