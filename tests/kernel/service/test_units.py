"""Units that the managers themselves accept, whatever the folders are called."""

from __future__ import annotations

import plistlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from openclaw_kernel.api.plugin import LONGEST_DRAIN_SECONDS
from openclaw_kernel.service.units import ServiceFacts, is_same_plist, is_same_unit, launchd_plist, systemd_unit

ANALYZE = "/usr/bin/systemd-analyze"
ODD = 'a folder, 100% "odd" $HOME \\ ü'


def facts(folder: Path, *, user: str | None = None) -> ServiceFacts:
    home = folder / ODD
    home.mkdir()
    program = [sys.executable, "-m", "openclaw_kernel", "--home", str(home), "run"]
    return ServiceFacts(
        program=program, home=home, path="/usr/bin:/bin", refused_status=78, user=user, writable=[folder / "work space"] if user else []
    )


def setting(unit: str, name: str) -> list[str]:
    return [line.partition("=")[2] for line in unit.splitlines() if line.startswith(f"{name}=")]


@pytest.mark.requires("systemd")
@pytest.mark.parametrize("user", [None, "root"], ids=["of a user", "of the machine"])
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path, user: str | None) -> None:
    unit = systemd_unit(facts(tmp_path, user=user))
    assert complaints(tmp_path, unit, user) == []
    assert complaints(tmp_path, unit.replace("KillMode=mixed", "KillMode=gently"), user) != []


def complaints(tmp_path: Path, unit: str, user: str | None) -> list[str]:
    file = tmp_path / "openclaw-kernel.service"
    file.write_text(unit)
    scope = "--user" if user is None else "--system"
    outcome = subprocess.run(
        [ANALYZE, "verify", scope, "--man=no", str(file)],
        capture_output=True, text=True, check=False, timeout=30, env={"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
    )  # fmt: skip
    return [line for line in outcome.stderr.splitlines() if "openclaw" in line]


@pytest.mark.requires("systemd")
def test_a_service_of_the_machine_is_well_fenced(tmp_path: Path) -> None:
    file = tmp_path / "openclaw-kernel.service"
    file.write_text(systemd_unit(facts(tmp_path, user="nobody")))
    outcome = subprocess.run(
        [ANALYZE, "security", "--offline=yes", "--no-pager", "--threshold=40", str(file)],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stdout[-2000:]


def test_a_workspace_that_is_not_there_yet_keeps_no_gateway_from_starting(tmp_path: Path) -> None:
    unit = facts(tmp_path, user="nobody")
    written = setting(systemd_unit(unit), "ReadWritePaths")
    # `man systemd.exec`: a path with a dash is left out where it does not exist, one without is a failure.
    assert written[1:] == [f'"-{folder}"' for folder in unit.writable]
    assert not written[0].startswith('"-')


@pytest.mark.parametrize(("same", "text"), [(is_same_unit, systemd_unit), (is_same_plist, launchd_plist)], ids=["systemd", "launchd"])
def test_units_are_the_same_whatever_path_and_user_were_chosen(
    tmp_path: Path, same: Callable[[str, str], bool], text: Callable[[ServiceFacts], str]
) -> None:
    unit = facts(tmp_path, user="alice")
    assert same(text(unit), text(replace(unit, path="/opt/bin:/bin", user="bob")))
    assert not same(text(unit), text(replace(unit, program=["/bin/true"])))
    assert not same("", text(unit))


def test_the_manager_kills_no_gateway_that_still_drains(tmp_path: Path) -> None:
    unit = facts(tmp_path)
    assert int(setting(systemd_unit(unit), "TimeoutStopSec")[0]) > LONGEST_DRAIN_SECONDS
    assert plistlib.loads(launchd_plist(unit).encode())["ExitTimeOut"] > LONGEST_DRAIN_SECONDS


def test_a_refused_configuration_is_not_tried_again_and_again(tmp_path: Path) -> None:
    assert setting(systemd_unit(facts(tmp_path)), "RestartPreventExitStatus") == ["78"]


def test_launchd_reads_the_property_list_as_it_was_meant(tmp_path: Path) -> None:
    unit = facts(tmp_path, user="_openclaw")
    content = plistlib.loads(launchd_plist(unit).encode())
    assert content["ProgramArguments"] == list(unit.program)
    assert content["UserName"] == "_openclaw"
    assert content["KeepAlive"] == {"SuccessfulExit": False}
