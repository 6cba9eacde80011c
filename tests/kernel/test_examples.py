"""The examples of the plugin guide are real distributions: installed, found, and passing their own tests."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.kernel.host.distributions import Distributions

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.parent for path in (ROOT / "docs" / "examples").glob("*/pyproject.toml"))


def install(example: Path, site: Path) -> None:
    """What pip would do: the packages, and a dist-info with the entry points of the project."""
    project = tomllib.loads((example / "pyproject.toml").read_text(encoding="utf-8"))
    for package in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        (site / package).symlink_to(example / package)
    for group, entries in project["project"]["entry-points"].items():
        for name, value in entries.items():
            Distributions(site).add_entry_point(project["project"]["name"], group, name, value)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_passes_its_own_tests(example: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(example, site)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:randomly"]
    # Their gateways are judged like any other.
    command += ["-p", "tests.support.frames"]
    done = subprocess.run(
        [*command, "-c", str(example / "pyproject.toml"), "--rootdir", str(example), str(example)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "frames of gateways judged" in done.stdout


def test_there_is_an_example_of_each_kind() -> None:
    groups = set()
    for example in EXAMPLES:
        project = tomllib.loads((example / "pyproject.toml").read_text(encoding="utf-8"))
        groups.update(project["project"]["entry-points"])
    assert groups == {"openclaw.channels", "openclaw.providers", "openclaw.plugins"}
