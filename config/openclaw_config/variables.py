"""Environment variables that set keys: `OPENCLAW_CONFIG__GATEWAY__PORT=18790`.

Two underscores part the keys. Case and single underscores do not count: `CONTROL_UI` and `CONTROLUI` are `controlUi`. A key of an open
mapping or of a plugin's section that no file has yet is written with `_` between its words: an id as `claude-cli`, a setting as `botToken`.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from openclaw_config.issues import ConfigError, Fix, Issue, KeyPath, dotted
from openclaw_config.models import Config
from openclaw_config.names import PREFIX
from openclaw_config.redaction import plain
from openclaw_config.source import parse_any

_LONGEST_SHOWN: Final = 60
_WORDS: Final = re.compile(r"[A-Za-z0-9]+(?:_[A-Za-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Variable:
    """One key set by one variable."""

    name: str
    where: KeyPath
    value: Any


class _Unknown(Exception):
    def __init__(self, segment: str, known: Iterable[str], above: KeyPath) -> None:
        super().__init__(segment)
        self.segment, self.known, self.above = segment, sorted(known), above


def read_variables(
    names: Iterable[str], environment: Mapping[str, str], document: Mapping[str, Any], issues: list[Issue]
) -> list[Variable]:
    """What the variables set, those of whole sections before those of single keys. What is wrong with one is added to `issues`."""
    found: dict[KeyPath, Variable] = {}
    for name in names:
        try:
            where = tuple(_path(name.removeprefix(PREFIX).split("__"), document))
        except _Unknown as unknown:
            issues.append(_unknown(name, unknown))
            continue
        if where in found:
            issues.append(Issue(name, 0, dotted(where), f"{found[where].name} sets the same key", "unset one", fix=Fix.BAD_VARIABLE))
        try:
            found[where] = Variable(name, where, _plain(parse_any(name, environment[name])))
        except ConfigError:
            # The words of the YAML library can have the value in them, and it may be a secret a level too high.
            cure = "write the value as YAML, odd texts in quotes"
            issues.append(Issue(name, 0, dotted(where), "not valid YAML", cure, fix=Fix.BAD_VARIABLE, where=where))
    return sorted(found.values(), key=lambda variable: len(variable.where))


def _path(segments: list[str], document: Any) -> Iterator[str]:
    """The keys that the segments mean."""
    annotation: Any = Config
    here: KeyPath = ()
    for segment in segments:
        present = [str(key) for key in document] if isinstance(document, Mapping) else []
        key = _key(segment, annotation, present, here)
        annotation = _below(annotation, key)
        document = document.get(key) if isinstance(document, Mapping) else None
        here = (*here, key)
        yield key


def _key(segment: str, annotation: Any, present: list[str], here: KeyPath) -> str:
    known: Sequence[str] = present
    new: str | None = None
    model, values = _model(annotation), _values(annotation)
    if model is not None:
        known = [info.alias or name for name, info in model.model_fields.items()]
    elif values is Any:
        # A setting of a plugin, whose names only the plugin knows.
        new = to_camel(segment.lower())
    elif values is not None:
        new = segment.lower().replace("_", "-")
    else:
        raise _Unknown(segment, (), here)
    near = next((name for name in known if _folded(name) == _folded(segment)), None)
    if near is not None:
        return near
    if new is None or _WORDS.fullmatch(segment) is None:
        raise _Unknown(segment, known, here)
    return new


def _below(annotation: Any, key: str) -> Any:
    """The annotation of a key's value."""
    model = _model(annotation)
    if model is not None:
        return next(info.annotation for name, info in model.model_fields.items() if (info.alias or name) == key)
    return _values(annotation)


def _model(annotation: Any) -> type[BaseModel] | None:
    return next((part for part in _parts(annotation) if isinstance(part, type) and issubclass(part, BaseModel)), None)


def _values(annotation: Any) -> Any:
    """The annotation of a mapping's values, Any for what is below a plugin's section; None for what is no mapping."""
    return next((Any if part is Any else get_args(part)[1] for part in _parts(annotation) if part is Any or get_origin(part) is dict), None)


def _parts(annotation: Any) -> Iterator[Any]:
    """The annotation without `Annotated`, and the branches of a union."""
    if hasattr(annotation, "__metadata__"):
        yield from _parts(annotation.__origin__)
    elif get_origin(annotation) in {Union, types.UnionType}:
        for part in get_args(annotation):
            yield from _parts(part)
    else:
        yield annotation


def _unknown(name: str, unknown: _Unknown) -> Issue:
    prefix = PREFIX + "".join(f"{_spelled(str(part))}__" for part in unknown.above)
    near = difflib.get_close_matches(_folded(unknown.segment), [_folded(key) for key in unknown.known], n=1, cutoff=0.6)
    meant = next((key for key in unknown.known if near and _folded(key) == near[0]), None)
    if meant is not None:
        cure = f"did you mean {prefix}{_spelled(meant)}?"
    else:
        cure = f"unset it; known here: {', '.join(unknown.known)}" if unknown.known else f"unset it; {dotted(unknown.above)} has no keys"
    where = (*unknown.above, unknown.segment)
    found = f"unknown key {unknown.segment[:_LONGEST_SHOWN]!r}"
    return Issue(name, 0, dotted(where), found, cure, fix=Fix.BAD_VARIABLE, where=where)


def _spelled(key: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|-", "_", key).upper()


def _folded(name: str) -> str:
    return re.sub(r"[_-]", "", name).lower()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else plain(value)
