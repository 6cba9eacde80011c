"""From the files and variables of a config to one document in which every value knows where it comes from. No pydantic.

Later ones win: includes, the file that includes them, the profile, the environment; what none of them sets is a default. Mappings are
merged key by key, anything else is replaced as a whole, and an empty section (`channels:`) takes nothing away.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from openclaw_config.issues import ConfigError, Fix, Issue, KeyPath, dotted, placed
from openclaw_config.names import INCLUDE, PREFIX, SCHEMA
from openclaw_config.redaction import plain
from openclaw_config.source import DEPTH_LIMIT, NODE_LIMIT, SIZE_LIMIT, parse, parse_any, read_text

PROFILE_VARIABLE: Final = "OPENCLAW_PROFILE"
_OF_A_MAPPING: Final = frozenset({INCLUDE})
_OF_A_FILE: Final = frozenset({INCLUDE, SCHEMA})
_UNUSABLE: Final = object()
_PROFILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_INCLUDE_DEPTH: Final = 10
_INCLUDE_LIMIT: Final = 256


class Layer(StrEnum):
    """Where a value comes from, the weakest first."""

    DEFAULT = "default"
    INCLUDE = "include"
    FILE = "file"
    PROFILE = "profile"
    ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class Origin:
    """One layer's word on a key."""

    layer: Layer
    file: str
    """Relative to the folder of `openclaw.yaml`; the variable's name in the environment layer, empty for a default."""
    line: int = 0
    """From 1; 0 where there is none."""
    column: int = 0
    value: Any = field(default=None, repr=False, compare=False)
    """As it is written there, references unresolved. It may be a secret."""

    @property
    def place(self) -> str:
        """The place as issues write it: `openclaw.yaml:12:5`."""
        return placed(self.file, self.line, self.column)


