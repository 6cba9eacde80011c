"""How the starts before this one ended: `generations/boot.json`, written without a database. What dies before it is ready is counted.

A start that refuses in words (exit 78 or 75), and one that is told to stop, has not died. A kill after it was ready never counts.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from openclaw_config.home import config_path
from openclaw_kernel.generations.files import FOLDER, read_json, write_json

logger: Final = logging.getLogger("openclaw.gateway")

FILE: Final = "boot.json"
DEATHS: Final = 2
"""So many starts in a row that die before they are ready lead to safe mode; so many in safe mode, to none."""
LOOP_SECONDS: Final = 600.0
"""Starts that die are a loop when they follow each other within this time; later somebody or something else wants one."""

_LATEST_MS: Final = 1 << 52


class Attempts:
    """The count of one state folder. Whoever calls `begin` holds its lock."""

    def __init__(self, home: Path) -> None:
        self._path = home / FOLDER / FILE
        self._config = config_path(home)
        found = read_json(self._path)
        pending: Any = found.get("pending")
        died = isinstance(pending, Mapping)
        in_safe_mode = isinstance(pending, Mapping) and pending.get("safe") is True
        self.deaths = _count(found, "deaths") + died
        """Starts in a row that died before they were ready."""
        self.deaths_in_safe_mode = _count(found, "safeDeaths") + in_safe_mode
        started = pending.get("startedMs") if isinstance(pending, Mapping) else None
        self._last_seconds = max(0, min(started, _LATEST_MS)) / 1000 if isinstance(started, int) else 0.0
        self._config_then = pending.get("config") if isinstance(pending, Mapping) else None
        self._begun = False

    @property
    def wants_safe_mode(self) -> bool:
        """Whether the next start has to do without what may have killed those before."""
        return self.deaths >= DEATHS

    def is_hopeless(self) -> bool:
        """Whether safe mode does not help either: it died there too, a moment ago and with the config file as it is."""
        if self.deaths_in_safe_mode < DEATHS or abs(time.time() - self._last_seconds) > LOOP_SECONDS:
            return False
        now = self._config_now()
        if now is None or isinstance(self._config_then, list):
            # Not compared with the clock, which may have jumped back since the file was written.
            return now is None or now == self._config_then
        return now[1] <= self._last_seconds * 1_000_000_000

    def forget(self) -> None:
        """Count anew: somebody wants a start as if nothing had been."""
        self.deaths = self.deaths_in_safe_mode = 0

    def begin(self, *, safe: bool) -> None:
        """Write down that a start begins: if nothing more is heard of it, it has died."""
        self._begun = True
        pending = {"pid": os.getpid(), "startedMs": time.time_ns() // 1_000_000, "safe": safe, "config": self._config_now()}
        self._write({"deaths": self.deaths, "safeDeaths": self.deaths_in_safe_mode, "pending": pending})

    def withdraw(self) -> None:
        """The start that began ended in order, before it was ready; it counts neither way."""
        if self._begun:
            self._write({"pending": None})
        self._begun = False

    def ready(self, *, ordinary: bool) -> None:
        """The start is ready: nothing before it counts any more. Where all is as it should be, what people were told is over."""
        if self._begun:
            self._write({"deaths": 0, "safeDeaths": 0, "pending": None, **({"told": None} if ordinary else {})})
        self._begun = False

    def told(self, what: str) -> bool:
        """Whether people were told of exactly this before; from now on they were."""
        if read_json(self._path).get("told") == what:
            return True
        self._write({"told": what})
        return False

    def _config_now(self) -> list[int] | None:
        try:
            info = self._config.stat()
        except OSError:
            return None
        return [info.st_size, info.st_mtime_ns]

    def _write(self, values: Mapping[str, Any]) -> None:
        try:
            # Not forced to the disk: it is about processes that die, not about machines.
            write_json(self._path, values, durable=False)
        except OSError as error:
            logger.warning(
                "%s: cannot be written (%s); starts that die are not counted", self._path, (error.strerror or str(error)).lower()
            )


def _count(found: Mapping[str, Any], name: str) -> int:
    value = found.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
