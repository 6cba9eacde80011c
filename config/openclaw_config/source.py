"""Reading `openclaw.yaml` as it is written: YAML with positions, and references. No validation, so no pydantic.

The command line reads its few keys through this module alone, for `load` costs several times as much.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scanner import RoundTripScanner

from openclaw_config.issues import ConfigError, Fix, Issue, KeyPath, dotted
from openclaw_config.redaction import KINDS, REFERENCE, is_secret_place, plain
from openclaw_config.references import Places, Unresolved, read_regular
from openclaw_config.secrets import Secret

FILE_NAME: Final = "openclaw.yaml"
__all__ = [
    "FILE_NAME",
    "ConfigError",
    "Issue",
    "KeyPath",
    "Resolver",
    "dotted",
    "line_of",
    "parse",
    "parse_any",
    "position_of",
    "read_text",
]

_VARIABLE: Final = re.compile(r"\$?\$\{([A-Z_][A-Z0-9_]*)\}")
_INSIDE: Final = re.compile(rf"(?<!\$)\$\{{({'|'.join(KINDS)}):")
_OF_NO_KIND: Final = re.compile(r"^\$\{([a-z]+):[^{}]*\}$")
SIZE_LIMIT: Final = 2_097_152
DEPTH_LIMIT: Final = 100
NODE_LIMIT: Final = 100_000

_NAMED: Final = re.compile(r"(undefined alias|undefined tag handle) .*", re.DOTALL)
"""What a value that begins with `*` or `!` has in it: it may be a secret that nobody put in quotes."""
_KINDS: Final = {"TimeStamp": "a date", "date": "a date", "datetime": "a date", "bytes": "binary data"}

_SHOWN_KINDS: Final = "${env:NAME}, ${file:PATH}, ${keyring:SERVICE/NAME}, ${exec:/PATH ARGUMENTS}"


class _Scanner(RoundTripScanner):
    """Goes no deeper than is allowed: with each bracket that is open the library looks longer for the end of a key."""

    def fetch_flow_collection_start(self, TokenClass: Any, to_push: str) -> None:  # noqa: N803 - the library's name
        if len(self.flow_context) > DEPTH_LIMIT:
            raise RecursionError
        super().fetch_flow_collection_start(TokenClass, to_push)


def read_text(path: Path) -> str:
    """The file's text; raise `ConfigError` where there is none."""
    shown, fix = str(path), Fix.UNREADABLE_FILE
    try:
        text = read_regular(path, SIZE_LIMIT)
    except FileNotFoundError:
        cure = "start the gateway once to have it written"
        raise ConfigError([Issue(shown, 0, "", "the file is not there", cure, fix=fix)]) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConfigError([Issue(shown, 0, "", f"cannot be read ({reason})", "make it a readable UTF-8 file", fix=fix)]) from None
    if text is None:
        raise ConfigError([Issue(path.name, 0, "", f"is longer than {SIZE_LIMIT} bytes", "make it shorter", fix=fix)])
    return text


def parse(name: str, text: str) -> dict[str, Any]:
    """The document with the positions of its keys; an empty file is an empty mapping. Raise `ConfigError`."""
    document = parse_any(name, text)
    if document is None:
        return {}
    if not isinstance(document, dict):
        found, cure = f"holds {_kind(document)}", "write it as a mapping of keys such as gateway:"
        raise ConfigError([Issue(name, 1, "", found, cure, column=1, fix=Fix.UNREADABLE_FILE)])
    return document


