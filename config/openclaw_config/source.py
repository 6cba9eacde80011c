"""Reading `openclaw.yaml` as it is written: YAML with positions, and references. No validation, so no pydantic.

The command line reads its few keys through this module alone, for `load` costs several times as much.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from openclaw_config.redaction import KINDS, REFERENCE, is_secret_place, plain
from openclaw_config.references import Places, Unresolved, read_regular
from openclaw_config.secrets import Secret

FILE_NAME: Final = "openclaw.yaml"
_VARIABLE: Final = re.compile(r"\$?\$\{([A-Z_][A-Z0-9_]*)\}")
_INSIDE: Final = re.compile(rf"(?<!\$)\$\{{({'|'.join(KINDS)}):")
_OF_NO_KIND: Final = re.compile(r"^\$\{([a-z]+):[^{}]*\}$")
_SIZE_LIMIT: Final = 2_097_152
_DEPTH_LIMIT: Final = 100
_NODE_LIMIT: Final = 100_000

_KINDS: Final = {"TimeStamp": "a date", "date": "a date", "datetime": "a date", "bytes": "binary data"}

_SHOWN_KINDS: Final = "${env:NAME}, ${file:PATH}, ${keyring:SERVICE/NAME}, ${exec:/PATH ARGUMENTS}"

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
        text = read_regular(path, _SIZE_LIMIT)
    except FileNotFoundError:
        raise ConfigError([Issue(str(path), 0, "", "the file is not there", "start the gateway once to have it written")]) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConfigError([Issue(str(path), 0, "", f"cannot be read ({reason})", "make it a readable UTF-8 file")]) from None
    if text is None:
        raise ConfigError([Issue(path.name, 0, "", f"is longer than {_SIZE_LIMIT} bytes", "make it shorter")])
    return text


def parse(name: str, text: str) -> dict[str, Any]:
    """The document with the positions of its keys; an empty file is an empty mapping. Raise `ConfigError`."""
    try:
        document = YAML(typ="rt").load(text)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        # The library's words show both values, and they may be secrets.
        key = re.match(r'found duplicate key "?([^"]*)"? with value', error.problem or "")
        found = f"the key {key[1][:60]!r} is there twice" if key else "a key is there twice"
        raise ConfigError([Issue(name, line, "", found, "keep one of them")]) from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        problem = (error.problem or "is not YAML").strip()
        raise ConfigError([Issue(name, line, "", f"not valid YAML: {problem}", "mend the indentation or quoting there")]) from None
    except YAMLError as error:
        raise ConfigError([Issue(name, 0, "", f"not valid YAML: {str(error).splitlines()[0]}", "mend the file")]) from None
    except RecursionError:
        raise ConfigError([Issue(name, 0, "", "is nested too deeply", f"keep it under {_DEPTH_LIMIT} levels")]) from None
    except (ValueError, ArithmeticError):
        found = "holds a number or date that cannot be read"
        raise ConfigError([Issue(name, 0, "", found, "write it shorter, or put it in quotes")]) from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError([Issue(name, 1, "", f"holds {_kind(document)}", "write it as a mapping of keys such as gateway:")])
    issues = list(_odd_nodes(name, document))
    if issues:
        raise ConfigError(issues)
    return document


def _odd_nodes(name: str, document: dict[Any, Any]) -> Iterator[Issue]:
    # Aliases make a file of a few lines a tree without end: every way through it counts.
    waiting: list[tuple[KeyPath, Any]] = [((), document)]
    seen = 0
    while waiting:
        where, node = waiting.pop()
        seen += 1
        if seen > _NODE_LIMIT or len(where) > _DEPTH_LIMIT:
            found, cure = "aliases or nesting make it too large", f"keep it under {_NODE_LIMIT} values and {_DEPTH_LIMIT} levels"
            yield Issue(name, line_of(document, where), dotted(where[:4]), found, cure)
            return
        if isinstance(node, dict) and not _is_tagged(node):
            names: set[str] = set()
            for key, item in node.items():
                if not isinstance(key, str | int) or isinstance(key, bool) or str(key) in names:
                    found = "a key that is no text" if str(key) not in names else f"the key {str(key)[:60]!r} is there twice"
                    yield Issue(name, line_of(document, (*where, key)), dotted(where), found, "write each key once, as text in quotes")
                    continue
                names.add(str(key))
                waiting.append(((*where, key), item))
        elif isinstance(node, list) and not _is_tagged(node):
            waiting.extend(((*where, index), item) for index, item in enumerate(node))
        elif not _is_scalar(node):
            yield Issue(name, line_of(document, where), dotted(where), f"found {_kind(node)}", "write it as text in quotes")


def _is_tagged(node: Any) -> bool:
    tag = getattr(getattr(node, "tag", None), "value", None)
    return tag is not None and not str(tag).startswith("tag:yaml.org,2002:")


def _is_scalar(node: Any) -> bool:
    if isinstance(node, str):
        return not any("\ud800" <= letter <= "\udfff" for letter in node)
    return node is None or isinstance(node, int | float)


def _kind(node: Any) -> str:
    if isinstance(node, dict):
        return "a mapping with a tag" if _is_tagged(node) else "a mapping"
    if isinstance(node, list):
        return "a list with a tag" if _is_tagged(node) else "a list"
    if isinstance(node, str):
        return "a text" if _is_scalar(node) else "characters that are no text"
    return _KINDS.get(type(node).__name__, "a tagged value")


class Resolver:
    """Replaces references by what they name; `issues` are those that name nothing, `secrets` the values found."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str], source: Mapping[str, Any]) -> None:
        self._name = name
        self._environment = environment
        self._places = Places.of(folder, environment, source)
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
        reference = REFERENCE.match(text)
        if reference is not None:
            try:
                secret = self._places.read(reference[1], reference[2])
            except Unresolved as error:
                self._problem(where, error.found, error.cure)
                return None
            self.secrets.append(secret)
            return Secret(secret)
        if _INSIDE.search(text):
            self._problem(where, "a reference inside other text", f"make the reference the whole value, of one of the kinds {_SHOWN_KINDS}")
            return None
        stray = _OF_NO_KIND.match(text)
        if stray is not None:
            self._problem(where, f"a reference of the unknown kind {stray[1]!r}", f"use one of the kinds {_SHOWN_KINDS}")
            return None
        value = _VARIABLE.sub(lambda match: self._variable(match, where), text)
        if value and value != text and is_secret_place(where):
            self.secrets.append(value)
        return value

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

    def _problem(self, where: KeyPath, found: str, cure: str) -> None:
        self.issues.append(Issue(self._name, line_of(self._source, where), dotted(where), found, cure))


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
        keys = [part] if part in data else [name for name in data if str(name) == str(part)]
        if not keys:
            break
        key = keys[0]
        line = data[key][0] + 1
        node = node[key]
    return line
