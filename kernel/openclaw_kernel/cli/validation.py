"""Checks the plugins' sections of a config: the settings models are imported, nothing is constructed or started."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclaw_config.issues import Fix, Issue
from openclaw_config.load import Loaded

if TYPE_CHECKING:
    from openclaw_config.composed import Section
    from openclaw_kernel.host.discovery import Discovery, Found
    from openclaw_kernel.host.explain import Fault
    from openclaw_kernel.host.sections import Share

_KeyPath = tuple[str | int, ...]


def plugin_issues(loaded: Loaded) -> list[Issue]:
    """Return what a start would find wrong with a plugin's section; empty where all is well."""
    from openclaw_kernel.host.discovery import discover
    from openclaw_kernel.host.sections import assign

    discovery = discover(loaded.path.parent)
    assignment = assign(loaded.config, discovery)
    issues = [_of_line(loaded, line, Fix.UNKNOWN_PLUGIN) for line in assignment.problems]
    for found in discovery.plugins:
        share = assignment.shares[found.id]
        if share.disabled is not None:
            continue
        if found.program is not None and found.state == "discovered":
            # Its settings are its own to judge, when it is started.
            continue
        if found.state == "discovered":
            issues += asyncio.run(_check(loaded, found, share))
        elif share.section or share.instances:
            line = f"{found.section}: plugin {found.id!r} is {found.state}: {found.reason}"
            issues.append(_of_line(loaded, line, Fix.UNKNOWN_PLUGIN))
    return issues


def composed_sections(document: Mapping[str, Any], home: Path) -> tuple[list[Section], Discovery]:
    """Return what the sections of all installed plugins may hold, but for those that a config, not validated, switches off."""
    from openclaw_kernel.host.composing import import_models, sections_of
    from openclaw_kernel.host.discovery import discover

    discovery = discover(home)
    return sections_of(discovery, import_models(discovery, document)), discovery


async def _check(loaded: Loaded, found: Found, share: Share) -> list[Issue]:
    from openclaw_kernel.host.guard import Guard, PluginFault
    from openclaw_kernel.host.loader import LoadFailed

    deadline = loaded.config.plugins.call_timeout_seconds
    try:
        faults = await Guard().run_sync(found.id, "settings", lambda: list(_faults(found, share)), deadline)
    except PluginFault as fault:
        line = str(fault.error) if isinstance(fault.error, LoadFailed) else str(fault)
        return [Issue(loaded.path.name, 0, "", line, f"mend the plugin, or set plugins.entries.{found.id}.enabled to false")]
    return [_of_fault(loaded, section, fault) for section, fault in faults]


def _faults(found: Found, share: Share) -> Iterator[tuple[_KeyPath, Fault]]:
    from openclaw_kernel.host.explain import Fault
    from openclaw_kernel.host.loader import load_class
    from openclaw_kernel.host.sections import faults_in

    model: Any = getattr(load_class(found), "settings", None)
    section = tuple(found.section.split("."))
    if model is None:
        keys = ", ".join(sorted(share.section.keys() - {"enabled"}))
        if keys:
            yield section, Fault((), "the plugin takes no settings", f"remove {keys}", Fix.UNKNOWN_KEY)
    elif found.kind == "provider":
        for identity, content in share.instances.items():
            yield from (((*section, identity), fault) for fault in faults_in(model, content))
    else:
        yield from ((section, fault) for fault in faults_in(model, share.section))


def _of_fault(loaded: Loaded, section: _KeyPath, fault: Fault) -> Issue:
    return loaded.issue((*section, *fault.where), fault.found, fault.cure, fix=fault.fix)


def _of_line(loaded: Loaded, line: str, fix: Fix) -> Issue:
    """A line that begins with a dotted key and ends with its cure."""
    key, _, text = line.partition(": ")
    found, _, cure = text.rpartition("; ")
    return loaded.issue(key, found or cure, cure if found else "", fix=fix)
