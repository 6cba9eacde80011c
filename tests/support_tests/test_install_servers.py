"""What cannot be installed is named with its reason, and nothing is installed twice."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import install_servers
from tests.support.source_tree import ROOT


@pytest.mark.requires("contract", "claude")
def test_without_apt_get_the_missing_packages_are_named_and_all_else_goes_on(tmp_path: Path) -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "tests.support.install_servers"],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert outcome.returncode == 0
    assert "not installed: chromium, chromium-driver, git, caddy, systemd: this system has no apt-get" in outcome.stderr
    assert "npm" not in outcome.stderr


def npm_folder(tmp_path: Path, *, installed: str) -> Path:
    (tmp_path / "package-lock.json").write_text("{}")
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / ".installed").write_text(installed)
    return tmp_path


def fake_npm(tmp_path: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return program


def test_npm_packages_are_installed_again_only_where_the_lock_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = npm_folder(tmp_path, installed="of an older lock")
    fake_npm(tmp_path, "echo ran >> runs", monkeypatch)
    install_servers.install_npm(folder)
    install_servers.install_npm(folder)
    assert (folder / "runs").read_text() == "ran\n"
    assert (folder / "node_modules" / ".installed").read_text() == hashlib.sha256(b"{}").hexdigest()


def test_an_npm_that_fails_is_quoted_and_tried_again_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = npm_folder(tmp_path, installed="of an older lock")
    fake_npm(tmp_path, "echo no route to the registry >&2; exit 3", monkeypatch)
    with pytest.raises(install_servers.InstallError, match="npm ended with 3: no route to the registry"):
        install_servers.install_npm(folder)
    assert (folder / "node_modules" / ".installed").read_text() == "of an older lock"
