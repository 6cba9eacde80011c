"""Every check finds what it is for, and leaves its neighbour alone; a check without such a pair fails here."""

from __future__ import annotations

from pathlib import Path

import pytest

from openclaw_kernel.api import Check, Severity
from openclaw_kernel.checks.changes import plan
from openclaw_kernel.checks.fixes import FixBook
from openclaw_plugins.security.catalogue import CHECKS
from tests.plugins.security import seeds_config, seeds_files, seeds_state
from tests.plugins.security.scenes import Scene, found_by, run
from tests.plugins.security.seeds import Seed
from tests.support.checks_page import PAGE, written

SEEDS: dict[str, Seed] = {**seeds_files.SEEDS, **seeds_config.SEEDS, **seeds_state.SEEDS}

LOCAL = [check for check in CHECKS if not check.deep]
ORDER = list(Severity)


def ids(check: Check) -> str:
    return check.id


def test_every_check_has_a_seed_and_no_seed_is_without_its_check() -> None:
    assert sorted(SEEDS) == sorted(check.id for check in LOCAL)


@pytest.mark.parametrize("check", LOCAL, ids=ids)
def test_a_check_finds_what_is_wrong_and_not_its_neighbour(check: Check, tmp_path: Path) -> None:
    seed = SEEDS[check.id]
    (tmp_path / "wrong").mkdir()
    (tmp_path / "right").mkdir()
    wrong = found_by(check.id, seed.wrong.look(tmp_path / "wrong" / "home"))
    assert wrong
    assert not any(each.failed for each in wrong), wrong
    # What a check is announced with is the worst that it finds.
    assert max(ORDER.index(each.finding.severity) for each in wrong) <= ORDER.index(check.worst)
    right = found_by(check.id, seed.right.look(tmp_path / "right" / "home"))
    assert right == []


@pytest.mark.parametrize("check", [check for check in LOCAL if check.fixes], ids=ids)
def test_a_fix_ends_what_was_found_and_can_be_taken_back(check: Check, tmp_path: Path) -> None:
    (tmp_path / "wrong").mkdir()
    home = tmp_path / "wrong" / "home"
    scene = SEEDS[check.id].wrong
    context = scene.look(home)
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
    assert [each.finding.evidence for each in found_by(check.id, scene.again(home))]


@pytest.mark.parametrize("check", [check for check in LOCAL if not check.fixes], ids=ids)
def test_a_check_that_announces_no_fix_has_none(check: Check, tmp_path: Path) -> None:
    (tmp_path / "wrong").mkdir()
    found = found_by(check.id, SEEDS[check.id].wrong.look(tmp_path / "wrong" / "home"))
    assert all(each.finding.fix is None for each in found)


def test_there_are_enough_and_the_page_has_them_all() -> None:
    assert len(CHECKS) >= 40
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page), "docs/security.md is stale: run make docs"


def test_no_finding_tells_a_secret_that_was_put_wrong(tmp_path: Path) -> None:
    everything = {
        "gateway": {"auth": {"token": "canary"}, "controlUi": {"allowedOrigins": ["*"]}},
        "channels": {"telegram": {"botToken": "1:canary-77", "webhookUrl": "http://a.example", "webhookSecret": "canary-88"}},
        "secrets": {"entries": {"github": "canary-99"}},
        "logging": {"level": "debug"},
    }
    (tmp_path / "wrong").mkdir()
    context = Scene(everything).look(tmp_path / "wrong" / "home")
    found = run(LOCAL, context)
    assert {"secrets.plain", "gateway.auth.weak", "channels.webhook.secret"} <= {each.id for each in found}
    told = [line for each in found for line in (each.finding.evidence, each.finding.cure, each.finding.where or "")]
    for each in found:
        if each.finding.fix is not None:
            told += plan(each.finding.fix, home=context.home, config_path=context.config_path).told
    assert "canary" not in "\n".join(told)
    assert "canary" not in repr(found)
