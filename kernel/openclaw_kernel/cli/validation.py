"""Checks the plugins' sections of a config: the settings models are imported, nothing is constructed or started."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from openclaw_config.load import Loaded

if TYPE_CHECKING:
    from openclaw_kernel.host.discovery import Found
    from openclaw_kernel.host.sections import Share


def plugin_problems(loaded: Loaded) -> list[str]:
    """One line for each thing a start would find wrong with a plugin's section; empty where all is well."""
    from openclaw_kernel.host.discovery import discover
    from openclaw_kernel.host.sections import assign

    discovery = discover(loaded.path.parent)
    assignment = assign(loaded.config, discovery)
    problems = list(assignment.problems)
    for found in discovery.plugins:
        share = assignment.shares[found.id]
        if share.disabled is not None:
            continue
        if found.program is not None and found.state == "discovered":
            # Its settings are its own to judge, when it is started.
            continue
        if found.state == "discovered":
            problems += asyncio.run(_check(found, share, loaded.config.plugins.call_timeout_seconds))
        elif share.section or share.instances:
            problems.append(f"{found.section}: plugin {found.id!r} is {found.state}: {found.reason}")
    return [_placed(loaded, problem) for problem in problems]


async def _check(found: Found, share: Share, deadline: float) -> list[str]:
    from openclaw_kernel.host.guard import Guard, PluginFault
    from openclaw_kernel.host.loader import LoadFailed

    try:
        return await Guard().run_sync(found.id, "settings", lambda: _faults(found, share), deadline)
    except PluginFault as fault:
        return [str(fault.error) if isinstance(fault.error, LoadFailed) else str(fault)]


def _faults(found: Found, share: Share) -> list[str]:
    from openclaw_kernel.host.loader import load_class
    from openclaw_kernel.host.sections import validate_instances, validate_section

    model: Any = getattr(load_class(found), "settings", None)
    if model is None:
        keys = ", ".join(sorted(share.section.keys() - {"enabled"}))
        return [f"{found.section}: the plugin takes no settings; remove {keys}"] if keys else []
    if found.kind == "provider":
        return list(validate_instances(model, share.instances).faults)
    try:
        validate_section(model, found.section, share.section)
    except ValueError as error:
        return [str(error)]
    return []


def _placed(loaded: Loaded, problem: str) -> str:
    """The line with file and line number before its key."""
    key, colon, _ = problem.partition(": ")
    return f"{loaded.place(key)}: {problem}" if colon and " " not in key else f"{loaded.path.name}: {problem}"
