"""What of a configuration our schema takes: the kernel's models and each plugin's own section, as a start would read them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from openclaw_config.source import FILE_NAME, KeyPath
from openclaw_kernel.api.check import ConfigFault
from openclaw_kernel.checks.salvage import salvage
from openclaw_kernel.checks.scene import SurveyResolver
from openclaw_kernel.checks.sections import section_faults
from openclaw_kernel.host.discovery import Discovery
from openclaw_kernel.host.guard import Guard

_ROUNDS: Final = 30

Refused = tuple[KeyPath, str]


async def fitted(tree: dict[str, Any], guard: Guard, discovery: Discovery) -> list[Refused]:
    """Take out of a tree what is not valid, in place; return each place with the reason."""
    refused: list[Refused] = []
    for _ in range(_ROUNDS):
        faults = await faults_of(json.dumps(tree), guard, discovery)
        if not faults:
            return refused
        for fault in faults:
            key = _remove(tree, fault.key)
            if key is not None:
                refused.append((key, f"{fault.found}; {fault.cure}" if fault.key == key else f"{fault.found} in it; {fault.cure}"))
    tree.clear()
    return [*refused, ((), "the rest is not valid together")]


async def faults_of(text: str, guard: Guard, discovery: Discovery) -> Sequence[ConfigFault]:
    """Return what is wrong with a file of this text, where every reference leads somewhere."""
    with tempfile.TemporaryDirectory(prefix="openclaw-kernel-") as folder:
        path = Path(folder) / FILE_NAME
        path.write_text(text, encoding="utf-8")
        salvaged = salvage(path, os.environ, SurveyResolver)
        return [*salvaged.faults, *await section_faults(guard, salvaged.loaded, discovery)]


def _remove(tree: dict[str, Any], key: KeyPath) -> KeyPath | None:
    """Take out the deepest part of a place that is there; return which that was."""
    holders: list[tuple[Any, str | int]] = []
    node: Any = tree
    for part in key:
        if isinstance(node, dict) and str(part) in node:
            holders.append((node, str(part)))
            node = node[str(part)]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            holders.append((node, part))
            node = node[part]
        else:
            break
    if not holders:
        return None
    holder, last = holders[-1]
    del holder[last]
    return key[: len(holders)]


def at(tree: Any, where: Sequence[str]) -> Any:
    """What stands at a place; None where nothing does."""
    for part in where:
        if not isinstance(tree, Mapping) or part not in tree:
            return None
        tree = tree[part]
    return tree


def put(tree: dict[str, Any], where: Sequence[str], value: Any) -> None:
    """Put a value at a place, with the mappings on the way to it."""
    for part in where[:-1]:
        found = tree.get(part)
        if not isinstance(found, dict):
            found = tree[part] = {}
        tree = found
    if not (value == {} and isinstance(tree.get(where[-1]), dict)):
        tree[where[-1]] = value
