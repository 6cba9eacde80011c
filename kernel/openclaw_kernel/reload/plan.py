"""From what changed to what is done about it. Pure: two configs, the rules, the plugins as they run, and the mode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from openclaw_config.models import Config
from openclaw_config.models import ReloadMode as Mode
from openclaw_kernel.api.config import ConfigPlan, ReloadOutcome, UnitPlan
from openclaw_kernel.reload.diff import Path, changed_paths, named
from openclaw_kernel.reload.matrix import CONTAINERS, KERNEL, Rules

KERNEL_UNIT: Final = "kernel"
_PLUGINS_ENABLED: Final[Path] = ("plugins", "enabled")
_RELOAD: Final[Path] = ("gateway", "reload")
_ORDER: Final = {outcome: place for place, outcome in enumerate(ReloadOutcome)}


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginPart:
    """One installed plugin, as far as a plan needs it. `sections` are the dotted keys that are its own, before or after."""

    id: str
    rules: Rules
    sections: Sequence[Path]
    ran: bool
    """Whether the running config has it run."""
    runs: bool
    """Whether the candidate does."""
    fixed: str | None = None
    """Why it cannot be started, stopped or replaced alone; None where it can."""
    connections: int = 0
    """How many are connected through it now."""

    def owns(self, path: Path) -> bool:
        """Whether the path lies in one of its sections."""
        return any(path[: len(section)] == tuple(section) for section in self.sections)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A plan, and the paths that it leaves for a restart."""

    plan: ConfigPlan
    waiting: Sequence[Path] = field(default=())


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What one changed path, or a start or stop, does to one unit."""

    unit: str
    outcome: ReloadOutcome
    reason: str
    path: Path


def decide(
    running: Config, candidate: Config, plugins: Sequence[PluginPart], *, mode: Mode, units: Mapping[str, Mode] | None = None
) -> Decided:
    """Say what taking the candidate does to each unit. `units` are the modes of single units, by name.

    A unit is told once, with the hardest of what its changed keys do; where that has to wait for a restart, what need not wait is told
    apart, and the unit is there twice. `off` as the mode of all only means that nobody watches the files: what is asked for is done as in
    `hybrid`.
    """
    rest: Mode = "hybrid" if mode == "off" else mode
    modes = units or {}
    changed = changed_paths(running, candidate)
    connections = {plugin.id: plugin.connections for plugin in plugins}
    verdicts = [*_of_plugins(changed, plugins)]
    spoken_for = {verdict.path for verdict in verdicts}
    verdicts += [_of_kernel(path, is_spoken_for=path in spoken_for) for path in changed if KERNEL.of(path) or path not in spoken_for]
    names = sorted({verdict.unit for verdict in verdicts}, key=lambda name: (name != KERNEL_UNIT, name))
    holders: dict[Path, str] = {}
    for unit in names:
        for verdict in _waits_for_restart([one for one in verdicts if one.unit == unit], modes.get(unit, rest)):
            holders.setdefault(verdict.path, unit)
    plans: list[UnitPlan] = []
    for unit in names:
        alone = [verdict for verdict in verdicts if verdict.unit == unit]
        own = [_with_its_holder(verdict, holders) for verdict in alone]
        waits_alone = _waits_for_restart(alone, modes.get(unit, rest))
        held = [verdict for verdict in own if verdict in waits_alone or verdict not in alone]
        for group, waits in ((_without(own, held), False), (held, True)):
            if group:
                where = f"gateway.reload.units.{unit}" if unit in modes else "gateway.reload.mode"
                told = _told(unit, group, modes.get(unit, rest), waits=waits, where=where)
                plans.append(replace(told, connections=connections.get(unit, 0)))
    return Decided(plan=ConfigPlan(changed=named(changed), units=tuple(plans)), waiting=tuple(sorted(holders)))


def _of_plugins(changed: Sequence[Path], plugins: Sequence[PluginPart]) -> Iterator[_Verdict]:
    for plugin in plugins:
        own = [path for path in changed if plugin.owns(path)]
        if plugin.ran != plugin.runs:
            causes = own or [path for path in changed if path == _PLUGINS_ENABLED]
            reason = "it starts" if plugin.runs else "it stops"
            outcome = ReloadOutcome.UNIT
            if plugin.fixed is not None:
                reason, outcome = f"{reason}, and {plugin.fixed}", ReloadOutcome.PROCESS
            yield from (_Verdict(plugin.id, outcome, reason, path) for path in causes)
        elif not plugin.ran:
            yield from (_Verdict(plugin.id, ReloadOutcome.NONE, "it does not run", path) for path in own)
        else:
            yield from filter(None, (_of_running(plugin, path) for path in changed))


def _of_running(plugin: PluginPart, path: Path) -> _Verdict | None:
    is_own = plugin.owns(path)
    if path in {("plugins", "entries", plugin.id), ("plugins", "entries", plugin.id, "enabled")}:
        return _Verdict(plugin.id, ReloadOutcome.NONE, "it runs before and after", path)
    rule = plugin.rules.of(path, is_own=is_own)
    if rule is None:
        return _Verdict(plugin.id, ReloadOutcome.PROCESS, "its manifest's [reload] does not name it", path) if is_own else None
    if rule.outcome is ReloadOutcome.UNIT and plugin.fixed is not None:
        return _Verdict(plugin.id, ReloadOutcome.PROCESS, plugin.fixed, path)
    return _Verdict(plugin.id, rule.outcome, rule.reason, path)


def _of_kernel(path: Path, *, is_spoken_for: bool) -> _Verdict:
    rule = KERNEL.of(path)
    if rule is not None:
        return _Verdict(KERNEL_UNIT, rule.outcome, rule.reason, path)
    if is_spoken_for or any(path[: len(container)] == container for container in CONTAINERS):
        return _Verdict(KERNEL_UNIT, ReloadOutcome.NONE, "no plugin is installed for it", path)
    return _Verdict(KERNEL_UNIT, ReloadOutcome.PROCESS, "nothing declares that it can be taken live", path)


def _waits_for_restart(verdicts: Sequence[_Verdict], mode: Mode) -> list[_Verdict]:
    if mode == "off":
        # How edits are taken is never left for a restart: nobody could undo it otherwise.
        return [verdict for verdict in verdicts if verdict.outcome is not ReloadOutcome.NONE and verdict.path[:2] != _RELOAD]
    return [verdict for verdict in verdicts if mode == "hot" and verdict.outcome is ReloadOutcome.PROCESS]


def _with_its_holder(verdict: _Verdict, holders: Mapping[Path, str]) -> _Verdict:
    """What waits for one unit waits for all: the key has its old value for everybody until then."""
    holder = holders.get(verdict.path, verdict.unit)
    if holder == verdict.unit or verdict.outcome in {ReloadOutcome.NONE, ReloadOutcome.PROCESS}:
        return verdict
    return replace(verdict, outcome=ReloadOutcome.PROCESS, reason=f"it waits with {holder}")


def _without(verdicts: Sequence[_Verdict], held: Sequence[_Verdict]) -> list[_Verdict]:
    return [verdict for verdict in verdicts if verdict not in held]


def _told(unit: str, verdicts: Sequence[_Verdict], mode: Mode, *, waits: bool, where: str) -> UnitPlan:
    hardest = max((verdict.outcome for verdict in verdicts), key=_ORDER.__getitem__)
    decisive = [verdict for verdict in verdicts if verdict.outcome is hardest]
    reason = decisive[0].reason
    if mode == "restart" or (waits and mode == "off"):
        hardest, decisive, reason = ReloadOutcome.PROCESS, list(verdicts), f"{where} is {mode}"
    return UnitPlan(unit=unit, outcome=hardest, paths=named([verdict.path for verdict in decisive]), reason=reason, waits=waits)
