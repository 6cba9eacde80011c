"""Exit codes, as documented in README and `--help`."""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 69
NOT_RESTARTED: Final = 71
TEMPORARY: Final = 75
CONFIG: Final = 78
INTERRUPTED: Final = 130

MEANINGS: Final = {
    OK: "done",
    FAILED: "the gateway answered with an error, or a check failed",
    USAGE: "the command line is wrong",
    UNREACHABLE: "no gateway answers",
    NOT_RESTARTED: "the gateway stopped for a restart and could not be started again",
    TEMPORARY: "not now; the same command can work later",
    CONFIG: "openclaw.yaml or the state folder cannot be used",
    INTERRUPTED: "ended with Ctrl+C",
}
