"""Facts about a process and the machine; whatever a system does not tell is None."""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import sys
import time
from pathlib import Path
from typing import Final

from openclaw_kernel.api.check import MachineFacts, ProcessFacts

_PEOPLE: Final = range(1000, 60_000)
"""User ids that systems give to people."""
_NO_LOGIN: Final = ("nologin", "false", "sync")
_UNSYNCHRONISED: Final = 5
_TIMEX_BYTES: Final = 512
_MOUNT_POINT: Final = 4


def variables_of(pid: int) -> dict[str, str] | None:
    """The environment of a process; None where it may not be seen."""
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    pairs = (item.partition(b"=") for item in content.split(b"\0") if b"=" in item)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def process_facts(pid: int | None) -> ProcessFacts:
    """The facts of a gateway's process; of this one where there is none."""
    if pid is None:
        return ProcessFacts(
            is_gateway=False,
            user_id=os.geteuid(),
            umask=_umask(),
            core_bytes=resource.getrlimit(resource.RLIMIT_CORE)[0],
            variables=tuple(sorted(os.environ)),
        )
    status = _fields(f"/proc/{pid}/status")
    users = status.get("Uid", "").split()
    umask = status.get("Umask")
    variables = variables_of(pid)
    return ProcessFacts(
        is_gateway=True,
        user_id=int(users[1]) if len(users) > 1 else None,
        umask=None if umask is None else int(umask, 8),
        core_bytes=_core_bytes(pid),
        variables=() if variables is None else tuple(sorted(variables)),
    )


def machine_facts(home: Path) -> MachineFacts:
    """The facts of this machine, as they are now."""
    return MachineFacts(
        now_ms=time.time_ns() // 1_000_000,
        clock_synchronised=_clock_synchronised(),
        login_users=tuple(sorted(user.pw_name for user in pwd.getpwall() if user.pw_uid in _PEOPLE and _may_log_in(user.pw_shell))),
        file_system=_file_system(home),
    )


def _umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def _fields(path: str) -> dict[str, str]:
    try:
        lines = Path(path).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _core_bytes(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/limits").read_text(encoding="ascii")
    except OSError:
        return None
    line = next((line for line in text.splitlines() if line.startswith("Max core file size")), "")
    value = line.removeprefix("Max core file size").split()[:1]
    return None if not value else -1 if value[0] == "unlimited" else int(value[0])


def _may_log_in(shell: str) -> bool:
    return bool(shell) and Path(shell).name not in _NO_LOGIN


def _clock_synchronised() -> bool | None:
    if sys.platform != "linux":
        return None
    # With no mode set, the call only reads.
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    state: int = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    return None if state < 0 else state != _UNSYNCHRONISED


def _file_system(path: Path) -> str | None:
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    real = path.resolve()
    best: tuple[int, str] | None = None
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) <= _MOUNT_POINT or not after:
            continue
        # Spaces and the like are written in octal.
        point = Path(fields[_MOUNT_POINT].encode("utf-8", "surrogateescape").decode("unicode_escape", "replace"))
        if real.is_relative_to(point) and (best is None or len(point.parts) >= best[0]):
            best = (len(point.parts), after.split()[0])
    return None if best is None else best[1]
