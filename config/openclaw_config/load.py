"""From `openclaw.yaml` to a validated config: references resolved, strict validation, errors a person can act on."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from openclaw_config.agent_scope import scope_faults
from openclaw_config.models import Config
from openclaw_config.redaction import is_secret_place, redact, redact_source, secrets_in
from openclaw_config.secrets import Secret, known_secrets
from openclaw_config.source import (
    FILE_NAME,
    ConfigError,
    Issue,
    KeyPath,
    Resolver,
    dotted,
    line_of,
    parse,
    read_text,
)

_LONGEST_SHOWN: Final = 60
_CURES: Final = {
    "dict_type": "write it as a mapping of keys",
    "model_type": "write it as a mapping of keys",
    "list_type": "write it as a list",
    "string_type": "write it as text, in quotes",
    "is_instance_of": "write it as text, in quotes",
}

__all__ = ["FILE_NAME", "ConfigError", "Issue", "KeyPath", "Loaded", "dotted", "explain", "load"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file that validated: the resolved config, and the source it came from."""

    config: Config
    path: Path
    text: str
    source: Mapping[str, Any]
    """The file's content with references unresolved."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Every secret value, for redaction at the log's sink."""

    @property
    def hash(self) -> str:
        """SHA-256 of the file's bytes, hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def place(self, key: str) -> str:
        """Say where in the file a dotted key stands: `openclaw.yaml:12`."""
        line = line_of(self.source, tuple(key.split(".")))
        return f"{self.path.name}:{line}" if line else self.path.name

    def placed(self, text: str) -> str:
        """Put file and line before a text that begins with a dotted key of this file; leave any other as it is."""
        key, separator, _ = text.partition(": ")
        place = self.place(key) if separator and " " not in key else self.path.name
        return f"{place}: {text}" if ":" in place else text

    def redacted(self) -> dict[str, Any]:
        """The source with literal secrets replaced by the redaction mark; references stay."""
        known = self._known()
        return {str(key): redact(key, value, known) for key, value in self.source.items()}

    def redacted_text(self) -> str | None:
        """The file's text with every secret replaced, None where some cannot be told from the rest."""
        return redact_source(self.text, self.source, self._known(), lambda text: _parsed(self.path.name, text))

    def _known(self) -> frozenset[str]:
        return known_secrets() | frozenset(self.secrets)


def _parsed(name: str, text: str) -> dict[str, Any]:
    try:
        return parse(name, text)
    except ConfigError as error:
        raise ValueError(str(error)) from error


def load(
    path: Path,
    *,
    environment: Mapping[str, str] | None = None,
    resolve_by: type[Resolver] = Resolver,
    read: Callable[[Path], str] = read_text,
) -> Loaded:
    """Read, resolve and validate the file; raise `ConfigError` with every problem found.

    `read` gives the text of every file that takes part, also of one that is not on disk as it is to be loaded.
    """
    name, text = path.name, read(path)
    source = parse(name, text)
    resolver = resolve_by(name, path.parent, os.environ if environment is None else environment, source)
    resolved = resolver.resolve(source, ())
    if resolver.issues:
        raise ConfigError(resolver.issues)
    try:
        config = Config.model_validate(resolved)
    except ValidationError as error:
        raise ConfigError(_issues(name, source, error)) from None
    faults = [Issue(name, line_of(source, where), dotted(where), found, cure) for where, found, cure in scope_faults(config)]
    if faults:
        raise ConfigError(faults)
    return Loaded(config, path, text, source, (*resolver.secrets, *secrets_in(source)))


def _issues(name: str, source: Mapping[str, Any], error: ValidationError) -> list[Issue]:
    by_place: dict[KeyPath, list[Any]] = {}
    for item in error.errors(include_url=False):
        by_place.setdefault(_real_path(source, item), []).append(item)
    # A union tells a fault of each branch: the deeper one knows what the author meant.
    deepest = [where for where in by_place if not any(other != where and other[: len(where)] == where for other in by_place)]
    return [_issue(name, source, where, by_place[where]) for where in deepest]


def _issue(name: str, source: Mapping[str, Any], where: KeyPath, items: Sequence[Any]) -> Issue:
    # The branch that asks for an instance cannot be met from a file.
    possible = [item for item in items if item["type"] != "is_instance_of"] or items
    is_secret = is_secret_place(where)
    told = [explain(item, Config, is_secret=is_secret) for item in possible]
    cures = dict.fromkeys(cure for _, cure in told)
    return Issue(name, line_of(source, where), dotted(where), told[0][0], ", or ".join(cures))


def _real_path(source: Any, item: Any) -> KeyPath:
    # A union adds the name of its branch to the location, a mapping's key a mark: only what is in the file counts, or is missing there.
    loc = [part for part in item["loc"] if part != "[key]"]
    absent = {len(loc) - 1} if item["type"] in {"missing", "extra_forbidden"} else set()
    path: list[str | int] = []
    node = source
    for position, part in enumerate(loc):
        if isinstance(node, dict):
            key = next((name for name in node if name == part or str(name) == str(part)), None)
            if key is None and position not in absent:
                continue
            path.append(part)
            node = node.get(key)
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            path.append(part)
            node = node[part]
    return tuple(path)


def explain(item: Any, model: type[BaseModel], *, is_secret: bool = False) -> tuple[str, str]:
    """Say in words what one pydantic error found and how to mend it; the value itself only where it is no secret."""
    kind, key = item["type"], str(item["loc"][-1]) if item["loc"] else ""
    if kind == "extra_forbidden":
        known = _known_keys(model, item["loc"][:-1])
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
        cure = f"did you mean '{near[0]}'?" if near else (f"remove it; known here: {', '.join(sorted(known))}" if known else "remove it")
        return f"unknown key '{key[:_LONGEST_SHOWN]}'", cure
    if kind == "missing":
        return "is missing", "add it"
    context = item.get("ctx") or {}
    found = f"found {_kind(item.get('input')) if is_secret else _show(item.get('input'))}"
    if kind in _CURES:
        return found, _CURES[kind]
    if "expected" in context:
        return found, f"use {context['expected']}"
    message = item["msg"]
    return found, f"{message[:1].lower()}{message[1:]}"


def _show(value: Any) -> str:
    if isinstance(value, str):
        return repr(value) if len(value) <= _LONGEST_SHOWN else f"a text of {len(value)} characters"
    if isinstance(value, int | float) and len(str(value)) <= _LONGEST_SHOWN:
        return repr(value)
    return _kind(value)


def _kind(value: Any) -> str:
    for kind, name in ((bool, "true or false"), (str, "a text"), (dict, "a mapping"), (list, "a list"), (Secret, "a reference")):
        if isinstance(value, kind):
            return name
    return "a number" if isinstance(value, int | float) else "nothing" if value is None else type(value).__name__


def _known_keys(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    current: Any = model
    for part in loc:
        current = _step(current, part)
        if current is None:
            return []
    if isinstance(current, type) and issubclass(current, BaseModel):
        return [info.alias or name for name, info in current.model_fields.items()]
    return []


def _step(current: Any, part: str | int) -> Any:
    if isinstance(current, type) and issubclass(current, BaseModel):
        for name, info in current.model_fields.items():
            if part in {name, info.alias}:
                return _model_in(info.annotation)
    # The key of a mapping or the index of a list: the model inside is the same for all.
    return current


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
