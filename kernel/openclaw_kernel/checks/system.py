"""What the system tells of a process, its ports, its limits and its supervisors; whatever it does not tell is left out."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from openclaw_kernel.api.doctor import Limits, Listening, ServiceUnit, Space

UNIT: Final = "openclaw-kernel"
_LISTENS: Final = "0A"
_CONNECT_SECONDS: Final = 0.5
_ASK_SECONDS: Final = 5.0
_LONGEST_UNIT: Final = 65_536
_UNLIMITED: Final = 1 << 60
_STATES: Final = ("LoadState", "ActiveState", "SubState", "UnitFileState", "NeedDaemonReload", "Result", "NRestarts", "ExecMainStatus")


def space_of(path: Path) -> Space | None:
    """Look at the file system of the nearest folder that is there."""
    for folder in (path, *path.parents):
        with contextlib.suppress(OSError):
            found = os.statvfs(folder)
            return Space(
                total_bytes=found.f_blocks * found.f_frsize,
                free_bytes=found.f_bavail * found.f_frsize,
                total_inodes=found.f_files,
                free_inodes=found.f_favail,
                read_only=bool(found.f_flag & os.ST_RDONLY),
                no_exec=bool(found.f_flag & getattr(os, "ST_NOEXEC", 0)),
            )
    return None


def listening_on(port: int) -> list[Listening]:
    """Who listens on a port; where the system has no list of that, whether somebody does."""
    inodes = dict(_listeners(port))
    if inodes:
        owners = _owners(set(inodes))
        return [Listening(address=address, pid=owners.get(inode), name=_name(owners.get(inode))) for inode, address in inodes.items()]
    if Path("/proc/self/net/tcp").exists():
        return []
    try:
        socket.create_connection(("127.0.0.1", port), timeout=_CONNECT_SECONDS).close()
    except OSError:
        return []
    return [Listening(address="127.0.0.1")]


def limits_of(pid: int | None) -> Limits:
    """What a process may use; of this one where none is named."""
    folder = Path("/proc") / ("self" if pid is None else str(pid))
    limits = dict(_limits(folder))
    ceilings = (limits.get("Max address space"), limits.get("Max resident set"), _group_limit(folder))
    return Limits(
        age_ms=_age_ms(folder),
        open_files=_count(folder / "fd"),
        most_open_files=limits.get("Max open files"),
        memory_bytes=_resident(folder),
        most_memory_bytes=min((each for each in ceilings if each is not None), default=None),
        watches=_number(Path("/proc/sys/fs/inotify/max_user_watches")),
        watchers=_number(Path("/proc/sys/fs/inotify/max_user_instances")),
        encoding=sys.getfilesystemencoding(),
    )


def service_units(home: Path) -> list[ServiceUnit]:
    """The definitions of services that start a gateway, of this user and of the machine; `home` is the user's home folder."""
    found = []
    for folder, manager in (
        (home / ".config/systemd/user", "systemd --user"),
        (Path("/etc/systemd/system"), "systemd"),
        (home / "Library/LaunchAgents", "launchd"),
        (Path("/Library/LaunchDaemons"), "launchd"),
    ):
        pattern = f"*{UNIT}*.plist" if manager == "launchd" else f"{UNIT}*.service"
        with contextlib.suppress(OSError):
            for path in sorted(folder.glob(pattern)):
                text = path.read_bytes()[:_LONGEST_UNIT].decode("utf-8", "replace")
                found.append(ServiceUnit(path=path, manager=manager, text=text, states=_states(manager, path.name)))
    return found


def _states(manager: str, name: str) -> dict[str, str]:
    if not manager.startswith("systemd"):
        return {}
    command = ["systemctl", *(["--user"] if manager.endswith("--user") else []), "show", name, f"--property={','.join(_STATES)}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(line.split("=", 1) for line in answer.stdout.splitlines() if "=" in line)


def _listeners(port: int) -> Iterator[tuple[str, str]]:
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/self/net/{name}").read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                address, _, number = fields[1].partition(":")
                if fields[3] == _LISTENS and int(number, 16) == port:
                    yield fields[9], _address(address)


def _address(text: str) -> str:
    # Groups of four bytes, each in the machine's order.
    raw = bytes.fromhex(text)
    return str(ipaddress.ip_address(b"".join(raw[start : start + 4][::-1] for start in range(0, len(raw), 4))))


def _owners(inodes: set[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            for descriptor in folder.iterdir():
                link = str(descriptor.readlink())
                if link.startswith("socket:[") and link[8:-1] in inodes:
                    found[link[8:-1]] = int(folder.parent.name)
    return found


def _name(pid: int | None) -> str | None:
    if pid is None:
        return None
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _limits(folder: Path) -> Iterator[tuple[str, int | None]]:
    with contextlib.suppress(OSError):
        for line in (folder / "limits").read_text(encoding="ascii").splitlines()[1:]:
            # The name, padded to 26 columns, then the soft limit.
            soft = line[26:].split()[:1]
            if soft:
                yield line[:26].strip(), None if soft[0] == "unlimited" else int(soft[0])


def _group_limit(folder: Path) -> int | None:
    """The narrowest ceiling of memory of the control groups that a process is in."""
    found = []
    with contextlib.suppress(OSError):
        for line in (folder / "cgroup").read_text(encoding="utf-8").splitlines():
            number, names, path = line.split(":", 2)
            if number == "0":
                root, name = Path("/sys/fs/cgroup"), "memory.max"
            elif "memory" in names.split(","):
                root, name = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
            else:
                continue
            group = root / path.strip("/")
            while group.is_relative_to(root):
                found.append(_number(group / name))
                group = group.parent
    return min((each for each in found if each is not None and each < _UNLIMITED), default=None)


def _age_ms(folder: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        # The name of the program, in brackets, may hold spaces; the 22nd field is when it began, in ticks since the boot.
        began = int((folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19])
        up = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
        return int((up - began / os.sysconf("SC_CLK_TCK")) * 1000)
    return None


def _resident(folder: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int((folder / "statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None


def _count(folder: Path) -> int | None:
    try:
        return sum(1 for _ in folder.iterdir())
    except OSError:
        return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
