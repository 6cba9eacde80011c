"""What can still be read of an `openclaw.yaml` that cannot be used: its valid part, and each fault with its place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from openclaw_config.issues import Fix
from openclaw_config.layers import single
from openclaw_config.load import Loaded, load
from openclaw_config.models import Config
from openclaw_config.source import ConfigError, Issue, KeyPath, Resolver, parse, read_text
from openclaw_kernel.api.check import ConfigFault

_ROUNDS: Final = 20
NEAR: Final = re.compile(r"did you mean '([^']+)'\?")


@dataclass(frozen=True, slots=True)
class Salvaged:
    """The valid part of a file, and its faults. `text` is None where the file is not there or cannot be read."""

    loaded: Loaded
    text: str | None
    faults: tuple[ConfigFault, ...]


def salvage(path: Path, environment: Mapping[str, str], resolve_by: type[Resolver]) -> Salvaged:
    """Load the file, or what there is of it; it never raises for what stands in the file."""
    try:
        loaded = load(path, environment=environment, resolve_by=resolve_by)
    except ConfigError as error:
        return _of_parts(path, environment, resolve_by, error)
    return Salvaged(loaded, loaded.text, ())


def _of_parts(path: Path, environment: Mapping[str, str], resolve_by: type[Resolver], error: ConfigError) -> Salvaged:
    try:
        text = read_text(path)
    except ConfigError:
        return Salvaged(Loaded(Config(), single(path, "", {})), None, tuple(_fault(issue, {}, path.name) for issue in error.issues))
    try:
        source = parse(path.name, text)
    except ConfigError as broken:
        return Salvaged(Loaded(Config(), single(path, text, {})), text, tuple(_fault(issue, {}, path.name) for issue in broken.issues))
    faults = tuple(_fault(issue, source, path.name) for issue in error.issues)
    resolver = resolve_by(path.name, path.parent, environment, source)
    loaded = Loaded(_valid_part(resolver.resolve(source, ())), single(path, text, source), tuple(resolver.secrets))
    return Salvaged(loaded, text, faults)


def _valid_part(document: Any) -> Config:
    """The configuration without what it refuses; the defaults where that does not come to an end."""
    for _ in range(_ROUNDS):
        try:
            return Config.model_validate(document)
        except ValidationError as error:
            for item in error.errors(include_url=False):
                _drop(document, item["loc"])
    return Config()


def _drop(document: Any, where: tuple[str | int, ...]) -> None:
    """Take away the deepest part of the place that is in the document: a union adds parts that are in no file."""
    holder: Any = None
    last: Any = None
    node = document
    for part in where:
        if (isinstance(node, dict) and part in node) or (isinstance(node, list) and isinstance(part, int) and part < len(node)):
            holder, last = node, part
            node = holder[last]
    if holder is not None:
        holder.pop(last)


def _fault(issue: Issue, source: Mapping[str, Any], name: str) -> ConfigFault:
    check = issue.fix or Fix.BAD_VALUE
    near = NEAR.search(issue.cure) if check is Fix.UNKNOWN_KEY else None
    return ConfigFault(
        check=check.value,
        key=issue.where if issue.where is not None else located(source, issue.key),
        place=issue.place,
        found=issue.found,
        cure=issue.cure,
        near=near[1] if near else None,
        here=issue.file == name,
    )


def located(source: Any, key: str) -> KeyPath:
    """The path of a dotted key, whose parts may have dots themselves; what is not in the file is cut at its dots."""
    if not key:
        return ()
    if isinstance(source, list):
        first, _, rest = key.partition(".")
        if first.isdigit() and int(first) < len(source):
            return (int(first), *located(source[int(first)], rest))
    elif isinstance(source, Mapping):
        for name in sorted(map(str, source), key=len, reverse=True):
            if key == name or key.startswith(f"{name}."):
                item = next(value for found, value in source.items() if str(found) == name)
                return (name, *located(item, key[len(name) + 1 :]))
    return tuple(key.split("."))
