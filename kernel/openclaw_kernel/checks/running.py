"""Running checks one by one behind the guard, and what they found, with every secret cut out that is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from openclaw_config.redaction import replace_all
from openclaw_config.secrets import known_secrets
from openclaw_kernel.api.check import Check, CheckContext, CheckKind, Finding, Severity
from openclaw_kernel.checks.changes import Plan
from openclaw_kernel.checks.gathering import Gathered
from openclaw_kernel.host.contract import expect_all
from openclaw_kernel.host.guard import Guard, PluginFault
from openclaw_kernel.host.lines import one_line
from openclaw_kernel.host.registry import Owned

MOST_FINDINGS: Final = 100
"""Of one check; more tell nobody more."""
NOT_ASKED: Final = "checks.unavailable"
"""The id under which a plugin is told whose checks could not be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """One finding of one check. `failed` tells that the check itself could not look."""

    id: str
    title: str
    plugin_id: str
    finding: Finding
    failed: bool = False
    plan: Plan | None = None
    """What its fix would change now; None where it has none, or one that cannot be made."""


async def run_checks(gathered: Gathered, context: CheckContext, guard: Guard, *, kind: CheckKind) -> list[Reported]:
    """Run all checks of a kind, those that probe where there is a probe; the worst findings come first."""
    found = [_unavailable(plugin_id, reason) for plugin_id, reason in gathered.faults.items()]
    for owned in wanted_of(gathered.checks, context, kind):
        found += await _run(owned, context, guard)
    order = list(Severity)[::-1]
    return sorted(found, key=lambda each: (order.index(each.finding.severity), each.id))


def wanted_of(checks: Iterable[Owned[Check]], context: CheckContext, kind: CheckKind) -> Sequence[Owned[Check]]:
    """Those that are to be run."""
    return [owned for owned in checks if owned.item.kind == kind and (context.probe is not None or not owned.item.deep)]


async def _run(owned: Owned[Check], context: CheckContext, guard: Guard) -> list[Reported]:
    check, plugin_id = owned.item, owned.plugin_id
    what = f"check {check.id}"

    def look() -> list[Finding]:
        # Within the fence: many checks are generators.
        return expect_all(list(check.run(context)), Finding)

    try:
        findings = await guard.run_sync(plugin_id, what, look, check.timeout_seconds)
    except PluginFault as fault:
        finding = Finding(
            severity=Severity.WARN,
            evidence=f"the check could not look: {fault.reason}",
            cure=f"see that what it looks at can be read; else report it to whoever makes the plugin {plugin_id}",
        )
        return [Reported(id=check.id, title=check.title, plugin_id=plugin_id, finding=_clean(finding), failed=True)]
    return [Reported(id=check.id, title=check.title, plugin_id=plugin_id, finding=_clean(each)) for each in findings[:MOST_FINDINGS]]


def _unavailable(plugin_id: str, reason: str) -> Reported:
    finding = Finding(
        severity=Severity.WARN,
        evidence=f"plugin {plugin_id!r} could not be asked for its checks: {reason}",
        cure=f"mend its section, update it, or disable it with plugins.entries.{plugin_id}.enabled",
    )
    return Reported(id=NOT_ASKED, title="plugins whose checks are missing", plugin_id=plugin_id, finding=_clean(finding), failed=True)


def _clean(finding: Finding) -> Finding:
    known = known_secrets()

    def line(text: str) -> str:
        return one_line(replace_all(text, known))

    where = None if finding.where is None else line(finding.where)
    return replace(finding, evidence=line(finding.evidence), cure=line(finding.cure), where=where)


def counts_of(reported: Iterable[Reported]) -> Mapping[str, int]:
    """How many there are of each severity."""
    found = [each.finding.severity for each in reported]
    count: Callable[[Severity], int] = found.count
    return {severity.value: count(severity) for severity in Severity}
