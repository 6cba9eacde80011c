"""Four modes by four outcomes, and which rule decides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openclaw_config.models import Config
from openclaw_config.models import ReloadMode as Mode
from openclaw_kernel.api.config import ConfigPlan, ReloadOutcome, UnitPlan
from openclaw_kernel.reload.diff import Path
from openclaw_kernel.reload.matrix import Rules
from openclaw_kernel.reload.plan import PluginPart, decide

NONE, HOT, UNIT, PROCESS = ReloadOutcome.NONE, ReloadOutcome.HOT, ReloadOutcome.UNIT, ReloadOutcome.PROCESS


def config(**content: Any) -> Config:
    return Config.model_validate(content)


def plugin(name: str, rules: dict[str, str], *sections: str, **more: Any) -> PluginPart:
    owned: list[Path] = [tuple(section.split(".")) for section in sections] or [("channels", name), ("plugins", "entries", name)]
    return PluginPart(id=name, rules=Rules.of_manifest(rules), sections=owned, **{"ran": True, "runs": True, **more})


IRC = plugin("irc", {"channels.irc": "unit", "channels.irc.nick": "hot", "channels.irc.note": "none", "channels.irc.socket": "process"})
BEFORE = config(channels={"irc": {"nick": 1, "note": 1, "socket": 1, "server": 1}})


def changed(*keys: str) -> Config:
    return config(channels={"irc": {key: 2 if key in keys else 1 for key in ("nick", "note", "socket", "server")}})


def only(plan: ConfigPlan) -> UnitPlan:
    (unit,) = plan.units
    return unit


KEYS = {NONE: "note", HOT: "nick", UNIT: "server", PROCESS: "socket"}
MODES: dict[Mode, dict[ReloadOutcome, tuple[ReloadOutcome, bool]]] = {
    "hybrid": {NONE: (NONE, False), HOT: (HOT, False), UNIT: (UNIT, False), PROCESS: (PROCESS, False)},
    "hot": {NONE: (NONE, False), HOT: (HOT, False), UNIT: (UNIT, False), PROCESS: (PROCESS, True)},
    "restart": {NONE: (PROCESS, False), HOT: (PROCESS, False), UNIT: (PROCESS, False), PROCESS: (PROCESS, False)},
    # Nobody watches; what a client asks for is done as in hybrid.
    "off": {NONE: (NONE, False), HOT: (HOT, False), UNIT: (UNIT, False), PROCESS: (PROCESS, False)},
}
CASES = [(mode, outcome, *expected) for mode, row in MODES.items() for outcome, expected in row.items()]


@pytest.mark.parametrize(("mode", "declared", "outcome", "waits"), CASES)
def test_four_modes_by_four_outcomes(mode: Mode, declared: ReloadOutcome, outcome: ReloadOutcome, *, waits: bool) -> None:
    decided = decide(BEFORE, changed(KEYS[declared]), [IRC], mode=mode)
    path = ("channels", "irc", KEYS[declared])
    told = only(decided.plan)
    assert (told.unit, told.outcome, told.waits, told.paths) == ("irc", outcome, waits, (".".join(path),))
    assert decided.plan.changed == (".".join(path),)
    assert decided.plan.outcome is outcome
    assert decided.waiting == ((path,) if waits else ())


UNIT_MODES: dict[Mode, dict[ReloadOutcome, tuple[ReloadOutcome, bool]]] = {
    **MODES,
    # Of one unit it means: left alone until the next start.
    "off": {NONE: (NONE, False), HOT: (PROCESS, True), UNIT: (PROCESS, True), PROCESS: (PROCESS, True)},
}


@pytest.mark.parametrize(
    ("mode", "declared", "outcome", "waits"),
    [(mode, kind, *expected) for mode, row in UNIT_MODES.items() for kind, expected in row.items()],
)
def test_a_unit_with_a_mode_of_its_own(mode: Mode, declared: ReloadOutcome, outcome: ReloadOutcome, *, waits: bool) -> None:
    other: Mode = "hybrid" if mode == "restart" else "restart"
    told = only(decide(BEFORE, changed(KEYS[declared]), [IRC], mode=other, units={"irc": mode}).plan)
    assert (told.outcome, told.waits) == (outcome, waits)


def test_nothing_changed_is_nothing_to_do_in_every_mode() -> None:
    for mode in MODES:
        plan = decide(BEFORE, BEFORE, [IRC], mode=mode).plan
        assert (plan.changed, plan.units, plan.outcome) == ((), (), NONE)


def test_a_unit_is_told_the_hardest_of_its_changes_with_the_keys_that_decide() -> None:
    told = only(decide(BEFORE, changed("nick", "note", "server"), [IRC], mode="hybrid").plan)
    assert (told.outcome, told.paths) == (UNIT, ("channels.irc.server",))
    assert told.reason == 'its manifest says "channels.irc" = "unit"'


def test_what_waits_keeps_nothing_else_from_being_done() -> None:
    decided = decide(BEFORE, changed("nick", "socket"), [IRC], mode="hot")
    assert [(unit.outcome, unit.paths, unit.waits) for unit in decided.plan.units] == [
        (HOT, ("channels.irc.nick",), False),
        (PROCESS, ("channels.irc.socket",), True),
    ]
    assert decided.waiting == (("channels", "irc", "socket"),)


def test_an_undeclared_key_of_a_plugin_needs_a_restart() -> None:
    bare = plugin("irc", {"channels.irc.nick": "hot"})
    told = only(decide(BEFORE, changed("server"), [bare], mode="hybrid").plan)
    assert (told.unit, told.outcome, told.reason) == ("irc", PROCESS, "its manifest's [reload] does not name it")


def test_a_longer_prefix_wins_and_a_named_key_over_any() -> None:
    rules = Rules.of_manifest({"a": "process", "a.*.c": "unit", "a.b.c": "hot", "a.b": "none"})
    expected = {("a", "x"): PROCESS, ("a", "b"): NONE, ("a", "b", "x"): NONE, ("a", "x", "c"): UNIT, ("a", "b", "c", "d"): HOT}
    assert {path: rule.outcome for path in expected if (rule := rules.of(path)) is not None} == expected
    assert rules.of(("ab",)) is None


PROVIDER = {"models.providers": "unit"}


def test_an_entry_of_one_provider_touches_no_other() -> None:
    one, other = plugin("openai", PROVIDER, "models.providers.a"), plugin("anthropic", PROVIDER, "models.providers.b")
    plan = decide(config(), config(models={"providers": {"a": {"apiKey": "x"}}}), [one, other], mode="hybrid").plan
    assert [(unit.unit, unit.outcome) for unit in plan.units] == [("openai", UNIT)]


def test_a_shared_key_is_told_to_each_that_declares_it_and_to_the_kernel() -> None:
    readers = [plugin("agents", {"session.mainKey": "none"}), plugin("routing", {"session": "hot"})]
    plan = decide(config(), config(session={"mainKey": "x"}), readers, mode="hybrid").plan
    assert [(unit.unit, unit.outcome) for unit in plan.units] == [("kernel", HOT), ("agents", NONE), ("routing", HOT)]


@pytest.mark.parametrize(
    ("ran", "runs", "fixed", "outcome", "reason"),
    [
        (False, True, None, UNIT, "it starts"),
        (True, False, None, UNIT, "it stops"),
        (True, False, "others use its services", PROCESS, "it stops, and others use its services"),
        (False, False, None, NONE, "it does not run"),
    ],
)
def test_a_plugin_whose_section_comes_or_goes(*, ran: bool, runs: bool, fixed: str | None, outcome: ReloadOutcome, reason: str) -> None:
    part = replace(IRC, ran=ran, runs=runs, fixed=fixed)
    told = only(decide(BEFORE, config(), [part], mode="hybrid").plan)
    assert (told.unit, told.outcome, told.reason) == ("irc", outcome, reason)


def test_what_provides_services_is_never_replaced() -> None:
    told = only(decide(BEFORE, changed("server"), [replace(IRC, fixed="others use its services")], mode="hybrid").plan)
    assert (told.outcome, told.reason) == (PROCESS, "others use its services")


def test_turning_the_plugins_off_stops_those_that_are_not_bundled() -> None:
    after = config(plugins={"enabled": False})
    plan = decide(config(), after, [plugin("acme", {}, "plugins.entries.acme", runs=False), IRC], mode="hybrid").plan
    assert [(unit.unit, unit.outcome, unit.paths) for unit in plan.units] == [
        ("kernel", HOT, ("plugins.enabled",)),
        ("acme", UNIT, ("plugins.enabled",)),
    ]


def test_what_waits_for_one_unit_waits_for_all_whom_the_key_concerns() -> None:
    serving = plugin("serving", {}, ran=True, runs=False, fixed="it provides Ingress, which others hold")
    plain = plugin("plain", {}, ran=True, runs=False)
    decided = decide(config(), config(plugins={"enabled": False}), [serving, plain], mode="hot")
    told = {unit.unit: (unit.outcome, unit.waits, unit.reason) for unit in decided.plan.units}
    assert decided.waiting == (("plugins", "enabled"),)
    assert told["serving"] == (PROCESS, True, "it stops, and it provides Ingress, which others hold")
    assert told["plain"] == told["kernel"] == (PROCESS, True, "it waits with serving")


def test_a_plugin_that_is_named_and_runs_as_before_is_left_alone() -> None:
    told = only(decide(config(), config(plugins={"entries": {"irc": {"enabled": True}}}), [replace(IRC, fixed="no")], mode="hybrid").plan)
    assert (told.unit, told.outcome, told.reason) == ("irc", NONE, "it runs before and after")


def test_a_section_that_no_plugin_is_installed_for_does_nothing() -> None:
    told = only(decide(config(), config(channels={"fax": {"line": 1}}), [IRC], mode="hybrid").plan)
    assert (told.unit, told.outcome, told.reason) == ("kernel", NONE, "no plugin is installed for it")


@pytest.mark.parametrize("mode", ["hot", "off"])
def test_how_edits_are_taken_is_never_left_for_a_restart(mode: Mode) -> None:
    decided = decide(config(), config(gateway={"reload": {"mode": "hot"}}), [], mode="hybrid", units={"kernel": mode})
    assert (only(decided.plan).outcome, decided.waiting) == (HOT, ())


def test_who_is_connected_is_told() -> None:
    told = only(decide(BEFORE, changed("server"), [replace(IRC, connections=7)], mode="hybrid").plan)
    assert told.connections == 7


def test_a_plugin_with_a_process_of_its_own_is_replaced_by_whatever_its_manifest_says_of_hot() -> None:
    table = {"channels.irc": "hot", "channels.irc.nick": "none"}
    inside = Rules.of_plugin("irc", table, section="channels.irc", isolated=False)
    outside = Rules.of_plugin("irc", table, section="channels.irc", isolated=True)

    def outcomes(rules: Rules) -> dict[str, ReloadOutcome | None]:
        paths = ("channels.irc.nick", "channels.irc.server", "plugins.entries.irc.isolation", "plugins.entries.irc.limits.files")
        found = {path: rules.of(tuple(path.split("."))) for path in paths}
        return {path: None if rule is None else rule.outcome for path, rule in found.items()}

    none, hot, unit = ReloadOutcome.NONE, ReloadOutcome.HOT, ReloadOutcome.UNIT
    assert list(outcomes(inside).values()) == [none, hot, unit, none]
    assert list(outcomes(outside).values()) == [unit, unit, unit, unit]


def test_where_a_plugin_runs_is_the_kernels_to_say_whatever_its_manifest_says_of_it() -> None:
    entry = "plugins.entries.irc"
    rules = Rules.of_plugin("irc", {f"{entry}.isolation": "none", f"{entry}.limits.files": "hot"}, section="channels.irc", isolated=False)
    part = replace(IRC, rules=rules)
    for key, value, outcome in (("isolation", "process", UNIT), ("limits", {"files": 99}, NONE)):
        told = only(decide(config(), config(plugins={"entries": {"irc": {key: value}}}), [part], mode="hybrid").plan)
        assert (told.unit, told.outcome) == ("irc", outcome)
