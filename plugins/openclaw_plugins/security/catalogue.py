"""All bundled checks, by subject."""

from __future__ import annotations

from typing import Final

from openclaw_kernel.api import Check
from openclaw_plugins.security import files

CHECKS: Final[tuple[Check, ...]] = tuple(check for module in (files,) for check in module.TABLE.checks)
