"""The service managers: systemd, for one user or the whole system, and launchd. Each step is a command that can be shown before."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from openclaw_kernel.lock import is_running, read_owner
from openclaw_kernel.service.units import (
    LAUNCHD_LABEL,
    STOP_SECONDS,
    UNIT_NAME,
    ServiceFacts,
    is_same_plist,
    is_same_unit,
    launchd_plist,
    systemd_unit,
)

_COMMAND_SECONDS: Final = 150.0
_UNLOAD: Final = ("launchctl", "bootout")
_UNLOADED: Final = frozenset({3, 36, 113})
"""With what launchctl ends where nothing is loaded (3 and 113), and where the job is still ending (36, the EINPROGRESS of macOS)."""
_UNLOAD_SECONDS: Final = STOP_SECONDS + 10.0
_UNLOAD_PAUSE_SECONDS: Final = 0.1
_SHOWN: Final = ("LoadState", "ActiveState", "SubState", "UnitFileState", "MainPID", "NRestarts", "Result", "ExecMainStatus", "StatusText")


class ServiceError(Exception):
    """The manager is not there, or refused; the message names the command, what it said and the cure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceState:
    """What the manager says of the service."""

    installed: bool
    active: str
    """The manager's word: `active`, `inactive`, `failed`, `activating` ..., `unknown` where the manager does not answer."""
    detail: str = ""
    pid: int | None = None
    restarts: int | None = None
    at_boot: bool | None = None
    """Whether it starts with the machine or the login."""


class ServiceManager(Protocol):
    """What a command needs of a manager. `file` is the unit that it reads."""

    name: str
    file: Path

    def text(self, facts: ServiceFacts) -> str:
        """The unit's text for these facts."""

    def is_current(self, facts: ServiceFacts) -> bool:
        """Whether the file is what an install would write now, whatever user and search path were chosen for it."""

    def after_install(self, *, start: bool) -> Sequence[Sequence[str]]:
        """The commands that follow writing the file."""

    def before_removal(self) -> Sequence[Sequence[str]]:
        """The commands that come before the file is removed; they may find nothing to do."""

    def after_removal(self) -> Sequence[Sequence[str]]:
        """The commands that follow it."""

    def state(self) -> ServiceState:
        """Ask the manager."""

    def log_command(self, home: Path, *, follow: bool, lines: int) -> Sequence[str]:
        """The command that prints what the service wrote."""


class Systemd:
    """systemd. `is_system`: the one of the machine, else the user's own."""

    def __init__(self, *, is_system: bool) -> None:
        self.name = "systemd" if is_system else "systemd --user"
        self._scope = () if is_system else ("--user",)
        configuration = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        folder = Path("/etc/systemd/system") if is_system else configuration / "systemd" / "user"
        self.file = folder / UNIT_NAME

    def text(self, facts: ServiceFacts) -> str:
        """The unit."""
        return systemd_unit(facts)

    def is_current(self, facts: ServiceFacts) -> bool:
        """Compare the unit."""
        return is_same_unit(_read(self.file), self.text(facts))

    def after_install(self, *, start: bool) -> Sequence[Sequence[str]]:
        """Read the units anew; have it start with the machine, and now."""
        commands = [self._systemctl("daemon-reload"), self._systemctl("enable", UNIT_NAME)]
        # `restart` starts what does not run, and has a changed unit take effect.
        return [*commands, self._systemctl("restart", UNIT_NAME)] if start else commands

    def before_removal(self) -> Sequence[Sequence[str]]:
        """Stop it, for good."""
        return [self._systemctl("disable", "--now", UNIT_NAME)]

    def after_removal(self) -> Sequence[Sequence[str]]:
        """Read the units anew; forget that it failed."""
        return [self._systemctl("daemon-reload")]

    def state(self) -> ServiceState:
        """What `systemctl show` says."""
        try:
            answer = run(self._systemctl("show", UNIT_NAME, f"--property={','.join(_SHOWN)}"))
        except ServiceError as error:
            return ServiceState(installed=self.file.exists(), active="unknown", detail=str(error))
        shown = dict(line.partition("=")[::2] for line in answer.splitlines() if "=" in line)
        return ServiceState(
            installed=shown.get("LoadState") not in {"not-found", "", None},
            active=shown.get("ActiveState") or "unknown",
            detail=_detail(shown),
            pid=int(shown.get("MainPID") or 0) or None,
            restarts=int(shown["NRestarts"]) if shown.get("NRestarts", "").isdigit() else None,
            at_boot=shown.get("UnitFileState") == "enabled",
        )

    def log_command(self, home: Path, *, follow: bool, lines: int) -> Sequence[str]:
        """`journalctl`."""
        return ["journalctl", *self._scope, "--unit", UNIT_NAME, "--lines", str(lines), *(["--follow"] if follow else ["--no-pager"])]

    def _systemctl(self, *words: str) -> list[str]:
        return ["systemctl", *self._scope, *words]


