"""From `openclaw.yaml` to a validated config: references resolved, strict validation, errors a person can act on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from openclaw_config.agent_scope import scope_faults
from openclaw_config.issues import ConfigError, Fix, Issue, KeyPath, dotted
from openclaw_config.layers import Layer, Layered, Origin, read_layers
from openclaw_config.models import Config
from openclaw_config.redaction import is_secret_place, redact, redact_source, secrets_in
from openclaw_config.secrets import Secret, known_secrets
from openclaw_config.source import FILE_NAME, Resolver, parse, read_text

_LONGEST_SHOWN: Final = 60
_CURES: Final = {
    "dict_type": "write it as a mapping of keys",
    "model_type": "write it as a mapping of keys",
    "list_type": "write it as a list",
    "string_type": "write it as text, in quotes",
    "is_instance_of": "write it as text, in quotes",
}
_OWN_WORDS: Final = frozenset({"value_error", "assertion_error"})
_SHORTEST_SECRET: Final = 4
_HOLDERS: Final = frozenset({"dict_type", "model_type", "list_type"})
_FIXES: Final = {"extra_forbidden": Fix.UNKNOWN_KEY, "missing": Fix.MISSING_KEY}

__all__ = ["FILE_NAME", "ConfigError", "Issue", "KeyPath", "Loaded", "dotted", "explain", "load", "load_text"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A config that validated: the resolved values, and all that they were made of."""

    config: Config
    layers: Layered
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Every secret value, for redaction at the log's sink."""

    @property
    def path(self) -> Path:
        """`openclaw.yaml`."""
        return self.layers.path

    @property
    def text(self) -> str:
        """The text of `openclaw.yaml`, without what it includes."""
        return self.layers.text

    @property
    def source(self) -> Mapping[str, Any]:
        """The content of `openclaw.yaml` alone, references unresolved, with the YAML library's positions: what can be edited."""
        return self.layers.source

    @property
    def document(self) -> Mapping[str, Any]:
        """All layers merged, references unresolved, defaults left out: what counts."""
        return self.layers.document

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that took part, `openclaw.yaml` first: what a watcher has to follow."""
        return self.layers.files

    @property
    def origins(self) -> Mapping[KeyPath, tuple[Origin, ...]]:
        """For every key that is set: which layers set it, the winner first."""
        return self.layers.origins

    @property
    def profile(self) -> str | None:
        """The profile's name, None without one."""
        return self.layers.profile

    @property
    def hash(self) -> str:
        """SHA-256 of the file's bytes, hexadecimal; with includes or a profile, of all of these files."""
        return self.layers.hash

    def place(self, key: str) -> str:
        """Say where a dotted key stands: `openclaw.yaml:12:5`, or the file of the layer that sets it."""
        origin = self.layers.origin(self.layers.path_of(key))
        return origin.place if origin is not None else self.path.name

    def issue(self, key: str | KeyPath, found: str, cure: str, *, fix: Fix | None = Fix.BAD_VALUE) -> Issue:
        """Say what is wrong at a key, given as a path or with dots, with its place."""
        where = self.layers.path_of(key) if isinstance(key, str) else key
        return _placed_issue(self.layers, where, found, cure, fix)

    def placed(self, text: str) -> str:
        """Put the place before a text that begins with a dotted key of this config; leave any other as it is."""
        key, separator, _ = text.partition(": ")
        place = self.place(key) if separator and " " not in key else self.path.name
        return text if place == self.path.name else f"{place}: {text}"

    def redacted(self) -> dict[str, Any]:
        """What counts, all layers merged, with secrets replaced by the redaction mark; references stay."""
        known = self._known()
        return {str(key): redact(key, value, known) for key, value in self.document.items()}

    def redacted_source(self) -> dict[str, Any]:
        """The content of `openclaw.yaml` alone, with secrets replaced by the redaction mark; references stay."""
        known = self._known()
        return {str(key): redact(key, value, known) for key, value in self.source.items()}

    def redacted_text(self) -> str | None:
        """The text of `openclaw.yaml` with every secret replaced, None where some cannot be told from the rest."""
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
    """Read the file with its layers, resolve and validate; raise `ConfigError` with every problem found.

    `environment` (default: this process's) gives references, the profile (`OPENCLAW_PROFILE`) and overrides (`OPENCLAW_CONFIG__...`).
    `read` gives the text of every file that takes part, also of one that is not on disk as it is to be loaded.
    """
    environment = os.environ if environment is None else environment
    layers = read_layers(path, environment, read)
    resolver = resolve_by(path.name, path.parent, environment, layers.document)
    resolver.stands = layers.stands
    resolved = resolver.resolve(layers.document, ())
    if resolver.issues:
        raise ConfigError(resolver.issues, files=layers.files)
    try:
        config = Config.model_validate(resolved)
    except ValidationError as error:
        raise ConfigError(_issues(layers, error), files=layers.files) from None
    faults = [_placed_issue(layers, where, found, cure, Fix.UNKNOWN_NAME) for where, found, cure in scope_faults(config)]
    if faults:
        raise ConfigError(faults, files=layers.files)
    return Loaded(config, layers, (*resolver.secrets, *written_out(layers)))


