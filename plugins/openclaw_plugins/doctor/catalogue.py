"""All bundled checks of doctor, by subject."""

from __future__ import annotations

from typing import Final

from openclaw_kernel.api import Check
from openclaw_plugins.doctor import configuration, files, machine, store

MODULES: Final = (configuration, files, store, machine)

CHECKS: Final[tuple[Check, ...]] = tuple(check for module in MODULES for check in module.TABLE.checks)
