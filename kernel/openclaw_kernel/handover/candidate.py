"""Trying the next process before this one stops: the same program with the same arguments and `--check`.

That loads all and starts nothing. It finds a configuration, a plugin or an installation with which a start fails, and leaves the
bytecode and the disk's cache warm.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from openclaw_kernel.api.errors import InvalidRequest, Unavailable

logger: Final = logging.getLogger("openclaw.gateway")

TRIAL_SECONDS: Final = 60.0
_LONGEST_OUTPUT: Final = 1_048_576
_LINES_SHOWN: Final = 3


class Candidate:
    """The program that a restart would run. `command` starts it as this process was started."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str], seconds: float = TRIAL_SECONDS) -> None:
        self._command = command
        self._environment = environment
        self._seconds = seconds

    @classmethod
    def of_this_process(cls) -> Candidate:
        """The program that runs already, as its installation is now."""
        return cls([sys.executable, *sys.orig_argv[1:]], environment=os.environ)

    async def try_out(self) -> None:
        """Let it load what it would serve.

        Raises:
            InvalidRequest: it would not start; the message has its own words.
            Unavailable: it said nothing within its time.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                "--check",
                "--json",
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_LONGEST_OUTPUT,
            )
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InvalidRequest(f"not restarted, for {self._command[0]} cannot be run again ({reason}); install it anew") from error
        try:
            async with asyncio.timeout(self._seconds):
                said, complained = await process.communicate()
        except TimeoutError:
            text = f"not restarted, for the next process was not checked within {self._seconds:g} s; try again later"
            raise Unavailable(text) from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await asyncio.shield(process.wait())
        if process.returncode != 0:
            raise InvalidRequest(f"not restarted, for the gateway could not start again: {_words(complained, process.returncode)}")
        for problem in _last_of(said, "problems") or ():
            logger.warning("after the restart: %s", problem)


def _last_of(output: bytes, key: str) -> Any:
    for line in reversed(output.splitlines()):
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and key in record:
                return record[key]
    return None


def _words(complained: bytes, status: int | None) -> str:
    error = _last_of(complained, "error")
    if isinstance(error, dict) and error.get("message"):
        return str(error["message"])
    # It died before it could say it properly: the end of a traceback names the module that is broken.
    lines = [line.strip() for line in complained.decode(errors="replace").splitlines() if line.strip()]
    return "; ".join(lines[-_LINES_SHOWN:]) or f"its check ended with {status} and no words"
