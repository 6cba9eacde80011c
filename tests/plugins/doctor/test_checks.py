"""Every check of doctor finds what it is for, and leaves its neighbour alone; a check without such a pair fails here."""

from __future__ import annotations

import os
import sys
import zoneinfo
from collections.abc import Iterator
from pathlib import Path

import pytest

from openclaw_config import issues
from openclaw_kernel.api import Check, Severity
from openclaw_kernel.api.doctor import ServiceUnit
from openclaw_kernel.checks.changes import plan
from openclaw_kernel.checks.fixes import FixBook
from openclaw_plugins.doctor.catalogue import CHECKS
from tests.plugins.doctor import seeds_around, seeds_here
from tests.plugins.doctor.scenes import Scene, Seed, found_by, run
from tests.plugins.doctor.seeds_around import PLIST, services
from tests.support.checks_page import DOCTOR_PAGE, written

SEEDS: dict[str, Seed] = {**seeds_here.SEEDS, **seeds_around.SEEDS}
ORDER = list(Severity)
INJECTED = {"config.old-form"}
"""Checks whose fix needs something that there is none of yet; `tests/config/test_migrating.py` has it."""


@pytest.fixture(autouse=True)
def machine() -> Iterator[None]:
    """The variables and time zones of this machine, whatever a scene made of them."""
    yield
    for name in ("OPENCLAW_PROFILE", "OPENCLAW_CONFIG__GATEWAY__PORT"):
        os.environ.pop(name, None)
    zoneinfo.reset_tzpath()
    if sys.modules.get("tzdata", zoneinfo) is None:
        del sys.modules["tzdata"]


def ids(check: Check) -> str:
    return check.id


def test_every_check_has_a_seed_and_no_seed_is_without_its_check() -> None:
    assert sorted(SEEDS) == sorted(check.id for check in CHECKS)
    assert {check.kind for check in CHECKS} == {"doctor"}


@pytest.mark.parametrize("check", CHECKS, ids=ids)
def test_a_check_finds_what_is_wrong_and_not_its_neighbour(check: Check, tmp_path: Path) -> None:
    seed = SEEDS[check.id]
    (tmp_path / "wrong").mkdir()
    (tmp_path / "right").mkdir()
    wrong = found_by(check.id, seed.wrong.look(tmp_path / "wrong" / "home"))
    assert wrong
    assert not any(each.failed for each in wrong), wrong
    # What a check is announced with is the worst that it finds.
    assert max(ORDER.index(each.finding.severity) for each in wrong) <= ORDER.index(check.worst)
    assert found_by(check.id, seed.right.look(tmp_path / "right" / "home")) == []


@pytest.mark.parametrize("check", [check for check in CHECKS if check.fixes and check.id not in INJECTED], ids=ids)
def test_a_fix_ends_what_was_found_and_can_be_taken_back(check: Check, tmp_path: Path) -> None:
    (tmp_path / "wrong").mkdir()
    home = tmp_path / "wrong" / "home"
    scene = SEEDS[check.id].wrong
    context = scene.look(home)
    before = (home / "openclaw.yaml").read_bytes()
    fixable = [each.finding.fix for each in found_by(check.id, context) if each.finding.fix is not None]
    assert fixable
    made = []
    for fix in fixable:
        planned = plan(fix, home=home, config_path=home / "openclaw.yaml")
        assert planned.told
        made.append(FixBook(home).make(planned, check.id))
    assert found_by(check.id, scene.again(home)) == []
    for fix_id in reversed(made):
        FixBook(home).undo(fix_id)
    assert (home / "openclaw.yaml").read_bytes() == before
    # What was put back is as new as that.
    assert check.id == "files.left" or found_by(check.id, scene.again(home))


@pytest.mark.parametrize("check", [check for check in CHECKS if not check.fixes], ids=ids)
def test_a_check_that_announces_no_fix_has_none(check: Check, tmp_path: Path) -> None:
    (tmp_path / "wrong").mkdir()
    found = found_by(check.id, SEEDS[check.id].wrong.look(tmp_path / "wrong" / "home"))
    assert all(each.finding.fix is None for each in found)


def test_a_service_of_launchd_is_read_too(tmp_path: Path) -> None:
    unit = ServiceUnit(path=Path("/Library/LaunchDaemons/openclaw-kernel.plist"), manager="launchd", text=PLIST, states={})
    (found,) = found_by("service.program", Scene(context=services(unit)).look(tmp_path / "home"))
    assert "/not/there" in found.finding.evidence
    broken = ServiceUnit(path=unit.path, manager="launchd", text="<plist", states={})
    (found,) = found_by("service.program", Scene(context=services(broken)).look(tmp_path / "home"))
    assert found.finding.evidence == "it names no program"


def test_every_fix_that_a_fault_of_the_configuration_names_is_a_check() -> None:
    assert {fix.value for fix in issues.Fix} <= {check.id for check in CHECKS}


def test_what_stands_in_an_included_file_is_told_and_left_to_its_owner(tmp_path: Path) -> None:
    def prepare(home: Path) -> None:
        (home / "more.yaml").write_text("gateway: {prot: 1}\n")

    (found,) = found_by("config.unknown-key", Scene("$include: more.yaml\n", prepare=prepare).look(tmp_path / "home"))
    assert (found.finding.where, found.finding.fix) == ("more.yaml:1:11", None)


def test_there_are_enough_and_the_page_has_them_all() -> None:
    assert len(CHECKS) >= 40
    page = DOCTOR_PAGE.read_text(encoding="utf-8")
    assert page == written(page, CHECKS), "docs/reference/doctor.md is stale: run make docs"


def test_an_installation_that_is_well_has_nothing(tmp_path: Path) -> None:
    assert run(CHECKS, Scene(database=True).look(tmp_path / "home")) == []
