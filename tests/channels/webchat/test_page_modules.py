"""The chat page: its modules under Node's own test runner, and what its files may and may not hold."""

from __future__ import annotations

import gzip
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.requirements import find_node

ROOT = Path(__file__).resolve().parents[3]
STATIC = ROOT / "channels" / "openclaw_channels" / "webchat" / "static"
SUITES = sorted((Path(__file__).parent / "js").glob("*.test.mjs"))
PACKED_BUDGET_BYTES = 36_000
NODE_SECONDS = 50


@pytest.mark.requires("node24")
@pytest.mark.parametrize("suite", SUITES, ids=lambda path: path.name.split(".")[0])
def test_the_pure_modules_of_the_page_pass_their_own_tests(suite: Path) -> None:
    outcome = subprocess.run(
        [find_node(), "--test", "--test-reporter=tap", suite],
        capture_output=True,
        text=True,
        check=False,
        timeout=NODE_SECONDS,
    )
    passed = re.search(r"^# pass (\d+)$", outcome.stdout, re.MULTILINE)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert passed is not None
    assert int(passed[1]) > 0, outcome.stdout


def test_every_pure_module_has_a_suite() -> None:
    tested = {path.name.split(".")[0] for path in SUITES}
    assert tested == {"gateway", "markdown", "outbox", "signin", "state"}


def test_the_page_loads_nothing_from_elsewhere_and_runs_nothing_inline() -> None:
    page = (STATIC / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert re.findall(r"<style|\bstyle=|\bon\w+=|javascript:", page) == []
    named = re.findall(r"(?:src|href)=\"([^\"#]+)\"", page)
    assert sorted(named) == ["chat.js", "icon.svg", "style.css"]
    for path in STATIC.iterdir():
        text = path.read_text()
        assert not re.search(r"\binnerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), path.name
        assert not re.search(r"@import|url\(", text), path.name
        assert not re.search(r"localStorage|document\.cookie", text), path.name


def test_every_module_that_is_imported_is_there() -> None:
    names = {path.name for path in STATIC.iterdir()}
    for path in STATIC.glob("*.js"):
        for imported in re.findall(r"from '([^']+)'", path.read_text()):
            assert imported.startswith("./"), path.name
            assert imported[2:] in names, path.name


def test_every_element_the_modules_ask_for_is_on_the_page() -> None:
    page = (STATIC / "index.html").read_text()
    declared = set(re.findall(r'\bid="([^"]+)"', page))
    for path in STATIC.glob("*.js"):
        asked = set(re.findall(r"\bat\('([^']+)'\)", path.read_text()))
        assert asked <= declared, (path.name, asked - declared)
        icons = {f"i-{name}" for name in re.findall(r"\bicon\('([^']+)'", path.read_text())}
        assert icons <= declared, (path.name, icons - declared)


def test_the_page_stays_small() -> None:
    packed = {path.name: len(gzip.compress(path.read_bytes())) for path in STATIC.iterdir()}
    assert sum(packed.values()) < PACKED_BUDGET_BYTES, packed