class Launchd:
    """launchd. `is_system`: a daemon of the machine, else an agent of the user's login."""

    def __init__(self, *, is_system: bool) -> None:
        self.name = "launchd"
        folder = Path("/Library/LaunchDaemons") if is_system else Path.home() / "Library" / "LaunchAgents"
        self.file = folder / f"{LAUNCHD_LABEL}.plist"
        self._domain = "system" if is_system else f"gui/{os.getuid()}"

    def text(self, facts: ServiceFacts) -> str:
        """The property list."""
        return launchd_plist(facts)

    def is_current(self, facts: ServiceFacts) -> bool:
        """Compare the property list."""
        return is_same_plist(_read(self.file), self.text(facts))

    def after_install(self, *, start: bool) -> Sequence[Sequence[str]]:
        """Unload what an earlier install loaded, which launchd loads no second time; load it. RunAtLoad starts it with that."""
        return [*self.before_removal(), ["launchctl", "bootstrap", self._domain, str(self.file)]] if start else []

    def before_removal(self) -> Sequence[Sequence[str]]:
        """Unload it, which stops it."""
        return [[*_UNLOAD, f"{self._domain}/{LAUNCHD_LABEL}"]]

    def after_removal(self) -> Sequence[Sequence[str]]:
        """Nothing is left to do."""
        return []

    def state(self) -> ServiceState:
        """What `launchctl print` says."""
        try:
            answer = run(["launchctl", "print", f"{self._domain}/{LAUNCHD_LABEL}"])
        except ServiceError as error:
            return ServiceState(installed=self.file.exists(), active="inactive", detail=str(error))
        shown = dict(line.strip().partition(" = ")[::2] for line in answer.splitlines() if " = " in line)
        pid = shown.get("pid", "")
        return ServiceState(
            installed=True,
            active="active" if shown.get("state") == "running" else "inactive",
            detail=f"last exit code {shown['last exit code']}" if "last exit code" in shown else "",
            pid=int(pid) if pid.isdigit() else None,
            at_boot=True,
        )

    def log_command(self, home: Path, *, follow: bool, lines: int) -> Sequence[str]:
        """`tail` of the file that the property list names."""
        return ["tail", "-n", str(lines), *(["-F"] if follow else []), str(home / "logs" / "service.log")]


def find_manager(*, is_system: bool) -> ServiceManager:
    """The manager of this machine; raise `ServiceError` where there is none that we know."""
    if sys.platform == "darwin":
        return Launchd(is_system=is_system)
    if shutil.which("systemctl") is None:
        raise ServiceError("no service manager: found neither systemctl nor launchd; start openclaw-kernel run by the one of this system")
    return Systemd(is_system=is_system)


