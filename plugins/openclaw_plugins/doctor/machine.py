"""The machine: disk, clock, limits and versions."""

from __future__ import annotations

import tempfile
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from openclaw_kernel.api import CheckContext, Finding, Severity
from openclaw_plugins.doctor.table import Table, mapping, size

TABLE: Final = Table()

_FULL: Final = 100_000_000
_NEARLY_FULL: Final = 1_000_000_000
_FEW_INODES: Final = 10_000
_FEW_FILES: Final = 1024
_LITTLE_MEMORY: Final = 256_000_000
_FEW_WATCHES: Final = 8192
_FEW_WATCHERS: Final = 16
_JUMP_MS: Final = 60_000
_OLDEST_SQLITE: Final = (3, 35, 0)
_ZONES: Final = ("Europe/Berlin", "America/New_York")
_PYTHON_ENDS: Final = {11: (2027, 10), 12: (2028, 10), 13: (2029, 10), 14: (2030, 10)}
"""By minor version, the month in which it gets its last security fix."""


@TABLE.add("disk.space", "the disk is nearly full", Severity.CRITICAL)
def disk(context: CheckContext) -> Iterator[Finding]:
    space = context.instruments.space(context.home)
    if space is not None and space.free_bytes < _NEARLY_FULL:
        yield Finding(
            severity=Severity.CRITICAL if space.free_bytes < _FULL else Severity.WARN,
            where=str(context.home),
            evidence=f"{size(space.free_bytes)} of {size(space.total_bytes)} are free: where none is left, no message is taken",
            cure="make room on that disk",
        )


@TABLE.add("disk.inodes", "the file system can hold few more files", Severity.WARN)
def inodes(context: CheckContext) -> Iterator[Finding]:
    space = context.instruments.space(context.home)
    if space is not None and space.total_inodes and space.free_inodes < _FEW_INODES:
        yield Finding(
            severity=Severity.WARN,
            where=str(context.home),
            evidence=f"{space.free_inodes} of {space.total_inodes} inodes are free; df -i shows it",
            cure="remove folders with very many small files",
        )


@TABLE.add("disk.temporary", "the folder of temporary files cannot be worked with", Severity.WARN)
def temporary(context: CheckContext) -> Iterator[Finding]:
    folder = Path(tempfile.gettempdir())
    space = context.instruments.space(folder)
    if space is None:
        return
    if space.read_only or space.free_bytes < _FULL:
        yield Finding(
            severity=Severity.WARN,
            where=str(folder),
            evidence="it cannot be written" if space.read_only else f"only {size(space.free_bytes)} are free",
            cure="make room there, or set TMPDIR for the gateway",
        )
    elif space.no_exec:
        yield Finding(
            severity=Severity.WARN,
            where=str(folder),
            evidence="it is mounted noexec: programs that unpack themselves there, and pip where it builds, do not run",
            cure="set TMPDIR for the gateway to a folder of a disk that is not",
        )


@TABLE.add("clock.jump", "the clock was set while the gateway ran", Severity.WARN)
def jump(context: CheckContext) -> Iterator[Finding]:
    age = context.instruments.limits().age_ms
    try:
        said = mapping(context.instruments.call("status")).get("uptimeMs")
    except OSError:
        return
    if age is not None and isinstance(said, int) and abs(said - age) > _JUMP_MS:
        yield Finding(
            severity=Severity.WARN,
            evidence=f"by the clock it has run for {said // 1000} s, and in truth for {age // 1000} s",
            cure="let NTP keep the clock; times of messages, tokens and the audit log from before are off by the difference",
        )


@TABLE.add("clock.ntp", "nobody keeps the clock right", Severity.INFO)
def unsynchronised(context: CheckContext) -> Iterator[Finding]:
    if context.machine.clock_synchronised is False:
        yield Finding(
            severity=Severity.INFO,
            evidence="the system's clock is not synchronised: logins and certificates seem expired where it is wrong",
            cure="turn NTP on, e.g. timedatectl set-ntp true",
        )


