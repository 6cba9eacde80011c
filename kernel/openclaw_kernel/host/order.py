"""The order in which plugins start: `after` of their manifests, then plugin, provider, channel. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from openclaw_kernel.host.discovery import Found, PluginKind

RANK: Final[Mapping[PluginKind, int]] = {"plugin": 0, "provider": 1, "channel": 2}


def start_order(plugins: Sequence[Found]) -> tuple[list[Found], list[Found]]:
    """Return the plugins in their order, and those that cannot be ordered because their `after` go in a circle."""
    by_id = {found.id: found for found in plugins}
    position = {found.id: number for number, found in enumerate(plugins)}
    open_ends = {found.id: set(waits_for(found, by_id)) for found in plugins}
    ready = [_place(found, position) for found in plugins if not open_ends[found.id]]
    heapq.heapify(ready)
    ordered: list[Found] = []
    while ready:
        found = by_id[heapq.heappop(ready)[2]]
        ordered.append(found)
        for other, waiting in open_ends.items():
            if found.id in waiting:
                waiting.discard(found.id)
                if not waiting:
                    heapq.heappush(ready, _place(by_id[other], position))
    placed = {found.id for found in ordered}
    return ordered, [found for found in plugins if found.id not in placed]


def waits_for(found: Found, present: Iterable[str]) -> list[str]:
    """Return the plugins named in `after` that are present; an absent one orders nothing."""
    after = found.manifest.after if found.manifest is not None else []
    return [other for other in after if other in present]


def _place(found: Found, position: Mapping[str, int]) -> tuple[int, int, str]:
    return RANK[found.kind], position[found.id], found.id
