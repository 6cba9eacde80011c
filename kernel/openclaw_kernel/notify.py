"""What systemd is told of the gateway (sd_notify): datagrams to `NOTIFY_SOCKET`. Where there is none, nothing is told."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

logger: Final = logging.getLogger("openclaw.gateway")

_SOCKET: Final = "NOTIFY_SOCKET"
_WATCHDOG: Final = ("WATCHDOG_USEC", "WATCHDOG_PID")
_LONGEST_STATUS: Final = 500


class Notifier:
    """One service's line to its manager. A message that cannot be delivered is logged once; the gateway serves all the same."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Take the manager's variables out of the environment: programs that the gateway starts have no business with them."""
        self._taken = {name: environment.pop(name) for name in (_SOCKET, *_WATCHDOG) if name in environment}
        self._address = _address(self._taken.get(_SOCKET, ""))
        self._complained = False
        self.watchdog_seconds: Final = _watchdog_seconds(self._taken)
        """After so long without a sign of life the manager takes the gateway for dead; None where it does not look."""

    def to_environment(self) -> dict[str, str]:
        """The variables again, for the program that takes this one's place."""
        return dict(self._taken)

    def ready(self, status: str) -> None:
        """The start is over, or a restart is."""
        self._send("READY=1", _status(status))

    def restarting(self, status: str) -> None:
        """A new start follows in the same process; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", f"MAINPID={os.getpid()}", _status(status))

    def stopping(self, status: str) -> None:
        """The end has begun."""
        self._send("STOPPING=1", _status(status))

    async def show_life(self) -> None:
        """Give a sign of life twice in each of the manager's periods, until cancelled; a loop that is blocked gives none."""
        while self.watchdog_seconds is not None:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_seconds / 2)

    def _send(self, *assignments: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
                # A manager that does not read must not hold up who serves.
                line.setblocking(False)  # noqa: FBT003 - the standard library's signature
                line.sendto("\n".join(assignments).encode("utf-8", "replace"), self._address)
        except OSError as error:
            level = logging.DEBUG if self._complained else logging.WARNING
            self._complained = True
            logger.log(level, "%s: the service manager cannot be told %s (%s)", _SOCKET, assignments[0], error.strerror or error)


def _address(given: str) -> str | bytes | None:
    if given.startswith("@"):
        # Abstract: it has no place in the file system.
        return b"\0" + os.fsencode(given[1:])
    return given if given.startswith("/") else None


def _watchdog_seconds(taken: dict[str, str]) -> float | None:
    period, pid = taken.get("WATCHDOG_USEC", ""), taken.get("WATCHDOG_PID")
    if not period.isascii() or not period.isdigit() or not int(period) or (pid is not None and pid != str(os.getpid())):
        return None
    return int(period) / 1_000_000


def _status(text: str) -> str:
    return "STATUS=" + " ".join(text.split())[:_LONGEST_STATUS]
