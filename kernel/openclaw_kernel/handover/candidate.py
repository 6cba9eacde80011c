"""Trying the next process before this one stops: the same program with the same arguments and `--check`.

That loads all and starts nothing. It finds a configuration, a plugin or an installation with which a start fails, and leaves the
bytecode and the disk's cache warm.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from openclaw_kernel.api.errors import InvalidRequest, Unavailable

logger: Final = logging.getLogger("openclaw.gateway")

TRIAL_SECONDS: Final = 60.0
_LINES_SHOWN: Final = 3


class Candidate:
    """The program that a restart would run. `command` starts it as this process was started; `home` is the gateway's state folder."""

    def __init__(self, command: Sequence[str], *, home: Path, environment: Mapping[str, str], seconds: float = TRIAL_SECONDS) -> None:
        self._command = command
        self._home = home
        self._environment = environment
        self._seconds = seconds

    @classmethod
    def of_this_process(cls, home: Path) -> Candidate:
        """The program that runs already, as its installation is now; `home` is the state folder that it serves."""
        return cls([sys.executable, *sys.orig_argv[1:]], home=home, environment=os.environ)

    async def try_out(self) -> None:
        """Let it load what it would serve.

        Raises:
            InvalidRequest: it would not start; the message has its own words.
            Unavailable: it said nothing within its time.
        """
        # A program of its own is all that needs this.
        from openclaw_kernel.programs import run_to_end

        try:
            ended = await run_to_end(
                [*self._command, "--check", "--json"], home=self._home, environment=self._environment, seconds=self._seconds
            )
        except TimeoutError:
            text = f"not restarted, for the next process was not checked within {self._seconds:g} s; try again later"
            raise Unavailable(text) from None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InvalidRequest(f"not restarted, for {self._command[0]} cannot be run again ({reason}); install it anew") from error
        if ended.status != 0:
            raise InvalidRequest(f"not restarted, for the gateway could not start again: {_words(ended.err, ended.status)}")
        for problem in _last_of(ended.out, "problems") or ():
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
