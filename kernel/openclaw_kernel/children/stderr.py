"""What a child writes for people, in the gateway's log under the plugin's name; as much of it as the log should bear."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Final, Protocol

from openclaw_kernel.children.shown import without_secrets

LINES: Final = 50
WINDOW_SECONDS: Final = 10.0
LINE_CHARACTERS: Final = 2_000
CHUNK_BYTES: Final = 65_536
_AT_A_TIME: Final = 200
_MARK: Final = re.compile(rb"<([0-7])>")
_LEVELS: Final = (*[logging.ERROR] * 4, logging.WARNING, *[logging.INFO] * 2, logging.DEBUG)
_REASON_CHARACTERS: Final = 200


class Reader(Protocol):
    async def read(self, n: int = -1, /) -> bytes: ...


class ChildLog:
    """Takes lines, and passes on `LINES` of them in `WINDOW_SECONDS`; the next window begins with how many were left out."""

    def __init__(self, logger: logging.Logger, now: Callable[[], float]) -> None:
        self._logger = logger
        self._now = now
        self._began = now()
        self._written = 0
        self._left_out = 0
        self._last = ""

    @property
    def last(self) -> str:
        """The last line that says something, for the reason of an end."""
        return without_secrets(self._last)[:_REASON_CHARACTERS]

    def begin(self) -> None:
        """Forget what a process before said last."""
        self._last = ""

    def write(self, level: int, text: str) -> None:
        """Log a line, or count it."""
        shown = text[:LINE_CHARACTERS].rstrip()
        if not shown:
            return
        self._last = shown
        if self._now() - self._began >= WINDOW_SECONDS:
            self._tell_left_out()
            self._began, self._written = self._now(), 0
        if self._written >= LINES:
            self._left_out += 1
            return
        self._written += 1
        self._logger.log(level, "%s", shown)

    async def copy(self, stream: Reader) -> None:
        """Log every line of a stream to its end; a line without an end is cut into pieces."""
        held = b""
        while chunk := await stream.read(CHUNK_BYTES):
            *lines, held = (held + chunk).split(b"\n")
            if len(held) > LINE_CHARACTERS:
                lines.append(held)
                held = b""
            for number, line in enumerate(lines):
                self._write_line(line)
                if number % _AT_A_TIME == _AT_A_TIME - 1:
                    await self._let_others_run()
            await self._let_others_run()
        self._write_line(held)
        self._tell_left_out()

    async def _let_others_run(self) -> None:
        # A flood here must not keep others waiting.
        await asyncio.sleep(0.01 if self._left_out else 0)

    def _write_line(self, line: bytes) -> None:
        severity = _MARK.match(line)
        level = _LEVELS[int(severity[1])] if severity is not None else logging.INFO
        self.write(level, line[severity.end() if severity is not None else 0 :].decode("utf-8", "replace"))

    def _tell_left_out(self) -> None:
        if self._left_out:
            self._logger.warning("%d further lines of its log were left out", self._left_out)
            self._left_out = 0
