"""Putting back what was hidden from who edits a config: a redaction mark stands for the value at its place. No pydantic."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from openclaw_config.issues import ConfigError, KeyPath, dotted
from openclaw_config.merging import same
from openclaw_config.patching import rewritten, tree_of
from openclaw_config.redaction import redact, redact_source
from openclaw_config.secrets import REDACTED
from openclaw_config.source import parse

_MISSING: Final = object()


class CannotRestore(Exception):
    """A mark stands where nothing was hidden; the message names the key and the cure."""


def restored(incoming: Any, current: Mapping[str, Any], known: Collection[str]) -> Any:
    """A tree with every mark replaced by what the current source has at its place; raise `CannotRestore`.

    A list's items are found again by their `id`, by their position where there are as many as before, else by all that they say.
    """
    return _restored(incoming, current, redact("", current, known), ())


def restored_text(name: str, text: str, current: str, known: Collection[str]) -> str:
    """A whole file's text with every mark in it replaced, those in comments that were left alone included.

    Raises:
        CannotRestore: a mark stands where nothing was hidden.
        CannotEdit: it cannot be replaced with all else left as it is.
        ConfigError: one of the texts is no YAML.
    """
    if REDACTED not in text:
        return text
    source = tree_of(name, current)
    text = _with_comments(text, current, redact_source(current, source, known, lambda cleaned: _parsed(name, cleaned)))
    return rewritten(name, text, restored(tree_of(name, text), source, known))


def _restored(incoming: Any, current: Any, shown: Any, where: KeyPath) -> Any:
    if isinstance(incoming, Mapping):
        return {key: _restored(value, _at(current, key), _at(shown, key), (*where, key)) for key, value in incoming.items()}
    if isinstance(incoming, list):
        return [_item(incoming, index, current, shown, where) for index in range(len(incoming))]
    if not isinstance(incoming, str) or REDACTED not in incoming:
        return incoming
    if current is _MISSING or incoming != shown:
        raise CannotRestore(
            f"{dotted(where)}: holds {REDACTED}, and no value was hidden there; write the value, or a reference such as ${{env:NAME}}"
        )
    return current


def _item(incoming: list[Any], index: int, current: Any, shown: Any, where: KeyPath) -> Any:
    item = incoming[index]
    if not _has_mark(item):
        return item
    position = _position(incoming, index, shown) if isinstance(shown, list) else None
    place = (*where, index)
    return _restored(item, _MISSING, _MISSING, place) if position is None else _restored(item, current[position], shown[position], place)


def _position(incoming: list[Any], index: int, shown: list[Any]) -> int | None:
    item = incoming[index]
    if isinstance(item, Mapping) and isinstance(item.get("id"), str):
        found = [at for at, other in enumerate(shown) if isinstance(other, Mapping) and other.get("id") == item["id"]]
    elif len(incoming) == len(shown):
        return index
    else:
        found = [at for at, other in enumerate(shown) if same(other, item)]
    return found[0] if len(found) == 1 else None


def _at(holder: Any, key: str) -> Any:
    return holder.get(key, _MISSING) if isinstance(holder, Mapping) else _MISSING


def _has_mark(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_mark, value.values()))
    if isinstance(value, list):
        return any(map(_has_mark, value))
    return isinstance(value, str) and REDACTED in value


def _with_comments(text: str, current: str, shown: str | None) -> str:
    import difflib

    hidden, real, lines = (shown or "").splitlines(keepends=True), current.splitlines(keepends=True), text.splitlines(keepends=True)
    if len(hidden) != len(real):
        return text
    # Values are restored by their place alone: lines that look alike may belong to different keys.
    for old, new, size in difflib.SequenceMatcher(None, hidden, lines, autojunk=False).get_matching_blocks():
        for offset in range(size):
            if REDACTED in lines[new + offset] and lines[new + offset].lstrip(" \t\ufeff").startswith("#"):
                lines[new + offset] = real[old + offset]
    return "".join(lines)


def _parsed(name: str, text: str) -> Any:
    try:
        return parse(name, text)
    except ConfigError as error:
        raise ValueError(str(error)) from error
