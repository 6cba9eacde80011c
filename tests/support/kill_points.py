"""Kills a gateway, and the pip that works for it, before the N-th step by which one of them changes a file that counts.

The module stands on the standard library alone: it is copied into the environment of the gateway, where every Python imports it at its
start (`laid_into`). Steps are counted over all processes, in the order in which they happen.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_NAME = "openclaw_kill_points"
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_STEPS = {"os.rename": (0, 1), "os.remove": (0,), "os.mkdir": (0,), "os.rmdir": (0,), "os.link": (0, 1), "os.symlink": (0, 1)}
"""Events of the audit hook, with the arguments that are paths."""


class KillPoints:
    """The points of one environment; a test sets them, the processes of the environment meet them."""

    def __init__(self, folder: Path) -> None:
        """`folder` holds what the processes have to know."""
        self._folder = folder

    def laid_into(self, site: Path, watched: Iterable[Path]) -> KillPoints:
        """Have every Python that starts with this `site-packages` count what it changes in the watched folders."""
        self._folder.mkdir()
        (self._folder / "watched").write_text("\n".join(map(str, watched)))
        shutil.copy(__file__, site / f"{_NAME}.py")
        (site / f"{_NAME}.pth").write_text(f"import {_NAME}; {_NAME}.meet({str(self._folder)!r})\n")
        return self

    def arm(self, step: int, pid: int | None = None) -> None:
        """Kill who gets to this step before it, and this process; 0 counts alone."""
        (self._folder / "counter").write_bytes(b"")
        (self._folder / "told").write_bytes(b"")
        (self._folder / "armed").write_text(f"{step} {pid or ''}")

    def disarm(self) -> int:
        """Kill nobody any more; return how many steps there were."""
        (self._folder / "armed").unlink()
        return (self._folder / "counter").stat().st_size

    def steps(self) -> list[str]:
        """What the steps were, for a person."""
        return (self._folder / "told").read_text().splitlines()


def meet(folder: str) -> None:
    """Count from here on, in this process."""
    watched = tuple(Path(folder, "watched").read_text(encoding="utf-8").split("\n"))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            paths = [path] if isinstance(flags, int) and flags & _WRITING else []
        elif event in _STEPS:
            paths = [_placed(arguments[number], arguments[-1]) for number in _STEPS[event]]
        else:
            return
        if any(_counts(path, watched) for path in paths):
            _step(folder, f"{event} {' '.join(map(str, paths))}")

    sys.addaudithook(hook)


def _placed(path: Any, descriptor: Any) -> Any:
    # `shutil.rmtree` names what it removes relative to an open folder.
    if isinstance(descriptor, int) and descriptor >= 0 and not Path(path).is_absolute():
        return Path(f"/proc/self/fd/{descriptor}").readlink() / path
    return path


def _counts(path: Any, watched: tuple[str, ...]) -> bool:
    if not isinstance(path, str | os.PathLike):
        return False
    text = os.fspath(path)
    return isinstance(text, str) and text.startswith(watched) and "__pycache__" not in text


def _step(folder: str, what: str) -> None:
    try:
        descriptor = os.open(f"{folder}/armed", os.O_RDONLY)
    except FileNotFoundError:
        return
    step, *gateway = map(int, os.read(descriptor, 64).split())
    os.close(descriptor)
    descriptor = os.open(f"{folder}/counter", os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, b".")
    reached = os.fstat(descriptor).st_size
    os.close(descriptor)
    descriptor = os.open(f"{folder}/told", os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, f"{what}\n".encode())
    os.close(descriptor)
    if reached == step:
        for pid in (*gateway, os.getpid()):
            os.kill(pid, signal.SIGKILL)
