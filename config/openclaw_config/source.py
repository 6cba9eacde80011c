"""Reading `openclaw.yaml` as it is written: YAML with positions, references, redaction. No validation, so no pydantic.

The command line reads its few keys through this module alone, for `load` costs several times as much.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

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


def read_text(path: Path) -> str:
    """The file's text; raise `ConfigError` where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError([Issue(str(path), 0, "", "the file is not there", "start the gateway once to have it written")]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Issue(str(path), 0, "", f"cannot be read ({error})", "make it a readable UTF-8 file")]) from None
    if len(text) > _SIZE_LIMIT:
        raise ConfigError([Issue(path.name, 0, "", f"is {len(text)} characters long", f"keep it under {_SIZE_LIMIT}")])
    return text


def parse(name: str, text: str) -> dict[str, Any]:
    """The document with the positions of its keys; an empty file is an empty mapping. Raise `ConfigError`."""
    try:
        document = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        problem = (error.problem or "is not YAML").strip()
        raise ConfigError([Issue(name, line, "", f"not valid YAML: {problem}", "mend the indentation or quoting there")]) from None
    except YAMLError as error:
        raise ConfigError([Issue(name, 0, "", f"not valid YAML: {error}", "mend the file")]) from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError([Issue(name, 1, "", f"holds a {type(document).__name__}", "write it as a mapping of keys such as gateway:")])
    return document


class Resolver:
    """Replaces references by what they name; `issues` are those that name nothing, `secrets` the values found."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str], source: Mapping[str, Any]) -> None:
        self._name = name
        self._folder = folder
        self._environment = environment
        self._source = source
        self.issues: list[Issue] = []
        self.secrets: list[str] = []

    def resolve(self, value: Any, where: KeyPath) -> Any:
        """Return the value, at this place of the file, with its references replaced."""
        if isinstance(value, dict):
            return {str(key): self.resolve(item, (*where, str(key))) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item, (*where, index)) for index, item in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            return self._text(str(value), where)
        return plain(value)

    def _text(self, text: str, where: KeyPath) -> Any:
        reference = _REFERENCE.match(text)
        if reference is None:
            return _VARIABLE.sub(lambda match: self._variable(match, where), text)
        kind, target = reference.groups()
        secret = self._environment.get(target) if kind == "env" else self._file(target, where)
        if not secret:
            if kind == "env":
                self._problem(where, f"the environment variable {target} is not set", f"set {target}, or write the value")
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
            self._problem(where, f"the file {path} cannot be read ({reason.lower()})", "put the secret into that file, alone")
            return None
        if not content:
            self._problem(where, f"the file {path} is empty", "put the secret into that file, alone")
        return content

    def _problem(self, where: KeyPath, found: str, cure: str) -> None:
        self.issues.append(Issue(self._name, line_of(self._source, where), dotted(where), found, cure))


def plain(value: Any) -> Any:
    """A scalar without the formatting that the YAML library keeps with it."""
    # ruamel's scalar types carry formatting; strict validation wants the plain ones.
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def dotted(where: Sequence[str | int]) -> str:
    """Write a key path with dots."""
    return ".".join(str(part) for part in where)


def line_of(source: Any, where: Sequence[str | int]) -> int:
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


def names_secret(key: Any) -> bool:
    """Tell whether a key's value is a secret, by its name."""
    return _SECRET_KEY.search(str(key)) is not None


def redact(key: Any, value: Any) -> Any:
    """The value with literal secrets replaced by the redaction mark; references stay."""
    if isinstance(value, dict):
        return {str(name): redact(name, item) for name, item in value.items()}
    if isinstance(value, list):
        return [redact(key, item) for item in value]
    if isinstance(value, str) and _SECRET_KEY.search(str(key)) and not _REFERENCE.match(value):
        return REDACTED
    return plain(value)


def literal_secrets(value: Any, key: Any = "") -> list[str]:
    """Every secret that is written out in the document."""
    if isinstance(value, dict):
        return [found for name, item in value.items() for found in literal_secrets(item, name)]
    if isinstance(value, list):
        return [found for item in value for found in literal_secrets(item, key)]
    if isinstance(value, str) and _SECRET_KEY.search(str(key)) and not _REFERENCE.match(value) and value:
        return [str(value)]
    return []


def redact_text(text: str, secrets: Iterable[str]) -> str:
    """The text with every one of the secrets replaced by the redaction mark."""
    for secret in sorted(set(secrets), key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    return text