@TABLE.add("clock.zones", "there are no time zones", Severity.WARN)
def zones(_context: CheckContext) -> Iterator[Finding]:
    for name in _ZONES:
        try:
            zoneinfo.ZoneInfo.no_cache(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            yield Finding(
                severity=Severity.WARN,
                evidence=f"{name} is not known here: times are told in UTC, and schedules in a zone cannot be kept",
                cure="install the system's package tzdata, or pip install tzdata",
            )
            return


@TABLE.add("locale.encoding", "names and texts are not written in UTF-8", Severity.WARN)
def encoding(context: CheckContext) -> Iterator[Finding]:
    found = context.instruments.limits().encoding
    if found is not None and found.lower().replace("-", "") != "utf8":
        yield Finding(
            severity=Severity.WARN,
            evidence=f"the encoding of this environment is {found}: files with other letters cannot be named",
            cure="set LC_ALL=C.UTF-8, or PYTHONUTF8=1, where the gateway is started",
        )


@TABLE.add("limits.files", "the gateway may open few files", Severity.CRITICAL)
def open_files(context: CheckContext) -> Iterator[Finding]:
    limits = context.instruments.limits()
    most, now = limits.most_open_files, limits.open_files
    if most is None:
        return
    if now is not None and context.process.is_gateway and now > most * 0.8:
        yield Finding(
            severity=Severity.CRITICAL,
            evidence=f"it has {now} of {most} files and sockets open: soon it cannot take a connection",
            cure="restart it, and report what it holds open (ls -l /proc/PID/fd); raise LimitNOFILE",
        )
    elif most < _FEW_FILES:
        yield Finding(
            severity=Severity.WARN,
            evidence=f"it may have {most} files and sockets open; each client and each database needs some",
            cure="raise it: LimitNOFILE=65536 in the service, or ulimit -n",
        )


@TABLE.add("limits.memory", "the gateway has little memory", Severity.CRITICAL)
def memory(context: CheckContext) -> Iterator[Finding]:
    limits = context.instruments.limits()
    most, now = limits.most_memory_bytes, limits.memory_bytes
    if most is None:
        return
    if now is not None and context.process.is_gateway and now > most * 0.9:
        yield Finding(
            severity=Severity.CRITICAL,
            evidence=f"it has {size(now)} of {size(most)}: the system ends it at the next step",
            cure="raise the limit of its service or container, and report what grew",
        )
    elif most < _LITTLE_MEMORY:
        yield Finding(
            severity=Severity.WARN,
            evidence=f"it may have {size(most)}, which is little with providers that run here",
            cure="raise the limit of its service or container (MemoryMax) to 512 MB or more",
        )


@TABLE.add("limits.watches", "changes of openclaw.yaml may not be noticed", Severity.WARN)
def watches(context: CheckContext) -> Iterator[Finding]:
    limits = context.instruments.limits()
    for name, found, least in (
        ("max_user_watches", limits.watches, _FEW_WATCHES),
        ("max_user_instances", limits.watchers, _FEW_WATCHERS),
    ):
        if found is not None and found < least:
            yield Finding(
                severity=Severity.WARN,
                where=f"fs.inotify.{name}",
                evidence=f"it is {found}: other programs of this user use it up, and the gateway's watcher gets none",
                cure=f"sysctl fs.inotify.{name}={least * 8}",
            )


@TABLE.add("versions.python", "this Python gets no security fixes any more", Severity.WARN)
def python(context: CheckContext) -> Iterator[Finding]:
    major, minor, micro = context.instruments.versions().python
    end = _PYTHON_ENDS.get(minor)
    today = datetime.fromtimestamp(context.machine.now_ms / 1000, UTC)
    if end is not None and (today.year, today.month) > end:
        yield Finding(
            severity=Severity.WARN,
            evidence=f"Python {major}.{minor}.{micro} got its last fix in {end[0]}-{end[1]:02}",
            cure="install the gateway into a newer Python",
        )


@TABLE.add("versions.sqlite", "this SQLite is too old", Severity.CRITICAL)
def sqlite(context: CheckContext) -> Iterator[Finding]:
    found = context.instruments.versions().sqlite
    if found < _OLDEST_SQLITE:
        yield Finding(
            severity=Severity.CRITICAL,
            evidence=f"Python was built with SQLite {'.'.join(map(str, found))}; 3.35 is the oldest that has what the store needs",
            cure="install the gateway into a Python with a newer SQLite",
        )


@TABLE.add("versions.downgraded", "an older version runs than the one that wrote the state", Severity.WARN)
def downgraded(context: CheckContext) -> Iterator[Finding]:
    versions = context.instruments.versions()
    if versions.written_by is not None and _parts(versions.written_by) > _parts(versions.package):
        yield Finding(
            severity=Severity.WARN,
            where="state.sqlite3",
            evidence=f"version {versions.written_by} wrote it, and {versions.package} is installed: what the newer one added is not used",
            cure=f"pip install openclaw-kernel=={versions.written_by}, or go on with the older one, which leaves it as it is",
        )


@TABLE.add("versions.restart", "the gateway that runs is of another version than the one that is installed", Severity.WARN)
def restart(context: CheckContext) -> Iterator[Finding]:
    try:
        running = mapping(context.instruments.call("status")).get("version")
    except OSError:
        return
    installed = context.instruments.versions().package
    if isinstance(running, str) and running != installed:
        yield Finding(
            severity=Severity.WARN,
            evidence=f"{running} runs, {installed} is installed: what it imports late is of the other version",
            cure="openclaw-kernel restart",
        )


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.replace("-", ".").split("."))
