"""All bundled checks of doctor, by subject."""

from __future__ import annotations

from typing import Final

from openclaw_kernel.api import Check
from openclaw_plugins.doctor import agents, configuration, files, generations, machine, network, plugins, running, service, store

MODULES: Final = (configuration, generations, files, store, machine, network, running, service, plugins, agents)

CHECKS: Final[tuple[Check, ...]] = tuple(check for module in MODULES for check in module.TABLE.checks)
