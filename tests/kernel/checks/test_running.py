"""Checks of strangers: one that raises, hangs or hands over garbage is a finding with its name, and stops no other."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openclaw_config.home import prepare_home
from openclaw_config.models import Config
from openclaw_config.secrets import Secret
from openclaw_kernel.api import Check, CheckContext, Finding, Severity
from openclaw_kernel.checks.gathering import Gathered, gather
from openclaw_kernel.checks.running import NOT_ASKED, Reported, counts_of, run_checks
from openclaw_kernel.checks.scene import survey
from openclaw_kernel.host.discovery import Discovery, discover
from openclaw_kernel.host.guard import Guard
from openclaw_kernel.host.registry import Owned
from tests.kernel.host.distributions import Distributions

NOBODY = Discovery(plugins=())


@pytest.fixture
def context(tmp_path: Path) -> CheckContext:
    """A state folder as the first start makes it."""
    prepare_home(tmp_path / "home")
    return survey(tmp_path / "home", NOBODY, running=None).context


def finding(evidence: str = "it is so", severity: Severity = Severity.WARN) -> Finding:
    return Finding(severity=severity, evidence=evidence, cure="do not")


def check(check_id: str, look: Any, **options: Any) -> Owned[Check]:
    return Owned("acme", Check(id=check_id, title="a check", worst=Severity.CRITICAL, run=look, **options))


async def run(context: CheckContext, *checks: Owned[Check]) -> list[Reported]:
    guard = Guard()
    try:
        return await run_checks(Gathered(checks, {}), context, guard, kind="security")
    finally:
        await guard.close(1.0)


def fine(_context: CheckContext) -> list[Finding]:
    return [finding()]


async def test_one_that_raises_is_named_and_the_others_go_on(context: CheckContext) -> None:
    def broken(_context: CheckContext) -> Iterator[Finding]:
        yield finding()
        raise LookupError("no such thing")

    reported = await run(context, check("acme.broken", broken), check("acme.fine", fine))
    assert [(each.id, each.failed) for each in reported] == [("acme.broken", True), ("acme.fine", False)]
    assert reported[0].finding.severity is Severity.WARN
    assert "could not look: check acme.broken raised LookupError: no such thing" in reported[0].finding.evidence
    assert "the plugin acme" in reported[0].finding.cure


async def test_one_that_hangs_is_named_and_the_others_go_on(context: CheckContext) -> None:
    never = threading.Event()

    def hangs(_context: CheckContext) -> list[Finding]:
        never.wait(30)
        return []

    reported = await run(context, check("acme.hangs", hangs, timeout_seconds=0.05), check("acme.fine", fine))
    never.set()
    assert {each.id: each.failed for each in reported} == {"acme.hangs": True, "acme.fine": False}
    assert "did not end in 0.05 s" in next(each for each in reported if each.failed).finding.evidence


@pytest.mark.parametrize("answer", [None, 7, ["text"], [finding(), None]])
async def test_what_is_no_finding_is_the_checks_fault(context: CheckContext, answer: Any) -> None:
    reported = await run(context, check("acme.garbage", lambda _context: answer), check("acme.fine", fine))
    assert {each.id: each.failed for each in reported} == {"acme.garbage": True, "acme.fine": False}


async def test_the_worst_come_first_and_are_counted(context: CheckContext) -> None:
    def all_kinds(_context: CheckContext) -> Iterable[Finding]:
        return [finding(severity=severity) for severity in Severity]

    reported = await run(context, check("acme.all", all_kinds), check("acme.fine", fine))
    assert [each.finding.severity.value for each in reported] == ["critical", "warn", "warn", "info"]
    assert counts_of(reported) == {"info": 1, "warn": 2, "critical": 1}


async def test_no_known_secret_is_told(context: CheckContext) -> None:
    secret = Secret("canary-of-a-check-71")

    def tells(_context: CheckContext) -> Iterator[Finding]:
        yield Finding(severity=Severity.INFO, evidence=f"it is {secret.unwrap()}\n!", cure=f"not {secret.unwrap()}", where=secret.unwrap())
        raise ValueError(secret.unwrap())

    def told(_context: CheckContext) -> Iterator[Finding]:
        yield Finding(severity=Severity.INFO, evidence=f"it is {secret.unwrap()}\n!", cure=f"not {secret.unwrap()}", where=secret.unwrap())

    reported = await run(context, check("acme.raises", tells), check("acme.tells", told))
    assert len(reported) == 2
    assert "canary" not in repr(reported)
    assert "\n" not in reported[1].finding.evidence


async def test_one_that_probes_runs_only_with_a_probe(context: CheckContext) -> None:
    reported = await run(context, check("acme.deep", fine, deep=True), check("acme.fine", fine, kind="doctor"))
    assert reported == []


async def test_a_plugin_whose_checks_cannot_be_had_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: CheckContext) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    installed = Distributions(folder)
    good = "Check(id='acme.good', title='x', worst=Severity.INFO, run=lambda context: [])"
    hook = "    settings = None\n    def __init__(self, context): pass\n    @hookimpl\n    def openclaw_register_checks(self, registrar):\n"
    installed.add("raises", f"class ThePlugin:\n{hook}        raise OSError('x')\n")
    installed.add("works", f"class ThePlugin:\n{hook}        registrar.add_check({good})\n")
    installed.add("taken", f"class ThePlugin:\n{hook}        registrar.add_check({good})\n", distribution="acme-first")
    odd = "Check(id='Odd', title='x', worst=Severity.INFO, run=print)"
    installed.add("odd", f"class ThePlugin:\n{hook}        registrar.add_check({odd})\n")
    endless = good.replace("acme.good", "acme.endless").replace("run=", "timeout_seconds=1e9, run=")
    installed.add("endless", f"class ThePlugin:\n{hook}        registrar.add_check({endless})\n")
    installed.add("unasked", "raise SystemExit\n")
    found = discover()
    strangers = Discovery(plugins=tuple(each for each in found.plugins if not each.bundled))
    guard = Guard()
    gathered = await gather(guard, config=Config(), home=tmp_path, discovery=strangers)
    installed.forget()
    assert [owned.item.id for owned in gathered.checks] == ["acme.good"]
    assert len(gathered.faults) == 5
    assert "use lower-case words" in gathered.faults["odd"]
    assert "give a positive one of at most 300" in gathered.faults["endless"]
    assert "raised OSError" in gathered.faults["raises"]
    reported = await run_checks(gathered, context, guard, kind="security")
    assert [(each.id, each.finding.severity) for each in reported] == [(NOT_ASKED, Severity.WARN)] * 5
