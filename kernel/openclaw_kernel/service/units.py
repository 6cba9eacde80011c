"""What a service manager is told of the gateway: a systemd unit or a launchd property list. Pure: facts in, text out."""

from __future__ import annotations

import plistlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from xml.parsers.expat import ExpatError

from openclaw_kernel.api.plugin import LONGEST_DRAIN_SECONDS

UNIT_NAME: Final = "openclaw-kernel.service"
LAUNCHD_LABEL: Final = "org.openclaw-kernel.gateway"
ENVIRONMENT_FILE: Final = "service.env"
"""In the state folder: variables that the service sees, for `${env:...}` references. It may be missing."""

STOP_SECONDS: Final = int(LONGEST_DRAIN_SECONDS) + 30
"""What the gateway has to stop: the longest drain that a plugin may ask for, then the rest. No manager kills it earlier."""
WATCHDOG_SECONDS: Final = 60
RESTART_SECONDS: Final = 5
_LAUNCHD_THROTTLE_SECONDS: Final = 60
"""launchd knows no exit code after which it is to leave a program alone, so a refused config is tried once a minute."""

_CHOSEN: Final = re.compile(r'(?m)^(Environment="PATH=|User=).*\n')


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFacts:
    """What a unit is made of. All paths are absolute."""

    program: Sequence[str]
    """The command line of the gateway, its program first."""
    home: Path
    path: str
    """The search path for programs that the gateway starts, recorded now."""
    refused_status: int
    """The exit code with which the gateway refuses its configuration; nobody is to start it again then."""
    user: str | None = None
    """Whom a service of the whole system runs as; None for a user's own service."""
    writable: Sequence[Path] = field(default=())
    """Folders beside the state folder that the gateway writes, where they are there: workspaces of agents."""


def systemd_unit(facts: ServiceFacts) -> str:
    """The unit's text."""
    lines = [
        "# Written by openclaw-kernel service install, which replaces it as a whole.",
        "# What is to differ on this machine belongs into a drop-in: systemctl edit openclaw-kernel",
        "[Unit]",
        "Description=openclaw-kernel, a gateway for AI agents",
        "Wants=network-online.target",
        "After=network-online.target",
        # The gateway breaks a circle of crashes by itself: its safe mode must not be kept from starting.
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={' '.join(_quoted(word).replace('$', '$$') for word in facts.program)}",
        "ExecReload=/bin/kill -HUP $MAINPID",
        *([f"User={facts.user}"] if facts.user else []),
        f"WorkingDirectory={_escaped(str(facts.home))}",
        f"Environment={_quoted(f'PATH={facts.path}')}",
        f"EnvironmentFile=-{_escaped(str(facts.home / ENVIRONMENT_FILE))}",
        "Restart=on-failure",
        f"RestartSec={RESTART_SECONDS}",
        f"RestartPreventExitStatus={facts.refused_status}",
        f"WatchdogSec={WATCHDOG_SECONDS}",
        "TimeoutStartSec=120",
        f"TimeoutStopSec={STOP_SECONDS}",
        # The gateway ends what it started; what it cannot end is killed with it.
        "KillMode=mixed",
        "LimitNOFILE=65536",
        *_hardening(facts),
        "",
        "[Install]",
        f"WantedBy={'multi-user.target' if facts.user else 'default.target'}",
    ]
    return "\n".join(lines) + "\n"


def launchd_plist(facts: ServiceFacts) -> str:
    """The property list's text."""
    log = str(facts.home / "logs" / "service.log")
    content = {
        "Label": LAUNCHD_LABEL,
        "ProgramArguments": list(facts.program),
        "WorkingDirectory": str(facts.home),
        "EnvironmentVariables": {"PATH": facts.path},
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": _LAUNCHD_THROTTLE_SECONDS,
        "ExitTimeOut": STOP_SECONDS,
        "ProcessType": "Interactive",
        "Umask": 0o077,
        "SoftResourceLimits": {"NumberOfFiles": 8192},
        "StandardOutPath": log,
        "StandardErrorPath": log,
        **({"UserName": facts.user} if facts.user else {}),
    }
    return plistlib.dumps(content, sort_keys=False).decode()


def is_same_unit(one: str, other: str) -> bool:
    """Whether two systemd units differ in nothing but whom they run as and the search path, which each install chose."""
    return _CHOSEN.sub("", one) == _CHOSEN.sub("", other)


def is_same_plist(one: str, other: str) -> bool:
    """The same of two property lists."""
    try:
        contents = [plistlib.loads(text.encode()) for text in (one, other)]
    except (plistlib.InvalidFileException, ExpatError, ValueError):
        return False
    return bool(_without_choice(contents[0]) == _without_choice(contents[1]))


def _without_choice(content: Any) -> Any:
    chosen = {"EnvironmentVariables", "UserName"}
    return {key: value for key, value in content.items() if key not in chosen} if isinstance(content, dict) else content


def _hardening(facts: ServiceFacts) -> list[str]:
    # Agents run programs of the user's: what those need (a JIT's memory, the user's files to read) stays allowed.
    lines = [
        "UMask=0077",
        "NoNewPrivileges=yes",
        "LockPersonality=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "SystemCallArchitectures=native",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    ]
    if facts.user is None:
        # A user's manager has no right to the rest without user namespaces, which not every system gives.
        return lines
    return [
        *lines,
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
        "ProtectHome=read-only",
        f"ReadWritePaths={_quoted(str(facts.home))}",
        # With a folder that is not there and no dash the gateway would not even be started.
        *(f"ReadWritePaths={_quoted(f'-{folder}')}" for folder in facts.writable),
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "ProtectClock=yes",
        "ProtectControlGroups=yes",
        "ProtectHostname=yes",
        "ProtectKernelLogs=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelTunables=yes",
        "RestrictNamespaces=yes",
        "SystemCallFilter=@system-service",
        "SystemCallErrorNumber=EPERM",
    ]


def _escaped(text: str) -> str:
    # A percent sign begins what systemd replaces.
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    escaped = _escaped(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
