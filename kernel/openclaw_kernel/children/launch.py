"""How a child is started: its program, its environment, and the limits that it sets itself before it becomes the program.

Run as `python -I -S launch.py NAME=VALUE... -- PROGRAM ARGUMENT...` it sets the limits and becomes the program; it imports nothing of ours.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

_MEBIBYTE = 1024 * 1024
FIXED_PATH = "/usr/local/bin:/usr/bin:/bin"


def environment(state_folder: str) -> dict[str, str]:
    """Return all that a child sees of the environment; the leash adds its mark."""
    return {"PATH": FIXED_PATH, "HOME": state_folder, "TMPDIR": state_folder, "LANG": "C.UTF-8", "LC_CTYPE": "C.UTF-8"}


def limited(command: list[str], *, memory_mb: int, files: int, processes: int) -> list[str]:
    """Return the command line that sets these limits and becomes the command."""
    limits = [f"memory={memory_mb}", f"files={files}", f"processes={processes}"]
    return [sys.executable, "-I", "-S", __file__, *limits, "--", *command]


def threads_of(user: int) -> int:
    """Return how many threads the user has, which is what RLIMIT_NPROC counts; 0 where the system does not tell."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid == user:
                count += sum(1 for _ in (process / "task").iterdir())
        except OSError:
            # It ended meanwhile.
            continue
    return count


def set_limit(kind: int, wanted: int) -> None:
    """Lower a limit, for good; one that is lower already stays."""
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(kind, (wanted, wanted))


def main(arguments: list[str]) -> None:
    """Set the limits and become the program."""
    split = arguments.index("--")
    limits = dict(each.split("=") for each in arguments[:split])
    command = arguments[split + 1 :]
    set_limit(resource.RLIMIT_CORE, 0)
    set_limit(resource.RLIMIT_DATA, int(limits["memory"]) * _MEBIBYTE)
    set_limit(resource.RLIMIT_NOFILE, int(limits["files"]))
    if others := threads_of(os.getuid()):
        # It counts all that the user has, so where that is unknown there is no sensible limit.
        set_limit(resource.RLIMIT_NPROC, others + int(limits["processes"]))
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
