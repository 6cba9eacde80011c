"""Reading `openclaw.yaml`: YAML with positions, references resolved, strict validation, errors a person can act on."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from openclaw_config.models import Config
from openclaw_config.secrets import REDACTED, Secret

FILE_NAME: Final = "openclaw.yaml"
_REFERENCE: Final = re.compile(r"^\$\{(env|file):([^{}]+)\}$")
_VARIABLE: Final = re.compile(r"\$?\$\{([A-Z_][A-Z0-9_]*)\}")
_SECRET_KEY: Final = re.compile(r"(token|password|secret|api_?key|credential)s?$", re.IGNORECASE)
_SIZE_LIMIT: Final = 2_097_152

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing wrong with the file. `line` counts from 1, 0 where there is none."""

    file: str
    line: int
    key: str
    found: str
    cure: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key}: {self.found}; {self.cure}" if self.key else f"{place}: {self.found}; {self.cure}"


class ConfigError(Exception):
    """The file cannot be used; `issues` says why, one line each."""

    def __init__(self, issues: Sequence[Issue]) -> None:
        super().__init__("\n".join(str(issue) for issue in issues))
        self.issues = tuple(issues)


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
        line = _line_of(self.source, tuple(key.split(".")))
        return f"{self.path.name}:{line}" if line else self.path.name

    def redacted(self) -> dict[str, Any]:
        """The source with literal secrets replaced by the redaction mark; references stay."""
        return {str(key): _redact(key, value) for key, value in self.source.items()}

    def redacted_text(self) -> str:
        """The file's text with every secret value replaced."""
        text = self.text
        for secret in sorted(set(self.secrets) | set(_literal_secrets(self.source)), key=len, reverse=True):
            text = text.replace(secret, REDACTED)
        return text


def load(path: Path, *, environment: Mapping[str, str] | None = None) -> Loaded:
    """Read, resolve and validate the file; raise `ConfigError` with every problem found."""
    name = path.name
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            [Issue(str(path), 0, "", "the file is not there", "start the gateway once to have it written")]
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            [Issue(str(path), 0, "", f"cannot be read ({error})", "make it a readable UTF-8 file")]
        ) from None
    if len(text) > _SIZE_LIMIT:
        raise ConfigError([Issue(name, 0, "", f"is {len(text)} characters long", f"keep it under {_SIZE_LIMIT}")])
    source = _parse(name, text)
    resolver = _Resolver(name, path.parent, os.environ if environment is None else environment, source)
    resolved = resolver.resolve(source, ())
    if resolver.issues:
        raise ConfigError(resolver.issues)
    try:
        config = Config.model_validate(resolved)
    except ValidationError as error:
        raise ConfigError([_issue(name, source, item, Config) for item in error.errors()]) from None
    literal = [value for value in _literal_secrets(source) if not _REFERENCE.match(value)]
    return Loaded(config, path, text, source, tuple([*resolver.secrets, *literal]))


def _parse(name: str, text: str) -> dict[str, Any]:
    try:
        document = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        problem = (error.problem or "is not YAML").strip()
        raise ConfigError(
            [Issue(name, line, "", f"not valid YAML: {problem}", "mend the indentation or quoting there")]
        ) from None
    except YAMLError as error:
        raise ConfigError([Issue(name, 0, "", f"not valid YAML: {error}", "mend the file")]) from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(
            [Issue(name, 1, "", f"holds a {type(document).__name__}", "write it as a mapping of keys such as gateway:")]
        )
    return document


class _Resolver:
    def __init__(self, name: str, folder: Path, environment: Mapping[str, str], source: Mapping[str, Any]) -> None:
        self._name = name
        self._folder = folder
        self._environment = environment
        self._source = source
        self.issues: list[Issue] = []
        self.secrets: list[str] = []

    def resolve(self, value: Any, where: KeyPath) -> Any:
        if isinstance(value, dict):
            return {str(key): self.resolve(item, (*where, str(key))) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item, (*where, index)) for index, item in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            return self._text(str(value), where)
        return _plain(value)

    def _text(self, text: str, where: KeyPath) -> Any:
        reference = _REFERENCE.match(text)
        if reference is None:
            return _VARIABLE.sub(lambda match: self._variable(match, where), text)
        kind, target = reference.groups()
        secret = self._environment.get(target) if kind == "env" else self._file(target, where)
        if not secret:
            if kind == "env":
                self._problem(
                    where, f"the environment variable {target} is not set", f"set {target}, or write the value"
                )
            return None
        self.secrets.append(secret)
        return Secret(secret)

    def _variable(self, match: re.Match[str], where: KeyPath) -> str:
        if match.group(0).startswith("$$"):
            return match.group(0)[1:]
        name = match.group(1)
        value = self._environment.get(name)
        if value is None:
            self._problem(
                where,
                f"the environment variable {name} is not set",
                f"set {name}, or write $${{{name}}} for the text itself",
            )
            return ""
        return value

    def _file(self, target: str, where: KeyPath) -> str | None:
        path = self._folder / Path(target).expanduser()
        try:
            content = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "not UTF-8 text"
            self._problem(
                where, f"the file {path} cannot be read ({reason.lower()})", "put the secret into that file, alone"
            )
            return None
        if not content:
            self._problem(where, f"the file {path} is empty", "put the secret into that file, alone")
        return content

    def _problem(self, where: KeyPath, found: str, cure: str) -> None:
        self.issues.append(Issue(self._name, _line_of(self._source, where), dotted(where), found, cure))


def _plain(value: Any) -> Any:
    # ruamel's scalar types carry formatting; strict validation wants the plain ones.
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def dotted(where: Sequence[str | int]) -> str:
    """Write a key path with dots."""
    return ".".join(str(part) for part in where)


def _issue(name: str, source: Mapping[str, Any], item: Any, model: type[BaseModel]) -> Issue:
    where = _real_path(source, item["loc"])
    found, cure = explain(item, model)
    return Issue(name, _line_of(source, where), dotted(where), found, cure)


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
        cure = (
            f"did you mean '{near[0]}'?"
            if near
            else (f"remove it; known here: {', '.join(sorted(known))}" if known else "remove it")
        )
        return f"unknown key '{key}'", cure
    if kind == "missing":
        return "is missing", "add it"
    context = item.get("ctx") or {}
    shown = _show(item.get("input"))
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


def _line_of(source: Any, where: Sequence[str | int]) -> int:
    """The line of the deepest part of a path that is in the file, from 1; 0 for none."""
    node, line = source, 0
    for part in where:
        positions = getattr(node, "lc", None)
        data = getattr(positions, "data", None)
        if not data:
            break
        key: Any = int(part) if isinstance(node, list) and str(part).isdigit() else part
        if key not in data:
            break
        line = data[key][0] + 1
        node = node[key]
    return line


def _redact(key: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _redact(name, item) for name, item in value.items()}
    if isinstance(value, list):
        return [_redact(key, item) for item in value]
    if isinstance(value, str) and _SECRET_KEY.search(str(key)) and not _REFERENCE.match(value):
        return REDACTED
    return _plain(value)


def _literal_secrets(value: Any, key: Any = "") -> list[str]:
    if isinstance(value, dict):
        return [found for name, item in value.items() for found in _literal_secrets(item, name)]
    if isinstance(value, list):
        return [found for item in value for found in _literal_secrets(item, key)]
    if isinstance(value, str) and _SECRET_KEY.search(str(key)) and not _REFERENCE.match(value) and value:
        return [str(value)]
    return []
