"""From `openclaw.yaml` to a validated config: references resolved, strict validation, errors a person can act on."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from openclaw_config.models import Config
from openclaw_config.source import (
    FILE_NAME,
    ConfigError,
    Issue,
    KeyPath,
    Resolver,
    dotted,
    line_of,
    literal_secrets,
    names_secret,
    parse,
    read_text,
    redact,
    redact_text,
)

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

    def redacted(self) -> dict[str, Any]:
        """The source with literal secrets replaced by the redaction mark; references stay."""
        return {str(key): redact(key, value) for key, value in self.source.items()}

    def redacted_text(self) -> str:
        """The file's text with every secret value replaced."""
        return redact_text(self.text, self.secrets)


def load(path: Path, *, environment: Mapping[str, str] | None = None) -> Loaded:
    """Read, resolve and validate the file; raise `ConfigError` with every problem found."""
    name, text = path.name, read_text(path)
    source = parse(name, text)
    resolver = Resolver(name, path.parent, os.environ if environment is None else environment, source)
    resolved = resolver.resolve(source, ())
    if resolver.issues:
        raise ConfigError(resolver.issues)
    try:
        config = Config.model_validate(resolved)
    except ValidationError as error:
        raise ConfigError([_issue(name, source, item, Config) for item in error.errors()]) from None
    return Loaded(config, path, text, source, (*resolver.secrets, *literal_secrets(source)))


def _issue(name: str, source: Mapping[str, Any], item: Any, model: type[BaseModel]) -> Issue:
    where = _real_path(source, item["loc"])
    found, cure = explain(item, model)
    return Issue(name, line_of(source, where), dotted(where), found, cure)


def _real_path(source: Any, loc: Sequence[str | int]) -> KeyPath:
    # A union adds the name of its branch to the location; only parts that are in the file count, and the last one.
    path: list[str | int] = []
    node = source
    for position, part in enumerate(loc):
        is_last = position == len(loc) - 1
        if isinstance(node, dict) and (part in node or is_last):
            path.append(part)
            node = node.get(part)
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            path.append(part)
            node = node[part]
        elif isinstance(node, dict) and not isinstance(part, int) and not is_last:
            continue
    return tuple(path)


def explain(item: Any, model: type[BaseModel]) -> tuple[str, str]:
    """Say in words what one pydantic error found and how to mend it."""
    kind, key = item["type"], str(item["loc"][-1]) if item["loc"] else ""
    if kind == "extra_forbidden":
        known = _known_keys(model, item["loc"][:-1])
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
        cure = f"did you mean '{near[0]}'?" if near else (f"remove it; known here: {', '.join(sorted(known))}" if known else "remove it")
        return f"unknown key '{key}'", cure
    if kind == "missing":
        return "is missing", "add it"
    context = item.get("ctx") or {}
    # A value in a secret's place may be the secret, mistyped.
    shown = "a value that does not fit" if names_secret(key) else _show(item.get("input"))
    if "expected" in context:
        return f"found {shown}", f"use {context['expected']}"
    message = item["msg"]
    return f"found {shown}", f"{message[:1].lower()}{message[1:]}"


def _show(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return repr(value) if not isinstance(value, str) or len(value) < 60 else f"a text of {len(value)} characters"  # noqa: PLR2004


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