def run(command: Sequence[str]) -> str:
    """Run a command of the manager; return what it printed, raise `ServiceError` with what it complained of."""
    shown = " ".join(command)
    try:
        outcome = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_COMMAND_SECONDS)
    except FileNotFoundError:
        raise ServiceError(f"{shown}: there is no {command[0]} on this machine; install it") from None
    except subprocess.TimeoutExpired:
        raise ServiceError(f"{shown}: did not end in {_COMMAND_SECONDS:.0f} s; see openclaw-kernel service logs") from None
    is_unload = tuple(command[:2]) == _UNLOAD
    if outcome.returncode != 0 and not (is_unload and outcome.returncode in _UNLOADED):
        said = " ".join((outcome.stderr or outcome.stdout).split()) or f"exit code {outcome.returncode}"
        raise ServiceError(f"{shown}: {said[:500]}; {_cure(said)}")
    if is_unload:
        _wait_unloaded(command[2])
    return outcome.stdout


def _wait_unloaded(target: str) -> None:
    # launchd may answer before the job has ended, and takes no job of the same label until then.
    deadline = time.monotonic() + _UNLOAD_SECONDS
    command = ["launchctl", "print", target]
    while subprocess.run(command, capture_output=True, check=False, timeout=_COMMAND_SECONDS).returncode == 0:
        if time.monotonic() > deadline:
            raise ServiceError(f"{target}: is still loaded {_UNLOAD_SECONDS:.0f} s after bootout; see openclaw-kernel service logs")
        time.sleep(_UNLOAD_PAUSE_SECONDS)


def install(manager: ServiceManager, facts: ServiceFacts, *, start: bool) -> Path | None:
    """Write the unit and tell the manager; return where a unit of other content that was there is kept.

    Raise `ServiceError`, with nothing changed where the service could not start on that folder.
    """
    _see_to_folder(manager, facts.home, start=start)
    text = manager.text(facts)
    kept = None
    try:
        if manager.file.exists() and manager.file.read_bytes() != text.encode():
            kept = manager.file.with_name(f"{manager.file.name}.{time.strftime('%Y%m%dT%H%M%S')}.bak")
            kept.write_bytes(manager.file.read_bytes())
        manager.file.parent.mkdir(parents=True, exist_ok=True)
        fresh = manager.file.with_name(f".{manager.file.name}.new")
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(0o644)
        fresh.replace(manager.file)
    except OSError as error:
        raise _not_ours(manager.file, error) from error
    for command in manager.after_install(start=start):
        run(command)
    return kept


def uninstall(manager: ServiceManager) -> bool:
    """Stop the service and remove its unit; tell whether there was one. The state folder stays."""
    if not manager.file.exists():
        return False
    for command in manager.before_removal():
        run(command)
    try:
        manager.file.unlink()
    except OSError as error:
        raise _not_ours(manager.file, error) from error
    for command in manager.after_removal():
        run(command)
    return True


def _see_to_folder(manager: ServiceManager, home: Path, *, start: bool) -> None:
    if not home.is_dir():
        raise ServiceError(f"there is no state folder {home} yet; make it with openclaw-kernel onboard, or name another with --home")
    owner = read_owner(home)
    if start and is_running(owner) and owner.get("pid") != manager.state().pid:
        found = f"a gateway already runs on {home} that is not this service's (pid {owner.get('pid')})"
        raise ServiceError(f"{found}; stop it and run this again, or add --no-start")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _not_ours(file: Path, error: OSError) -> ServiceError:
    reason = (error.strerror or str(error)).lower()
    return ServiceError(f"{file}: cannot be changed ({reason}); with --system run it as root, without make the folder writable")


def _detail(shown: Mapping[str, str]) -> str:
    parts = [shown.get("SubState", "")]
    if shown.get("Result") not in {"", "success", None}:
        parts.append(f"{shown['Result']}, exit code {shown.get('ExecMainStatus', '?')}")
    parts.append(shown.get("StatusText", ""))
    return "; ".join(part for part in parts if part)


def _cure(said: str) -> str:
    if "connect to bus" in said or "not been booted with systemd" in said:
        return "log in as that user (not by su), or use --system as root; systemd has to run this machine"
    if "ermission denied" in said or "ccess denied" in said or "authentication required" in said:
        return "run it as root for --system"
    return "see openclaw-kernel service logs"
