"""Reading a reference installation: its JSON5 configuration with what it includes, and the variables that it names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from openclaw_config.references import read_regular

CONFIG_NAMES: Final = ("openclaw.json", "openclaw.json5", "clawdbot.json", "moltbot.json")
_LONGEST: Final = 2 << 20
_DEEPEST: Final = 10
_MOST_LEVELS: Final = 60
_INCLUDE: Final = "$include"
_ASSIGNMENT: Final = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")


class CannotImport(Exception):
    """The installation cannot be read; the message names the file and the cure."""


@dataclass(frozen=True, slots=True)
class Installation:
    """What was read. `variables` are those that the installation itself sets, by its configuration and its `.env`."""

    folder: Path
    config_path: Path
    config: Mapping[str, Any]
    variables: Mapping[str, str] = field(repr=False)
    files: frozenset[Path] = frozenset()
    """The files of the configuration, links followed."""


def read_installation(path: Path) -> Installation:
    """Read a state folder, or the configuration file in it; raise `CannotImport`."""
    config_path = _config_file(path)
    folder = config_path.parent
    files: set[Path] = set()
    config = _Reader(folder.resolve(), files).read(config_path, ())
    if not isinstance(config, dict):
        raise CannotImport(f"{config_path}: holds {type(config).__name__}, where the reference has a mapping; name its state folder")
    return Installation(folder, config_path, config, {**_dotenv(folder / ".env"), **_declared(config)}, frozenset(files))


def _config_file(path: Path) -> Path:
    if path.is_file():
        return path.absolute()
    for name in CONFIG_NAMES:
        if (path / name).is_file():
            return (path / name).absolute()
    raise CannotImport(f"{path}: there is no openclaw.json; name the state folder of the reference gateway, e.g. ~/.openclaw")


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads a file with what it includes, all of it below one folder."""

    root: Path
    files: set[Path]

    def read(self, path: Path, above: tuple[Path, ...]) -> Any:
        real = path.resolve()
        if real in above:
            raise CannotImport(f"{path}: includes itself; take one of the $include out")
        if len(above) > _DEEPEST:
            raise CannotImport(f"{path}: is the {len(above)}. include within another; the reference reads at most {_DEEPEST}")
        if not real.is_relative_to(self.root):
            raise CannotImport(f"{path}: lies outside {self.root}; copy it there, and name it so")
        self.files.add(real)
        return self._resolved(_parse(path), (*above, real), 0)

    def _resolved(self, node: Any, above: tuple[Path, ...], level: int) -> Any:
        """The node with its includes in it: one named replaces it, several are merged, and what stands beside them wins."""
        path = above[-1]
        if level > _MOST_LEVELS:
            raise CannotImport(f"{path}: is nested deeper than {_MOST_LEVELS} levels")
        if isinstance(node, list):
            return [self._resolved(item, above, level + 1) for item in node]
        if not isinstance(node, dict):
            return node
        own = {key: self._resolved(item, above, level + 1) for key, item in node.items() if key != _INCLUDE}
        if _INCLUDE not in node:
            return own
        named = node[_INCLUDE]
        names = [named] if isinstance(named, str) else named
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise CannotImport(f"{path}: $include holds {type(named).__name__}; it names a file, or a list of them")
        found: Any = {}
        for name in names:
            found = merged(found, self.read(path.parent / name, above))
        return merged(found, own) if own else found


def merged(below: Any, above: Any) -> Any:
    """Two trees as one: mappings are joined, lists put one behind the other, else the one above wins."""
    if isinstance(below, dict) and isinstance(above, dict):
        return {**below, **{key: merged(below[key], item) if key in below else item for key, item in above.items()}}
    if isinstance(below, list) and isinstance(above, list):
        return [*below, *above]
    return above


def _parse(path: Path) -> Any:
    # Imported here: nothing else reads JSON5.
    import json5

    try:
        text = read_regular(path, _LONGEST)
    except FileNotFoundError:
        raise CannotImport(f"{path}: is not there; mend the $include that names it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CannotImport(f"{path}: cannot be read ({error}); make it a readable UTF-8 file") from error
    if text is None:
        raise CannotImport(f"{path}: is longer than {_LONGEST} bytes")
    try:
        return json5.loads(text, allow_duplicate_keys=False)
    except RecursionError:
        raise CannotImport(f"{path}: is nested too deeply") from None
    except ValueError as error:
        # Its words hold a place, and of the text a single character.
        raise CannotImport(f"{path}: is no JSON5: {str(error).splitlines()[0][:120]}") from None


def _dotenv(path: Path) -> dict[str, str]:
    """The variables of a `.env` file: one assignment a line, in quotes or not."""
    try:
        text = read_regular(path, _LONGEST) or ""
    except (OSError, UnicodeDecodeError):
        return {}
    found = {}
    for line in text.splitlines():
        match = _ASSIGNMENT.fullmatch(line.strip())
        if match is None:
            continue
        value = match[2].strip()
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        value = value[1:-1] if quoted else value.partition(" #")[0].rstrip()
        if value:
            found[match[1]] = value
    return found


def _declared(config: Mapping[str, Any]) -> dict[str, str]:
    """Those of the section `env`: beside its own keys, and in its `vars`."""
    section = config.get("env")
    if not isinstance(section, dict):
        return {}
    named = section.get("vars")
    own = {key: value for key, value in section.items() if key not in {"vars", "shellEnv"}}
    both = {**own, **(named if isinstance(named, dict) else {})}
    return {str(key): value for key, value in both.items() if isinstance(value, str) and value}
