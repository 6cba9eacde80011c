"""The order in which plugins start: `after` of their manifests, then plugin, provider, channel. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from openclaw_kernel.host.discovery import Found, PluginKind

RANK: Final[Mapping[PluginKind, int]] = {"plugin": 0, "provider": 1, "channel": 2}


def start_order(plugins: Sequence[Found]) -> tuple[list[Found], dict[str, str]]:
    """Return the plugins in their order, and, by id, why some have none: their `after` go in a circle.

    One that only waits for such a plugin is ordered without it.
    """
    circles = _circles(plugins)
    plugins = [found for found in plugins if found.id not in circles]
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
    return ordered, circles


def _circles(plugins: Sequence[Found]) -> dict[str, str]:
    present = {found.id for found in plugins}
    after = {found.id: waits_for(found, present) for found in plugins}
    reached = {plugin_id: _reached_from(plugin_id, after) for plugin_id in after}
    reasons: dict[str, str] = {}
    for plugin_id in after:
        circle = sorted(other for other in reached[plugin_id] if plugin_id in reached[other])
        if len(circle) > 1:
            reasons[plugin_id] = f"its 'after' goes in a circle among {', '.join(circle)}; remove one of them"
        elif circle:
            reasons[plugin_id] = "its 'after' names itself; remove it"
    return reasons


def _reached_from(plugin_id: str, after: Mapping[str, Sequence[str]]) -> set[str]:
    reached: set[str] = set()
    ahead = list(after[plugin_id])
    while ahead:
        other = ahead.pop()
        if other not in reached:
            reached.add(other)
            ahead.extend(after[other])
    return reached


def waits_for(found: Found, present: Iterable[str]) -> list[str]:
    """Return the plugins named in `after` that are present; an absent one orders nothing."""
    after = found.manifest.after if found.manifest is not None else []
    return [other for other in after if other in present]


def _place(found: Found, position: Mapping[str, int]) -> tuple[int, int, str]:
    return RANK[found.kind], position[found.id], found.id
