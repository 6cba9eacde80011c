"""Exit codes, as documented in README and `--help`."""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1
"""The gateway answered with an error, or a check failed."""
USAGE: Final = 2
UNREACHABLE: Final = 69
TEMPORARY: Final = 75
CONFIG: Final = 78