def parse_any(name: str, text: str) -> Any:
    """The document of a file that may hold a mapping, a list or one value; None where it is empty. Raise `ConfigError`."""
    unreadable = Fix.UNREADABLE_FILE
    try:
        document = _yaml().load(text)
    except DuplicateKeyError as error:
        line, column = _marked(error)
        # The library's words show both values, and they may be secrets.
        key = re.match(r'found duplicate key "?([^"]*)"? with value', error.problem or "")
        found = f"the key {key[1][:60]!r} is there twice" if key else "a key is there twice"
        raise ConfigError([Issue(name, line, "", found, "keep one of them", column=column, fix=Fix.DUPLICATE_KEY)]) from None
    except MarkedYAMLError as error:
        line, column = _marked(error)
        problem = _NAMED.sub(r"\1", error.problem or "is not YAML").strip()
        found, cure = f"not valid YAML: {problem}", "mend the indentation or quoting there"
        raise ConfigError([Issue(name, line, "", found, cure, column=column, fix=unreadable)]) from None
    except YAMLError as error:
        raise ConfigError([Issue(name, 0, "", f"not valid YAML: {str(error).splitlines()[0]}", "mend the file", fix=unreadable)]) from None
    except RecursionError:
        raise ConfigError([Issue(name, 0, "", "is nested too deeply", f"keep it under {DEPTH_LIMIT} levels", fix=unreadable)]) from None
    except (ValueError, ArithmeticError):
        found = "holds a number or date that cannot be read"
        raise ConfigError([Issue(name, 0, "", found, "write it shorter, or put it in quotes", fix=unreadable)]) from None
    issues = list(_odd_nodes(name, document))
    if issues:
        raise ConfigError(issues)
    return document


def _yaml() -> YAML:
    yaml = YAML(typ="rt")
    yaml.Scanner = _Scanner
    return yaml


def _marked(error: MarkedYAMLError) -> tuple[int, int]:
    mark = error.problem_mark
    return (mark.line + 1, mark.column + 1) if mark else (0, 0)


def _odd_nodes(name: str, document: Any) -> Iterator[Issue]:
    # Aliases make a file of a few lines a tree without end: every way through it counts.
    waiting: list[tuple[KeyPath, Any]] = [((), document)]
    seen = 0
    while waiting:
        where, node = waiting.pop()
        seen += 1
        if seen > NODE_LIMIT or len(where) > DEPTH_LIMIT:
            found, cure = "aliases or nesting make it too large", f"keep it under {NODE_LIMIT} values and {DEPTH_LIMIT} levels"
            yield _odd(name, document, where, found, cure, key=where[:4], fix=Fix.UNREADABLE_FILE)
            return
        if isinstance(node, dict) and not _is_tagged(node):
            names: set[str] = set()
            for key, item in node.items():
                is_twice = str(key) in names
                if not isinstance(key, str | int) or isinstance(key, bool) or is_twice:
                    found = f"the key {str(key)[:60]!r} is there twice" if is_twice else "a key that is no text"
                    fix = Fix.DUPLICATE_KEY if is_twice else Fix.UNKNOWN_KEY
                    yield _odd(name, document, (*where, key), found, "write each key once, as text in quotes", key=where, fix=fix)
                    continue
                names.add(str(key))
                waiting.append(((*where, key), item))
        elif isinstance(node, list) and not _is_tagged(node):
            waiting.extend(((*where, index), item) for index, item in enumerate(node))
        elif not _is_scalar(node):
            yield _odd(name, document, where, f"found {_kind(node)}", "write it as text in quotes", key=where, fix=Fix.BAD_VALUE)


def _odd(name: str, document: Any, where: KeyPath, found: str, cure: str, *, key: KeyPath, fix: Fix) -> Issue:
    line, column = position_of(document, where)
    return Issue(name, line, dotted(key), found, cure, column=column, fix=fix, where=key)


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
        self.stands: Callable[[KeyPath], tuple[str, int, int]] = lambda where: (name, *position_of(source, where))
        """In which file, line and column a place stands: for a config of several files, whoever merged them knows."""
        self._environment = environment
        self._places = Places.of(folder, environment, source)
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
        file, line, column = self.stands(where)
        fix = Fix.UNRESOLVED_REFERENCE
        self.issues.append(Issue(file, line, dotted(where), found, cure, column=column, fix=fix, where=where))


def line_of(source: Any, where: Sequence[str | int]) -> int:
    """The line of the deepest part of a path that is in the file, from 1; 0 for none."""
    return position_of(source, where)[0]


def position_of(source: Any, where: Sequence[str | int]) -> tuple[int, int]:
    """Line and column, from 1, of the deepest part of a path that is in the file; 0 and 0 for none."""
    node, found = source, (0, 0)
    for part in where:
        positions = getattr(node, "lc", None)
        data = getattr(positions, "data", None)
        if not data:
            break
        keys = [part] if part in data else [name for name in data if str(name) == str(part)]
        if not keys:
            break
        key = keys[0]
        found = (data[key][0] + 1, data[key][1] + 1)
        node = node[key]
    return found
