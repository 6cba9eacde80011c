"""All bundled checks, by subject."""

from __future__ import annotations

from typing import Final

from openclaw_kernel.api import Check
from openclaw_plugins.security import (
    agents,
    certificates,
    channels,
    credentials,
    deep,
    devices,
    files,
    gateway,
    http,
    machine,
    plugins,
    record,
)

MODULES: Final = (gateway, certificates, files, channels, agents, plugins, credentials, devices, http, machine, record, deep)

CHECKS: Final[tuple[Check, ...]] = tuple(check for module in MODULES for check in module.TABLE.checks)
