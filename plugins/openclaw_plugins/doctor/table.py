"""How the checks of a module are collected, and what several of them say alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from openclaw_kernel.api import Check, CheckContext, Finding, Severity

Run: TypeAlias = Callable[[CheckContext], Iterable[Finding]]

ONLY_AGENT: Final = "main"
"""The agent there is where none is listed."""


class Table:
    """The checks of one subject."""

    def __init__(self) -> None:
        self.checks: list[Check] = []

    def add(self, check_id: str, title: str, worst: Severity, *, fixes: bool = False, seconds: float = 10.0) -> Callable[[Run], Run]:
        """Make a function a check."""

        def collect(run: Run) -> Run:
            check = Check(id=check_id, title=title, worst=worst, run=run, kind="doctor", fixes=fixes, timeout_seconds=seconds)
            self.checks.append(check)
            return run

        return collect


def size(number: int) -> str:
    """A number of bytes, for people."""
    value = float(number)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":  # noqa: PLR2004 - the step from one unit to the next
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError


def dotted(key: Sequence[str | int]) -> str:
    """A key with dots."""
    return ".".join(map(str, key))


def mapping(value: object) -> Mapping[str, Any]:
    """A mapping; anything else as an empty one."""
    return value if isinstance(value, Mapping) else {}


def texts(value: object) -> list[str]:
    """The items of a list as text; YAML makes numbers of numeric ids."""
    return [str(item) for item in value] if isinstance(value, list) else []


def reason(error: OSError) -> str:
    """Why something could not be done, in a few words."""
    return (error.strerror or str(error) or type(error).__name__).lower()
