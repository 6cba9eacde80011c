"""What launchd is told, with a `launchctl` that answers as the one of macOS: nothing is loaded twice, or unloaded that is not loaded."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from openclaw_kernel.service.managers import Launchd, ServiceError, install, uninstall
from openclaw_kernel.service.units import LAUNCHD_LABEL, ServiceFacts

LAUNCHCTL = """#!{python}
import sys
from pathlib import Path

loaded, ending, told = (Path({folder!r}, name) for name in ("loaded", "ending", "told"))
with told.open("a") as file:
    print(*sys.argv[1:], file=file)
verb = sys.argv[1]
if verb == "bootstrap":
    if loaded.exists() or ending.exists():
        print("Bootstrap failed: 5: Input/output error", file=sys.stderr)
        sys.exit(5)
    loaded.touch()
elif verb == "bootout":
    if not loaded.exists():
        print("Boot-out failed: 3: No such process", file=sys.stderr)
        sys.exit(3)
    loaded.rename(ending)
    ending.write_text("..")
    print("Boot-out failed: 36: Operation now in progress", file=sys.stderr)
    sys.exit(36)
elif verb == "print":
    if ending.exists():
        # The job ends while it is looked at.
        left = ending.read_text()[1:]
        ending.write_text(left) if left else ending.unlink()
        print("state = running")
    elif loaded.exists():
        print("state = running")
    else:
        print("Could not find service", file=sys.stderr)
        sys.exit(113)
"""


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launchd:
    """Launchd of a user whose home is the test's own."""
    tools = tmp_path / "bin"
    tools.mkdir()
    program = tools / "launchctl"
    program.write_text(LAUNCHCTL.replace("{python}", sys.executable).replace("{folder!r}", repr(str(tmp_path))))
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    return Launchd(is_system=False)


def facts(folder: Path) -> ServiceFacts:
    """Of a state folder that is there."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    return ServiceFacts(program=["/bin/true"], home=home, path="/bin", refused_status=78)


def told(folder: Path) -> list[str]:
    """The verbs, in their order; who only looked is left out."""
    return [line.split()[0] for line in (folder / "told").read_text().splitlines() if not line.startswith("print")]


def test_installed_again_it_is_loaded_anew_once_the_first_has_ended(manager: Launchd, tmp_path: Path) -> None:
    install(manager, facts(tmp_path), start=True)
    assert (tmp_path / "loaded").exists()
    install(manager, facts(tmp_path), start=True)
    assert told(tmp_path) == ["bootout", "bootstrap", "bootout", "bootstrap"]
    assert (tmp_path / "loaded").exists()
    assert not (tmp_path / "ending").exists()


def test_what_is_not_loaded_is_uninstalled_too(manager: Launchd, tmp_path: Path) -> None:
    install(manager, facts(tmp_path), start=False)
    assert manager.file.exists()
    assert uninstall(manager)
    assert not manager.file.exists()
    assert not uninstall(manager)


def test_what_is_loaded_has_ended_when_it_is_uninstalled(manager: Launchd, tmp_path: Path) -> None:
    install(manager, facts(tmp_path), start=True)
    assert uninstall(manager)
    assert not (tmp_path / "loaded").exists()
    assert not (tmp_path / "ending").exists()


def test_another_refusal_of_launchd_is_told(manager: Launchd, tmp_path: Path) -> None:
    install(manager, facts(tmp_path), start=True)
    (tmp_path / "bin" / "launchctl").write_text("#!/bin/sh\necho 'Boot-out failed: 150: Operation not permitted' >&2\nexit 150\n")
    with pytest.raises(ServiceError, match=rf"launchctl bootout gui/{os.getuid()}/{LAUNCHD_LABEL}: Boot-out failed: 150"):
        uninstall(manager)
    assert manager.file.exists()