@dataclass(frozen=True, slots=True)
class Layered:
    """A config that was read and merged, and not validated yet."""

    path: Path
    text: str = field(repr=False)
    """Of the file itself."""
    source: Mapping[str, Any] = field(repr=False)
    """The file's own content, with the YAML library's positions."""
    document: Mapping[str, Any] = field(repr=False)
    """All layers but the defaults, references unresolved."""
    origins: Mapping[KeyPath, tuple[Origin, ...]] = field(repr=False)
    """For every key that a layer sets: who set it, the winner first."""
    parts: Mapping[Path, str] = field(repr=False)
    """The text of every further file that took part, by its absolute path."""
    profile: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that took part, `openclaw.yaml` first."""
        return (self.path, *self.parts)

    @property
    def hash(self) -> str:
        """SHA-256 of all that was read, hexadecimal; of a file without includes and profile, that of its bytes."""
        if not self.parts:
            return hashlib.sha256(self.text.encode()).hexdigest()
        whole = hashlib.sha256()
        for name, text in (("", self.text), *((path.relative_to(self.path.parent).as_posix(), text) for path, text in self.parts.items())):
            whole.update(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest() + hashlib.sha256(text.encode()).digest())
        return whole.hexdigest()

    def origin(self, where: Sequence[str | int]) -> Origin | None:
        """Who set the deepest part of a path that is set at all; None where that is nobody."""
        for length in range(len(where), 0, -1):
            found = self.origins.get(as_path(where[:length]))
            if found:
                return found[0]
        return None

    def stands(self, where: KeyPath) -> tuple[str, int, int]:
        """File, line and column of the deepest part of a path that is set; the file alone where nothing is."""
        origin = self.origin(where)
        return (self.path.name, 0, 0) if origin is None else (origin.file, origin.line, origin.column)

    def path_of(self, key: str) -> KeyPath:
        """Read a dotted key as a path of this config."""
        # A dotted key does not tell the dots of its parts from those between them, nor an index from a key: the config does.
        node: Any = self.document
        path: list[str | int] = []
        parts = key.split(".")
        while parts:
            part: str | int = parts[0]
            length = 1
            if isinstance(node, Mapping):
                length = next((count for count in range(len(parts), 0, -1) if ".".join(parts[:count]) in node), 1)
                part = ".".join(parts[:length])
                node = node.get(part)
            elif isinstance(node, list) and parts[0].isdecimal() and int(parts[0]) < len(node):
                part = int(parts[0])
                node = node[part]
            else:
                node = None
            path.append(part)
            parts = parts[length:]
        return tuple(path)


def as_path(where: Sequence[str | int]) -> KeyPath:
    """A path as `origins` has it: keys as text, indices as numbers."""
    return tuple(part if isinstance(part, int) else str(part) for part in where)


def read_layers(path: Path, environment: Mapping[str, str], read: Callable[[Path], str] = read_text) -> Layered:
    """Read the file with all that belongs to it, each by `read`; raise `ConfigError`."""
    return _Reader(path, environment, read).layered(read(path))


def single(path: Path, text: str, source: Mapping[str, Any]) -> Layered:
    """A file that was parsed to `source`, taken alone: includes stay unread."""
    file = _File(Layer.FILE, path.name, path, (path,))
    reader = _Reader(path, {}, read_text, follows=False)
    root = reader.build(file, source, (), Origin(Layer.FILE, path.name, 1, 1, source), skipped=_OF_A_FILE)
    return Layered(path, text, source, source, _origins(root), {})


@dataclass(slots=True)
class _Node:
    """A value with its origins, the winner last. `value` is a dict or list of nodes, or a scalar."""

    value: Any
    origins: list[Origin]


@dataclass(frozen=True, slots=True)
class _File:
    layer: Layer
    name: str
    path: Path
    chain: tuple[Path, ...]
    """Itself and the files by which it came to be included, with links followed."""


class _Reader:
    def __init__(self, path: Path, environment: Mapping[str, str], read: Callable[[Path], str], *, follows: bool = True) -> None:
        self._path = path
        self._follows = follows
        self._read = read
        self._folder = path.parent
        self._inside = path.parent.resolve()
        self._environment = environment
        self._issues: list[Issue] = []
        self._parsed: dict[Path, Any] = {}
        self._parts: dict[Path, str] = {}
        self._includes = 0
        self._nodes = 0

    def layered(self, text: str) -> Layered:
        try:
            source = parse(self._path.name, text)
            root = self._layer(_File(Layer.FILE, self._path.name, self._path, (self._path.resolve(),)), source)
            profile = self._environment.get(PROFILE_VARIABLE) or None
            if profile is not None:
                root = _merged(root, self._profile(profile))
            root = self._with_variables(root)
        except ConfigError as error:
            self._issues += error.issues
            raise ConfigError(self._issues, files=(self._path, *self._parts)) from None
        if self._issues:
            raise ConfigError(self._issues, files=(self._path, *self._parts))
        if not isinstance(root.value, dict):
            found, cure = "what is included makes the whole file a list or a value", "include a mapping of keys there"
            raise ConfigError([_issue(root.origins[-1], (), found, cure, fix=Fix.BAD_INCLUDE)], files=(self._path, *self._parts))
        return Layered(self._path, text, source, _flat(root), _origins(root), self._parts, profile)

    def _layer(self, file: _File, document: Any) -> _Node:
        return self.build(file, document, (), Origin(file.layer, file.name, 1, 1, document), skipped=_OF_A_FILE)

    def build(self, file: _File, value: Any, where: KeyPath, origin: Origin, skipped: Collection[str] = _OF_A_MAPPING) -> _Node:
        self._nodes += 1
        if len(where) > DEPTH_LIMIT or self._nodes > NODE_LIMIT:
            found = "aliases, includes or nesting make it too large"
            raise ConfigError([_issue(origin, where[:4], found, f"keep it under {NODE_LIMIT} values and {DEPTH_LIMIT} levels")])
        if isinstance(value, Mapping):
            children = {
                str(key): self.build(file, item, (*where, str(key)), _origin(file, value, key, origin, item))
                for key, item in value.items()
                if key not in skipped
            }
            node = _Node(children, [origin])
            return self._including(file, value, where, node) if INCLUDE in value and self._follows else node
        if isinstance(value, list):
            items = [self.build(file, item, (*where, index), _origin(file, value, index, origin, item)) for index, item in enumerate(value)]
            return _Node(items, [origin])
        return _Node(plain(value), [origin])

    def _including(self, file: _File, holder: Mapping[Any, Any], where: KeyPath, siblings: _Node) -> _Node:
        said = holder[INCLUDE]
        origin = _origin(file, holder, INCLUDE, siblings.origins[-1], said)
        names = [said] if isinstance(said, str) else said
        if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
            self._fault(origin, where, "names no file", "write the path of a file, or a list of them")
            return siblings
        base: _Node | None = None
        for name in names:
            included = self._included(file, str(name), where, origin)
            if included is None:
                return siblings
            if base is not None and not (isinstance(base.value, dict) and isinstance(included.value, dict)):
                self._fault(origin, where, f"{str(name)[:60]!r} cannot be merged: only mappings can", "include one file, or mappings alone")
                return siblings
            base = included if base is None else _merged(base, included)
        if base is None or (siblings.value and not isinstance(base.value, dict)):
            self._fault(origin, where, "what is included is no mapping and has keys beside it", "remove these keys, or include a mapping")
            return siblings
        return _merged(base, siblings) if siblings.value else _Node(base.value, [*siblings.origins, *base.origins])

    def _included(self, file: _File, name: str, where: KeyPath, origin: Origin) -> _Node | None:
        self._includes += 1
        if self._includes > _INCLUDE_LIMIT:
            raise ConfigError([_issue(origin, where, f"there are more than {_INCLUDE_LIMIT} includes", "include fewer files")])
        path = file.path.parent / name
        try:
            real = path.resolve()
        except (OSError, ValueError, RuntimeError):
            self._fault(origin, where, f"{name[:60]!r} is no path", "write the path of a file")
            return None
        shown = _shown(real, self._inside)
        if Path(name).is_absolute() or shown is None:
            self._fault(origin, where, f"{name[:60]!r} leads out of {self._folder}", "write a relative path to a file in that folder")
            return None
        if real in file.chain:
            way = " -> ".join(_shown(each, self._inside) or each.name for each in (*file.chain[file.chain.index(real) :], real))
            self._fault(origin, where, f"the include goes in a circle: {way}", "take one of these includes out")
            return None
        if len(file.chain) > _INCLUDE_DEPTH:
            self._fault(origin, where, f"includes go deeper than {_INCLUDE_DEPTH} files", "include it further up")
            return None
        document = self._document(self._folder / shown, shown, origin, where)
        if document is _UNUSABLE:
            return None
        layer = file.layer if file.layer is Layer.PROFILE else Layer.INCLUDE
        part = _File(layer, shown, self._folder / shown, (*file.chain, real))
        return self.build(part, document, where, Origin(layer, shown, 1, 1, document), skipped=_OF_A_FILE)

    def _document(self, path: Path, shown: str, origin: Origin, where: KeyPath) -> Any:
        if path not in self._parsed:
            self._parts.setdefault(path, "")
            try:
                self._parts[path] = self._read(path)
                document = parse_any(shown, self._parts[path])
                self._parsed[path] = {} if document is None else document
            except ConfigError as error:
                self._parsed[path] = _UNUSABLE
                unread = [issue for issue in error.issues if not issue.line and not issue.key]
                for issue in unread:
                    self._fault(origin, where, f"{shown}: {issue.found}", f"make it a UTF-8 file of at most {SIZE_LIMIT} bytes")
                self._issues += [issue for issue in error.issues if issue not in unread]
        return self._parsed[path]

    def _profile(self, name: str) -> _Node:
        if _PROFILE_NAME.fullmatch(name) is None:
            found, cure = f"{name[:60]!r} is no name of a profile", "use letters, digits, - and _, or unset it"
            raise ConfigError([Issue(PROFILE_VARIABLE, 0, "", found, cure, fix=Fix.BAD_PROFILE)])
        path = self._folder / f"{self._path.stem}.{name}{self._path.suffix}"
        self._parts[path] = ""
        try:
            text = self._read(path)
        except ConfigError as error:
            raise ConfigError(
                [
                    Issue(
                        path.name,
                        0,
                        "",
                        f"the profile {name!r}: {issue.found}",
                        f"write that file, or unset {PROFILE_VARIABLE}",
                        fix=Fix.BAD_PROFILE,
                    )
                    for issue in error.issues
                ]
            ) from None
        self._parts[path] = text
        return self._layer(_File(Layer.PROFILE, path.name, path, (path.resolve(),)), parse(path.name, text))

    def _with_variables(self, root: _Node) -> _Node:
        named = sorted(name for name in self._environment if name.startswith(PREFIX))
        if not named or not isinstance(root.value, dict):
            return root
        # Imported here: it needs the models, which the command line does not have.
        from openclaw_config.variables import read_variables

        known = _flat(root)
        for variable in read_variables(named, self._environment, known, self._issues):
            origin = Origin(Layer.ENVIRONMENT, variable.name, value=variable.value)
            file = _File(Layer.ENVIRONMENT, variable.name, self._path, (self._path.resolve(),))
            node = self.build(file, variable.value, variable.where, origin)
            for part in reversed(variable.where):
                node = _Node({str(part): node}, [origin])
            root = _merged(root, node)
        return root

    def _fault(self, origin: Origin, where: KeyPath, found: str, cure: str) -> None:
        self._issues.append(_issue(origin, (*where, INCLUDE), found, cure, fix=Fix.BAD_INCLUDE))


def _origin(file: _File, holder: Any, key: Any, above: Origin, value: Any) -> Origin:
    position = (getattr(getattr(holder, "lc", None), "data", None) or {}).get(key)
    # What came by a YAML merge key (`<<`) stands elsewhere in the file: the mapping that takes it is what can be named.
    line, column = (above.line, above.column) if position is None else (position[0] + 1, position[1] + 1)
    return Origin(file.layer, file.name, line, column, value)


def _issue(origin: Origin, where: KeyPath, found: str, cure: str, *, fix: Fix = Fix.UNREADABLE_FILE) -> Issue:
    return Issue(origin.file, origin.line, dotted(where), found, cure, column=origin.column, fix=fix, where=where)


def _merged(low: _Node, high: _Node) -> _Node:
    if not isinstance(low.value, dict):
        return _Node(high.value, [*low.origins, *high.origins])
    if high.value is None:
        return low
    if not isinstance(high.value, dict):
        return _Node(high.value, [*low.origins, *high.origins])
    below = {key: _merged(low.value[key], node) if key in low.value else node for key, node in high.value.items()}
    return _Node({**low.value, **below}, [*low.origins, *high.origins])


def _walk(root: _Node) -> Iterator[tuple[KeyPath, _Node]]:
    waiting: list[tuple[KeyPath, _Node]] = [((), root)]
    while waiting:
        where, node = waiting.pop()
        yield where, node
        if isinstance(node.value, dict):
            waiting += [((*where, key), item) for key, item in node.value.items()]
        elif isinstance(node.value, list):
            waiting += [((*where, index), item) for index, item in enumerate(node.value)]


def _origins(root: _Node) -> dict[KeyPath, tuple[Origin, ...]]:
    return {where: tuple(reversed(node.origins)) for where, node in _walk(root) if where}


def _flat(node: _Node) -> Any:
    if isinstance(node.value, dict):
        return {key: _flat(item) for key, item in node.value.items()}
    return [_flat(item) for item in node.value] if isinstance(node.value, list) else node.value


def _shown(path: Path, inside: Path) -> str | None:
    return path.relative_to(inside).as_posix() if path.is_relative_to(inside) else None
