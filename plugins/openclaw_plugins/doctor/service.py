"""The definitions by which systemd or launchd start the gateway."""

from __future__ import annotations

import os
import plistlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from xml.parsers.expat import ExpatError

from openclaw_kernel.api import CheckContext, Finding, Severity
from openclaw_kernel.api.doctor import ServiceUnit
from openclaw_plugins.doctor.table import Table

TABLE: Final = Table()

_SETTINGS: Final = {
    "Type": ("notify", "systemd does not learn when the gateway is ready, nor when it hangs"),
    "RestartPreventExitStatus": ("78", "systemd starts it over and over with an openclaw.yaml that cannot be used"),
}
_RESTARTS: Final = 5
_EXEC_PREFIXES: Final = "-@:+!|"


@TABLE.add("service.program", "a service starts a program that is not there", Severity.CRITICAL)
def program(context: CheckContext) -> Iterator[Finding]:
    for unit in context.instruments.units():
        path = _program(unit)
        if path is None:
            yield _finding(unit, Severity.CRITICAL, "it names no program", "openclaw-kernel service install writes it anew")
        elif path.is_absolute() and not os.access(path, os.X_OK):
            evidence = f"it starts {path}, which is not there or cannot be run, as after a move of the virtual environment"
            yield _finding(unit, Severity.CRITICAL, evidence, "openclaw-kernel service install writes it anew")


@TABLE.add("service.settings", "a service lacks what this version needs", Severity.WARN)
def settings(context: CheckContext) -> Iterator[Finding]:
    for unit in context.instruments.units():
        if not unit.manager.startswith("systemd"):
            continue
        for name, (wanted, otherwise) in _SETTINGS.items():
            values = " ".join(_values(unit.text, name)).split()
            if wanted not in values:
                cure = f"set {name}={wanted}; openclaw-kernel service install writes it anew"
                yield _finding(unit, Severity.WARN, f"{name} is {' '.join(values) or 'not set'}: {otherwise}", cure)


@TABLE.add("service.failed", "a service has failed, or starts over and over", Severity.CRITICAL)
def failed(context: CheckContext) -> Iterator[Finding]:
    for unit in context.instruments.units():
        states = unit.states
        restarts = states.get("NRestarts", "0")
        code = states.get("ExecMainStatus", "0")
        if states.get("ActiveState") == "failed":
            evidence = f"it failed ({states.get('Result') or 'for no reason that is known'}; the program ended with {code})"
            yield _finding(unit, Severity.CRITICAL, evidence, _restart(unit))
        elif restarts.isdigit() and int(restarts) > _RESTARTS:
            yield _finding(unit, Severity.CRITICAL, f"it was started anew {restarts} times; the last ended with {code}", _restart(unit))


@TABLE.add("service.stale", "a service's definition was changed and not read", Severity.WARN)
def stale(context: CheckContext) -> Iterator[Finding]:
    for unit in context.instruments.units():
        if unit.states.get("NeedDaemonReload") == "yes":
            flag = " --user" if unit.manager.endswith("--user") else ""
            yield _finding(unit, Severity.WARN, "systemd has an older definition than the file", f"systemctl{flag} daemon-reload")


@TABLE.add("service.several", "several services start the gateway", Severity.CRITICAL)
def several(context: CheckContext) -> Iterator[Finding]:
    by_home: dict[str, list[ServiceUnit]] = {}
    for unit in context.instruments.units():
        # Without a folder each user has its own.
        by_home.setdefault(_home(unit) or f"the default of {unit.manager}", []).append(unit)
    for home, units in by_home.items():
        if len(units) > 1:
            others = ", ".join(str(unit.path) for unit in units[1:])
            evidence = f"{others}: for the same state folder ({home}), so that one cannot start for the other"
            yield _finding(units[0], Severity.CRITICAL, evidence, "openclaw-kernel service uninstall all but one")


def _finding(unit: ServiceUnit, severity: Severity, evidence: str, cure: str) -> Finding:
    return Finding(severity=severity, where=str(unit.path), evidence=evidence, cure=cure)


def _restart(unit: ServiceUnit) -> str:
    flag = " --user" if unit.manager.endswith("--user") else ""
    return f"mend what this command finds, then systemctl{flag} reset-failed {unit.path.name} and start it"


def _values(text: str, name: str) -> list[str]:
    return re.findall(rf"(?m)^{name}\s*=\s*(.*?)\s*$", text)


def _arguments(unit: ServiceUnit) -> list[str]:
    if unit.manager.startswith("systemd"):
        lines = _values(unit.text.replace("\\\n", " "), "ExecStart")
        try:
            return shlex.split(lines[-1].lstrip(_EXEC_PREFIXES)) if lines else []
        except ValueError:
            return []
    try:
        found = plistlib.loads(unit.text.encode()).get("ProgramArguments")
    except (plistlib.InvalidFileException, ExpatError, ValueError, AttributeError):
        return []
    return [str(item) for item in found] if isinstance(found, list) else []


def _program(unit: ServiceUnit) -> Path | None:
    arguments = _arguments(unit)
    return Path(arguments[0]) if arguments and arguments[0] else None


def _home(unit: ServiceUnit) -> str:
    arguments = _arguments(unit)
    for position, argument in enumerate(arguments):
        if argument == "--home" and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith("--home="):
            return argument.partition("=")[2]
    named = re.findall(r"OPENCLAW_KERNEL_HOME=([^\s\"']+)", unit.text)
    return named[-1] if named else ""
