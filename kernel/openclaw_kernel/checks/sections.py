"""What is wrong with the plugins' own sections of the configuration: their settings models are imported, nothing is constructed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from openclaw_config.issues import Fix
from openclaw_config.load import Loaded
from openclaw_kernel.api.check import ConfigFault
from openclaw_kernel.checks.salvage import NEAR, located
from openclaw_kernel.host.discovery import Discovery, Found
from openclaw_kernel.host.guard import Guard, PluginFault
from openclaw_kernel.host.loader import load_class
from openclaw_kernel.host.sections import Share, assign, validate_instances, validate_section

SECTION: Final = "config.section"
"""The check that tells what has none of its own."""
_NOBODYS: Final = re.compile(r"no (\w+ )?plugin ")


async def section_faults(guard: Guard, loaded: Loaded, discovery: Discovery) -> list[ConfigFault]:
    """Each fault of each section whose plugin would run, and each section that is nobody's."""
    assignment = assign(loaded.config, discovery)
    lines = list(assignment.problems)
    for found in discovery.plugins:
        share = assignment.shares[found.id]
        if found.state != "discovered" or share.disabled is not None or found.program is not None:
            continue
        try:
            look = partial(_lines, found, share)
            lines += await guard.run_sync(found.id, "settings", look, loaded.config.plugins.call_timeout_seconds)
        except PluginFault:
            # Its import is told as that of a plugin that does not run.
            continue
    return [_fault(loaded, line) for line in lines]


def _lines(found: Found, share: Share) -> list[str]:
    return list(_faults(found, share))


def _faults(found: Found, share: Share) -> Iterator[str]:
    model: Any = getattr(load_class(found), "settings", None)
    if model is None:
        for key in sorted(share.section.keys() - {"enabled"}):
            yield f"{found.section}.{key}: unknown key {key!r}; remove it: the plugin takes no settings"
    elif found.kind == "provider":
        yield from validate_instances(model, share.instances).faults
    else:
        try:
            validate_section(model, found.section, share.section)
        except ValueError as error:
            # Each line begins with the section's path.
            first, *others = str(error).split(f"; {found.section}")
            yield first
            yield from (f"{found.section}{line}" for line in others)


def _fault(loaded: Loaded, line: str) -> ConfigFault:
    key, _, rest = line.partition(": ")
    found, _, cure = rest.partition("; ")
    where = located(loaded.document, key)
    is_unknown = found.startswith("unknown key")
    near = NEAR.search(cure) if is_unknown else None
    check = Fix.UNKNOWN_KEY.value if is_unknown else Fix.UNKNOWN_PLUGIN.value if _NOBODYS.match(found) else SECTION
    file, _, _ = loaded.layers.stands(where)
    return ConfigFault(
        check=check,
        key=where,
        place=loaded.place(key),
        found=found or line,
        cure=cure or "see the plugin's settings in the documentation",
        near=near[1] if near else None,
        here=file == loaded.path.name,
        is_section=True,
    )