def load_text(text: str, path: Path, *, environment: Mapping[str, str] | None = None, resolve_by: type[Resolver] = Resolver) -> Loaded:
    """Do as `load` does with a text that is not on disk, as if it stood in the file at `path`; all other layers are those on disk."""
    return load(path, environment=environment, resolve_by=resolve_by, read=lambda each: text if each == path else read_text(each))


def written_out(layers: Layered) -> list[str]:
    """Every secret that a config writes out, in whatever layer: what lost to another one is as secret as what won."""
    lost = [
        secret
        for where, origins in layers.origins.items()
        for origin in origins[1:]
        for secret in secrets_in({"secret" if is_secret_place(where) else where[-1]: origin.value})
    ]
    return [*secrets_in(layers.document), *secrets_in(layers.source), *lost]


def _placed_issue(layers: Layered, where: KeyPath, found: str, cure: str, fix: Fix | None) -> Issue:
    origin = layers.origin(where)
    if origin is None:
        return Issue(layers.path.name, 0, dotted(where), found, cure, fix=fix, where=where)
    # No edit of a file mends what a variable says.
    mended = Fix.BAD_VARIABLE if fix is not None and origin.layer is Layer.ENVIRONMENT else fix
    return Issue(origin.file, origin.line, dotted(where), found, cure, column=origin.column, fix=mended, where=where)


def _issues(layers: Layered, error: ValidationError) -> list[Issue]:
    by_place: dict[KeyPath, list[Any]] = {}
    for item in error.errors(include_url=False):
        by_place.setdefault(real_path(layers.document, item), []).append(item)
    # A union tells a fault of each branch: the deeper one knows what the author meant.
    deepest = [where for where in by_place if not any(other != where and other[: len(where)] == where for other in by_place)]
    return [_issue(layers, where, by_place[where]) for where in deepest]


def _issue(layers: Layered, where: KeyPath, items: Sequence[Any]) -> Issue:
    # The branch that asks for an instance cannot be met from a file.
    possible = [item for item in items if item["type"] != "is_instance_of"] or items
    # What a variable says may be a secret wherever it is put by mistake.
    origin = layers.origin(where)
    is_variable = origin is not None and origin.layer is Layer.ENVIRONMENT
    is_secret = is_secret_place(where) or is_variable or _names_variable(layers.document, where)
    told = [explain(item, Config, is_secret=is_secret) for item in possible]
    cures = dict.fromkeys(cure for _, cure in told)
    return _placed_issue(layers, where, told[0][0], ", or ".join(cures), _FIXES.get(possible[0]["type"], Fix.BAD_VALUE))


def _names_variable(node: Any, where: KeyPath) -> bool:
    for part in where:
        if isinstance(node, Mapping):
            node = node.get(part)
        else:
            node = node[part] if isinstance(node, list) and isinstance(part, int) and part < len(node) else None
    return isinstance(node, str) and "${" in node


def real_path(source: Any, item: Any) -> KeyPath:
    """Where in a document a pydantic error stands: the names of a union's branches, which nobody wrote, are left out."""
    # A mapping's key adds a mark besides: only what is in the file counts, or is missing there.
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
        import difflib

        known = _known_keys(model, item["loc"][:-1])
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
        cure = f"did you mean '{near[0]}'?" if near else (f"remove it; known here: {', '.join(sorted(known))}" if known else "remove it")
        return f"unknown key '{key[:_LONGEST_SHOWN]}'", cure
    if kind == "missing":
        return "is missing", "add it"
    context = item.get("ctx") or {}
    # One value where a section belongs may be the section's secret, a level too high.
    found = f"found {_kind(item.get('input')) if is_secret or kind in _HOLDERS else _show(item.get('input'))}"
    if kind in _CURES:
        return found, _CURES[kind]
    if "expected" in context:
        return found, f"use {context['expected']}"
    message = item["msg"]
    if is_secret and kind in _OWN_WORDS and len(value := str(item.get("input"))) >= _SHORTEST_SECRET and value in message:
        # A validator of ours shows what it refuses; the library's words do not.
        message = "it is refused"
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
