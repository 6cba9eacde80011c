"""The installed plugins as a plan sees them: which sections are whose, by which rules, and who runs before and after. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from openclaw_config.models import Config
from openclaw_kernel.host.discovery import Discovery, Found
from openclaw_kernel.host.sections import Share, assign
from openclaw_kernel.reload.diff import Path
from openclaw_kernel.reload.matrix import Rules
from openclaw_kernel.reload.plan import PluginPart


def _replaceable(_plugin_id: str) -> str | None:
    return None


def _nobody(_found: Found) -> int:
    return 0


def parts_of(
    discovery: Discovery,
    running: Config,
    candidate: Config,
    *,
    fixed: Callable[[str], str | None] = _replaceable,
    connections: Callable[[Found], int] = _nobody,
) -> list[PluginPart]:
    """Return a part for each installed plugin."""
    before, after = assign(running, discovery).shares, assign(candidate, discovery).shares
    return [
        PluginPart(
            id=found.id,
            rules=Rules.of_plugin(
                found.id,
                {} if found.manifest is None else found.manifest.reload,
                section=found.section,
                isolated=before[found.id].isolated,
            ),
            sections=_sections(found, before, after),
            ran=before[found.id].disabled is None,
            runs=after[found.id].disabled is None,
            fixed=fixed(found.id),
            connections=connections(found),
        )
        for found in discovery.plugins
    ]


def _sections(found: Found, before: Mapping[str, Share], after: Mapping[str, Share]) -> list[Path]:
    own: list[Path] = [("plugins", "entries", found.id)]
    if found.kind == "channel":
        own.append(("channels", found.id))
    instances = {*before[found.id].instances, *after[found.id].instances}
    return [*own, *(("models", "providers", instance) for instance in sorted(instances))]
